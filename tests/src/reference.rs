//! An engine that sums as the reference does.
//!
//! The reference hands its VAE encoder a picture whose memory order is that of the decoded file: channels last.
//! PyTorch 2.1 normalises groups of such tensors with plain `f32` sums of values and of squares, one cell after the
//! other, and takes the variance as `E[x²] − E[x]²`. That loses digits: evaluated in `f64`, the same network differs
//! from the recorded latents by 8·10⁻⁵ of their largest magnitude at 128×128 pixels and by 8·10⁻⁴ at 256×256.
//! An engine wrapped in [`ReferenceSums`] reproduces that, so that everything else can be held to the bar.

use ndarray::{ArrayD, Ix4};
use smartedit_core::engine::{Engine, EngineError, Padding, Result};
use smartedit_core::tensor::HostTensor;
use smartedit_core::weights::WeightView;

/// An engine whose group norms sum as the reference's VAE encoder does.
pub struct ReferenceSums<'a, E>(&'a E);

impl<'a, E> ReferenceSums<'a, E> {
    /// Wraps an engine.
    pub fn new(engine: &'a E) -> Self {
        Self(engine)
    }
}

/// Passes operations on to the wrapped engine.
macro_rules! delegate {
    ($($name:ident($($argument:ident: $kind:ty),*);)+) => {
        $(fn $name(&self, $($argument: $kind),*) -> Result<E::Tensor> {
            self.0.$name($($argument),*)
        })+
    };
}

impl<E: Engine> Engine for ReferenceSums<'_, E> {
    type Tensor = E::Tensor;

    fn download(&self, x: &E::Tensor) -> Result<HostTensor> {
        self.0.download(x)
    }

    fn group_norm(
        &self,
        x: &E::Tensor,
        groups: usize,
        weight: &E::Tensor,
        bias: &E::Tensor,
        eps: f64,
    ) -> Result<E::Tensor> {
        let host = |tensor: &E::Tensor| match self.0.download(tensor)? {
            HostTensor::F32(array) => Ok(array),
            HostTensor::I64(_) => Err(EngineError::new("group_norm", "floats are needed")),
        };
        let normed = group_norm(host(x)?, groups, &host(weight)?, &host(bias)?, eps as f32);
        self.0.upload(&normed.into())
    }

    delegate! {
        parameter(view: WeightView);
        upload(tensor: &HostTensor);
        cast(x: &E::Tensor);
        linear(x: &E::Tensor, weight: &E::Tensor, bias: Option<&E::Tensor>);
        conv2d(x: &E::Tensor, weight: &E::Tensor, bias: Option<&E::Tensor>, stride: usize, padding: Padding);
        embedding(table: &E::Tensor, ids: &E::Tensor);
        layer_norm(x: &E::Tensor, weight: &E::Tensor, bias: &E::Tensor, eps: f64);
        rms_norm(x: &E::Tensor, weight: &E::Tensor, eps: f64);
        sigmoid(x: &E::Tensor);
        relu(x: &E::Tensor);
        gelu(x: &E::Tensor);
        sin(x: &E::Tensor);
        cos(x: &E::Tensor);
        add(a: &E::Tensor, b: &E::Tensor);
        mul(a: &E::Tensor, b: &E::Tensor);
        scale(x: &E::Tensor, factor: f64);
        matmul(a: &E::Tensor, b: &E::Tensor);
        softmax(x: &E::Tensor);
        transpose(x: &E::Tensor);
        concat(parts: &[&E::Tensor], axis: usize);
        narrow(x: &E::Tensor, axis: usize, start: usize, length: usize);
        unsqueeze(x: &E::Tensor, axis: usize);
        broadcast_batch_like(x: &E::Tensor, like: &E::Tensor);
        split_heads(x: &E::Tensor, heads: usize);
        merge_heads(x: &E::Tensor);
        flatten_spatial(x: &E::Tensor);
        unflatten_spatial(x: &E::Tensor, like: &E::Tensor);
        unflatten_square(x: &E::Tensor, side: usize);
        pixel_shuffle(x: &E::Tensor, factor: usize);
        upsample_nearest_2x(x: &E::Tensor);
        upsample_nearest_like(x: &E::Tensor, like: &E::Tensor);
        resize_bilinear_like(x: &E::Tensor, like: &E::Tensor);
        silu(x: &E::Tensor);
        geglu(x: &E::Tensor, size: usize);
        attention(q: &E::Tensor, k: &E::Tensor, v: &E::Tensor, scale: f64, mask: Option<&E::Tensor>);
    }
}

fn group_norm(
    x: ArrayD<f32>,
    groups: usize,
    weight: &ArrayD<f32>,
    bias: &ArrayD<f32>,
    eps: f32,
) -> ArrayD<f32> {
    let mut x = x.into_dimensionality::<Ix4>().expect("pictures have four dimensions");
    let (_, channels, height, width) = x.dim();
    let size = channels / groups;
    let count = (size * height * width) as f32;
    for mut picture in x.outer_iter_mut() {
        for group in 0..groups {
            let range = group * size..(group + 1) * size;
            let (mut sum, mut squares) = (0.0f32, 0.0f32);
            for channel in range.clone() {
                let plane = picture.index_axis(ndarray::Axis(0), channel);
                sum += plane.iter().fold(0.0f32, |sum, value| sum + value);
                squares += plane.iter().fold(0.0f32, |sum, value| sum + value * value);
            }
            let mean = sum / count;
            let factor = 1.0 / ((squares / count - mean * mean).max(0.0) + eps).sqrt();
            for channel in range {
                let scale = factor * weight[[channel]];
                let shift = bias[[channel]] - mean * scale;
                let mut plane = picture.index_axis_mut(ndarray::Axis(0), channel);
                plane.mapv_inplace(|value| value * scale + shift);
            }
        }
    }
    x.into_dyn()
}
