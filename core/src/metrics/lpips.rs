//! Learned Perceptual Image Patch Similarity, with SqueezeNet 1.1.
//!
//! Engines have no maximum over windows, and this network is the only one that needs it: between its parts, features come
//! to the host, which compares them anyway.

use std::path::Path;

use ndarray::{Array4, ArrayView1, Axis, Ix4, Zip};

use super::{Background, MetricError};
use crate::engine::{Engine, EngineError, Padding};
use crate::model::checkpoint::{Checkpoint, CheckpointWeights};
use crate::networks::Conv2d;
use crate::tensor::HostTensor;
use crate::weights::{self, Weights};

/// Mean of each colour channel, of values in −1…1.
const MEAN: [f32; 3] = [-0.030, -0.088, -0.188];

/// Standard deviation of each colour channel.
const DEVIATION: [f32; 3] = [0.458, 0.448, 0.450];

/// Added to lengths, so that none is 0.
const EPSILON: f64 = 1e-10;

/// A SqueezeNet's module of number `index`: `inputs` channels are squeezed and then expanded twice.
struct FireShape {
    index: usize,
    inputs: usize,
    squeezed: usize,
    expanded: usize,
}

/// The modules of each part; features are compared after each part. The first three parts begin with a maximum over
/// windows.
const PARTS: [&[FireShape]; 6] = [
    &[
        FireShape { index: 3, inputs: 64, squeezed: 16, expanded: 64 },
        FireShape { index: 4, inputs: 128, squeezed: 16, expanded: 64 },
    ],
    &[
        FireShape { index: 6, inputs: 128, squeezed: 32, expanded: 128 },
        FireShape { index: 7, inputs: 256, squeezed: 32, expanded: 128 },
    ],
    &[FireShape { index: 9, inputs: 256, squeezed: 48, expanded: 192 }],
    &[FireShape { index: 10, inputs: 384, squeezed: 48, expanded: 192 }],
    &[FireShape { index: 11, inputs: 384, squeezed: 64, expanded: 256 }],
    &[FireShape { index: 12, inputs: 512, squeezed: 64, expanded: 256 }],
];

/// Parts that begin with a maximum over windows.
const POOLED_PARTS: usize = 3;

/// Channels of the first convolution.
const FIRST_CHANNELS: usize = 64;

/// How much two pictures differ to the eye of a network: 0 for equal ones. `T` is a tensor of the engine that holds the
/// network.
pub struct Lpips<T> {
    first: Conv2d<T>,
    parts: Vec<Vec<Fire<T>>>,
    /// For the features after the first convolution and after each part, the weight of each channel.
    heads: Vec<Vec<f32>>,
}

impl<T> Lpips<T> {
    /// Opens the network's weights (`features.…`, as torchvision names them) and those of its linear heads
    /// (`lin0.model.1.weight`, …), in one file or several.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or lacks a tensor.
    pub fn open<E: Engine<Tensor = T>>(e: &E, files: &[impl AsRef<Path>]) -> Result<Self, MetricError> {
        let checkpoint = Checkpoint::open(files)?;
        Ok(Self::load(&Weights::root(&CheckpointWeights::new(e, &checkpoint)))?)
    }

    fn load(weights: &Weights<'_, T>) -> weights::Result<Self> {
        let features = weights.scope("features");
        let part = |shapes: &&[FireShape]| shapes.iter().map(|shape| Fire::load(&features, shape)).collect();
        let channels = PARTS.iter().filter_map(|part| Some(2 * part.last()?.expanded));
        let head = |(index, channels): (usize, usize)| {
            let head = weights.scope(format!("lin{index}.model.1")).host("weight", &[1, channels, 1, 1])?;
            Ok(head.into_raw_vec_and_offset().0)
        };
        Ok(Self {
            first: Conv2d::load_strided(&features.scope(0), 3, FIRST_CHANNELS, 3, 2, Padding::all(0))?,
            parts: PARTS.iter().map(part).collect::<weights::Result<_>>()?,
            heads: [FIRST_CHANNELS]
                .into_iter()
                .chain(channels)
                .enumerate()
                .map(head)
                .collect::<weights::Result<_>>()?,
        })
    }

