//! Convolutional blocks that UNet and VAE share.

use super::layers::{Conv2d, GroupNorm, Linear};
use crate::engine::{Engine, Padding, Result};
use crate::weights::{self, Weights};

/// Sizes of a residual block.
pub(crate) struct ResnetShape {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) groups: usize,
    pub(crate) eps: f64,
    /// Width of the timestep embedding, where there is one.
    pub(crate) time_size: Option<usize>,
}

/// Two normalised convolutions around a timestep embedding, with a residual.
pub(crate) struct Resnet<T> {
    norm1: GroupNorm<T>,
    conv1: Conv2d<T>,
    time: Option<Linear<T>>,
    norm2: GroupNorm<T>,
    conv2: Conv2d<T>,
    shortcut: Option<Conv2d<T>>,
}

impl<T> Resnet<T> {
    pub(crate) fn load(weights: &Weights<'_, T>, shape: &ResnetShape) -> weights::Result<Self> {
        let &ResnetShape { inputs, outputs, groups, eps, time_size } = shape;
        let time = match time_size {
            Some(size) => Some(Linear::load(&weights.scope("time_emb_proj"), size, outputs)?),
            None => None,
        };
        let shortcut = if inputs == outputs {
            None
        } else {
            Some(Conv2d::load(&weights.scope("conv_shortcut"), inputs, outputs, 1)?)
        };
        Ok(Self {
            norm1: GroupNorm::load(&weights.scope("norm1"), groups, inputs, eps)?,
            conv1: Conv2d::load(&weights.scope("conv1"), inputs, outputs, 3)?,
            time,
            norm2: GroupNorm::load(&weights.scope("norm2"), groups, outputs, eps)?,
            conv2: Conv2d::load(&weights.scope("conv2"), outputs, outputs, 3)?,
            shortcut,
        })
    }

    /// `[batch, inputs, h, w]` and, where the block has one, the activated timestep embedding `[batch, t]` →
    /// `[batch, outputs, h, w]`.
    pub(crate) fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: &T, time: Option<&T>) -> Result<T> {
        let mut hidden = self.conv1.forward(e, &e.silu(&self.norm1.forward(e, x)?)?)?;
        if let (Some(layer), Some(time)) = (&self.time, time) {
            let shift = layer.forward(e, time)?;
            hidden = e.add(&hidden, &e.unsqueeze(&e.unsqueeze(&shift, 2)?, 3)?)?;
        }
        let hidden = self.conv2.forward(e, &e.silu(&self.norm2.forward(e, &hidden)?)?)?;
        match &self.shortcut {
            Some(shortcut) => e.add(&shortcut.forward(e, x)?, &hidden),
            None => e.add(x, &hidden),
        }
    }
}

/// A convolution that halves height and width.
pub(crate) fn load_downsampler<T>(
    weights: &Weights<'_, T>,
    channels: usize,
    padding: Padding,
) -> weights::Result<Conv2d<T>> {
    Conv2d::load_strided(&weights.scope("downsamplers.0.conv"), channels, channels, 3, 2, padding)
}

/// The convolution after an upsampling.
pub(crate) fn load_upsampler<T>(weights: &Weights<'_, T>, channels: usize) -> weights::Result<Conv2d<T>> {
    Conv2d::load(&weights.scope("upsamplers.0.conv"), channels, channels, 3)
}
