//! Low-rank updates of linear and convolutional layers: `weight + scale · up · down`.

use std::collections::BTreeMap;
use std::sync::Arc;

use memmap2::MmapMut;
use ndarray::{ArrayView2, ShapeError};
use safetensors::Dtype;

use super::{Result, WeightView, WeightsError};
use crate::engine::{Engine, EngineError, Padding};

/// The two factors of an update of a layer.
#[derive(Clone)]
pub struct Factors {
    /// `[rank, inputs]`, or `[rank, inputs, kernel, kernel]` of a convolution.
    pub(crate) down: WeightView,
    /// `[outputs, rank]`, or `[outputs, rank, 1, 1]` of a convolution.
    pub(crate) up: WeightView,
    /// What their product is multiplied with.
    pub(crate) scale: f32,
}

/// Factors of a network's layers, by the names of the layers' weights.
pub type Layers = BTreeMap<String, Factors>;

/// An update of a network's layers, and how strong it is: 1 as it was trained.
#[derive(Clone)]
pub struct Update {
    /// What is added to which layer.
    pub layers: Arc<Layers>,
    /// What all of it is multiplied with.
    pub scale: f32,
}

impl Factors {
    /// Bytes of both factors.
    pub(crate) fn bytes(&self) -> usize {
        self.down.bytes().len() + self.up.bytes().len()
    }

    /// The weight with the update times `scale` added, in `f32`.
    pub(crate) fn merge(&self, name: &str, weight: &WeightView, scale: f32) -> Result<WeightView> {
        let unfit = |error: ShapeError| WeightsError::Config(format!("update of `{name}`: {error}"));
        let (down, up) = (self.down.to_f32(), self.up.to_f32());
        let (rank, outputs) = (self.down.shape()[0], self.up.shape()[0]);
        let inputs = down.len() / rank.max(1);
        let up = ArrayView2::from_shape((outputs, rank), &up).map_err(unfit)?;
        let down = ArrayView2::from_shape((rank, inputs), &down).map_err(unfit)?;
        let mut merged = weight.to_f32();
        for (value, update) in merged.iter_mut().zip(up.dot(&down)) {
            *value += scale * self.scale * update;
        }
        in_memory(weight.shape(), &merged)
    }
}

/// `f32` values in memory that is as a mapped file's.
fn in_memory(shape: &[usize], values: &[f32]) -> Result<WeightView> {
    let end = size_of_val(values);
    let no_memory = |source| WeightsError::Memory { bytes: end as u64, source };
    let mut map = MmapMut::map_anon(end.max(1)).map_err(no_memory)?;
    for (bytes, value) in map.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *bytes = value.to_le_bytes();
    }
    let map = Arc::new(map.make_read_only().map_err(no_memory)?);
    Ok(WeightView { map, start: 0, end, dtype: Dtype::F32, shape: shape.to_vec() })
}

/// The factors of an update on an engine.
pub struct LowRank<T> {
    /// As in [`Factors`].
    pub down: T,
    /// As in [`Factors`].
    pub up: T,
    /// What their product is multiplied with.
    pub scale: f64,
}

impl<T> LowRank<T> {
    /// What the update adds to a linear layer's output for `x [..., inputs]`.
    pub(crate) fn linear<E: Engine<Tensor = T>>(&self, e: &E, x: &T) -> std::result::Result<T, EngineError> {
        let narrow = e.scale(&e.linear(x, &self.down, None)?, self.scale)?;
        e.linear(&narrow, &self.up, None)
    }

    /// What the update adds to a convolution's output for `x [batch, inputs, h, w]`.
    pub(crate) fn conv2d<E: Engine<Tensor = T>>(
        &self,
        e: &E,
        x: &T,
        stride: usize,
        padding: Padding,
    ) -> std::result::Result<T, EngineError> {
        let narrow = e.scale(&e.conv2d(x, &self.down, None, stride, padding)?, self.scale)?;
        e.conv2d(&narrow, &self.up, None, 1, Padding::all(0))
    }
}