    /// The distance of an edit's background from the original's.
    ///
    /// # Errors
    ///
    /// An operation of the engine failed.
    pub fn distance<E: Engine<Tensor = T>>(
        &self,
        e: &E,
        background: &Background,
    ) -> Result<f64, EngineError> {
        let [original, edited] = background.tensors();
        let mut pixels = ndarray::concatenate![Axis(0), original, edited];
        for (channel, mut plane) in pixels.axis_iter_mut(Axis(1)).enumerate() {
            plane.mapv_inplace(|value| (value - MEAN[channel]) / DEVIATION[channel]);
        }
        let mut x = e.relu(&self.first.forward(e, &e.cast(&e.upload(&pixels.into())?)?)?)?;
        let mut features = download(e, &x)?;
        let mut heads = self.heads.iter();
        let mut sum = heads.next().map_or(0.0, |head| distance(&features, head));
        for ((index, part), head) in self.parts.iter().enumerate().zip(heads) {
            if index < POOLED_PARTS {
                x = e.cast(&e.upload(&maxima(&features).into())?)?;
            }
            x = part.iter().try_fold(x, |x, fire| fire.forward(e, &x))?;
            features = download(e, &x)?;
            sum += distance(&features, head);
        }
        Ok(sum)
    }
}

fn download<E: Engine>(e: &E, x: &E::Tensor) -> Result<Array4<f32>, EngineError> {
    let error = |message: &str| EngineError::new("download", message);
    match e.download(x)? {
        HostTensor::F32(array) => {
            array.into_dimensionality::<Ix4>().map_err(|_| error("features have four dimensions"))
        }
        HostTensor::I64(_) => Err(error("features are floats")),
    }
}

/// SqueezeNet's module.
struct Fire<T> {
    squeeze: Conv2d<T>,
    expand1x1: Conv2d<T>,
    expand3x3: Conv2d<T>,
}

impl<T> Fire<T> {
    fn load(features: &Weights<'_, T>, shape: &FireShape) -> weights::Result<Self> {
        let &FireShape { index, inputs, squeezed, expanded } = shape;
        let scope = features.scope(index);
        Ok(Self {
            squeeze: Conv2d::load(&scope.scope("squeeze"), inputs, squeezed, 1)?,
            expand1x1: Conv2d::load(&scope.scope("expand1x1"), squeezed, expanded, 1)?,
            expand3x3: Conv2d::load(&scope.scope("expand3x3"), squeezed, expanded, 3)?,
        })
    }

    fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: &T) -> Result<T, EngineError> {
        let x = e.relu(&self.squeeze.forward(e, x)?)?;
        let narrow = e.relu(&self.expand1x1.forward(e, &x)?)?;
        let wide = e.relu(&self.expand3x3.forward(e, &x)?)?;
        e.concat(&[&narrow, &wide], 1)
    }
}

/// The largest value of each window of 3×3 in steps of 2; windows that begin inside may reach outside.
fn maxima(features: &Array4<f32>) -> Array4<f32> {
    let (batch, channels, height, width) = features.dim();
    let windows = |size: usize| size.saturating_sub(3).div_ceil(2) + 1;
    Array4::from_shape_fn((batch, channels, windows(height), windows(width)), |(n, c, y, x)| {
        let rows = 2 * y..(2 * y + 3).min(height);
        let columns = 2 * x..(2 * x + 3).min(width);
        features.slice(ndarray::s![n, c, rows, columns]).fold(f32::NEG_INFINITY, |max, &value| max.max(value))
    })
}

/// The weighted squared difference of two pictures' features, brought to length 1 at each place; the mean over all places.
///
/// # Shapes
/// `features`: `[2, c, h, w]`; `head`: `[c]`.
fn distance(features: &Array4<f32>, head: &[f32]) -> f64 {
    let [a, b] = [0, 1].map(|index| features.index_axis(Axis(0), index));
    let mut sum = 0.0;
    Zip::from(a.lanes(Axis(0))).and(b.lanes(Axis(0))).for_each(|a, b| {
        let length = |x: &ArrayView1<'_, f32>| {
            x.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt() + EPSILON
        };
        let (length_a, length_b) = (length(&a), length(&b));
        for ((&a, &b), &weight) in a.iter().zip(&b).zip(head) {
            let difference = f64::from(a) / length_a - f64::from(b) / length_b;
            sum += f64::from(weight) * difference * difference;
        }
    });
    let (_, height, width) = a.dim();
    sum / (height * width).max(1) as f64
}

#[cfg(test)]
mod tests {
    use ndarray::{Axis, array};

    use super::*;

    #[test]
    fn windows_reach_over_the_edge() {
        let row = array![[1.0f32, 5.0, 2.0, 3.0, 4.0, 9.0]].insert_axis(Axis(0)).insert_axis(Axis(0));
        assert_eq!(maxima(&row).iter().copied().collect::<Vec<_>>(), [5.0, 4.0, 9.0]);
    }

    #[test]
    fn features_are_compared_by_direction() {
        // At the first place the same direction, at the second a right angle.
        let features = array![[[[3.0f32, 1.0]], [[4.0, 0.0]]], [[[6.0, 0.0]], [[8.0, 2.0]]]];
        let found = distance(&features, &[0.5, 0.25]);
        assert!((found - (0.5 + 0.25) / 2.0).abs() < 1e-9, "{found}");
    }
}
