//! The variational autoencoder of Stable Diffusion 1.x, in its two halves.

use super::layers::{Attention, AttentionShape, Conv2d, GroupNorm};
use super::resnet::{Resnet, ResnetShape, load_downsampler, load_upsampler};
use crate::engine::{Engine, Padding, Result};
use crate::model::VaeConfig;
use crate::weights::{self, Weights, WeightsError};

/// Added to variances; fixed in this architecture.
const EPS: f64 = 1e-6;

/// Picture → latents.
pub struct VaeEncoder<T> {
    conv_in: Conv2d<T>,
    blocks: Vec<DownBlock<T>>,
    middle: MiddleBlock<T>,
    norm_out: Option<GroupNorm<T>>,
    conv_out: Conv2d<T>,
    quant_conv: Conv2d<T>,
    latent_channels: usize,
}

/// Latents → picture.
pub struct VaeDecoder<T> {
    post_quant_conv: Conv2d<T>,
    conv_in: Conv2d<T>,
    middle: MiddleBlock<T>,
    blocks: Vec<UpBlock<T>>,
    norm_out: Option<GroupNorm<T>>,
    conv_out: Conv2d<T>,
    patch_size: usize,
}

impl<T> VaeEncoder<T> {
    /// Loads `encoder.*` and `quant_conv.*`.
    pub fn load(weights: &Weights<'_, T>, config: &VaeConfig) -> weights::Result<Self> {
        let scope = weights.scope("encoder");
        let (first, last) = ends(&config.block_channels)?;
        let moments = 2 * config.latent_channels;
        let mut inputs = first;
        let mut blocks = Vec::new();
        for (index, &outputs) in config.block_channels.iter().enumerate() {
            let is_last = index + 1 == config.block_channels.len();
            let scope = scope.scope("down_blocks").scope(index);
            blocks.push(DownBlock::load(&scope, config, inputs, outputs, is_last)?);
            inputs = outputs;
        }
        Ok(Self {
            conv_in: Conv2d::load_strided(
                &scope.scope("conv_in"),
                config.image_channels,
                first,
                3 * config.patch_size,
                config.patch_size,
                Padding::all(config.patch_size),
            )?,
            blocks,
            middle: MiddleBlock::load(&scope.scope("mid_block"), config, last)?,
            norm_out: norm_out(&scope, config, last)?,
            conv_out: Conv2d::load(&scope.scope("conv_out"), last, moments, 3)?,
            quant_conv: Conv2d::load(&weights.scope("quant_conv"), moments, moments, 1)?,
            latent_channels: config.latent_channels,
        })
    }

    /// Pixels in −1…1 `[batch, 3, h, w]` → the mean of the latents' distribution `[batch, 4, h/8, w/8]`,
    /// unscaled.
    pub fn forward<E: Engine<Tensor = T>>(&self, e: &E, pixels: &T) -> Result<T> {
        e.narrow(&self.moments(e, pixels)?, 1, 0, self.latent_channels)
    }

    /// Pixels in −1…1 `[batch, 3, h, w]` → mean, then logarithm of the variance of the latents' distribution,
    /// `[batch, 8, h/8, w/8]`. Training draws from it, an edit takes the mean.
    pub fn moments<E: Engine<Tensor = T>>(&self, e: &E, pixels: &T) -> Result<T> {
        let x = self.conv_in.forward(e, pixels)?;
        let x = self.blocks.iter().try_fold(x, |x, block| block.forward(e, x))?;
        let x = activated(e, self.norm_out.as_ref(), self.middle.forward(e, x)?)?;
        self.quant_conv.forward(e, &self.conv_out.forward(e, &x)?)
    }
}

impl<T> VaeDecoder<T> {
    /// Loads `decoder.*` and `post_quant_conv.*`.
    pub fn load(weights: &Weights<'_, T>, config: &VaeConfig) -> weights::Result<Self> {
        let scope = weights.scope("decoder");
        let (first, last) = ends(&config.block_channels)?;
        let latent = config.latent_channels;
        let mut inputs = last;
        let mut blocks = Vec::new();
        for (index, &outputs) in config.block_channels.iter().rev().enumerate() {
            let is_last = index + 1 == config.block_channels.len();
            let scope = scope.scope("up_blocks").scope(index);
            blocks.push(UpBlock::load(&scope, config, inputs, outputs, is_last)?);
            inputs = outputs;
        }
        Ok(Self {
            post_quant_conv: Conv2d::load(&weights.scope("post_quant_conv"), latent, latent, 1)?,
            conv_in: Conv2d::load(&scope.scope("conv_in"), latent, last, 3)?,
            middle: MiddleBlock::load(&scope.scope("mid_block"), config, last)?,
            blocks,
            norm_out: norm_out(&scope, config, first)?,
            conv_out: Conv2d::load(
                &scope.scope("conv_out"),
                first,
                config.image_channels * config.patch_size.pow(2),
                3,
            )?,
            patch_size: config.patch_size,
        })
    }

    /// Unscaled latents `[batch, 4, h, w]` → pixels of about −1…1 `[batch, 3, 8h, 8w]`.
    pub fn forward<E: Engine<Tensor = T>>(&self, e: &E, latents: &T) -> Result<T> {
        let x = self.conv_in.forward(e, &self.post_quant_conv.forward(e, latents)?)?;
        let x = self.middle.forward(e, x)?;
        let x = self.blocks.iter().try_fold(x, |x, block| block.forward(e, x))?;
        let x = self.conv_out.forward(e, &activated(e, self.norm_out.as_ref(), x)?)?;
        if self.patch_size == 1 { Ok(x) } else { e.pixel_shuffle(&x, self.patch_size) }
    }
}

/// The norm before the last convolution, where the configuration asks for one.
fn norm_out<T>(
    weights: &Weights<'_, T>,
    config: &VaeConfig,
    channels: usize,
) -> weights::Result<Option<GroupNorm<T>>> {
    let load = || GroupNorm::load(&weights.scope("conv_norm_out"), config.norm_groups, channels, EPS);
    config.norm_out.then(load).transpose()
}

/// What the last convolution reads.
fn activated<E: Engine>(e: &E, norm: Option<&GroupNorm<E::Tensor>>, x: E::Tensor) -> Result<E::Tensor> {
    match norm {
        Some(norm) => e.silu(&norm.forward(e, &x)?),
        None => Ok(x),
    }
}

fn ends(channels: &[usize]) -> weights::Result<(usize, usize)> {
    match (channels.first(), channels.last()) {
        (Some(&first), Some(&last)) => Ok((first, last)),
        _ => Err(WeightsError::Config("block_channels is empty".to_owned())),
    }
}

fn load_resnets<T>(
    weights: &Weights<'_, T>,
    config: &VaeConfig,
    mut inputs: usize,
    outputs: usize,
    count: usize,
) -> weights::Result<Vec<Resnet<T>>> {
    (0..count)
        .map(|index| {
            let shape =
                ResnetShape { inputs, outputs, groups: config.norm_groups, eps: EPS, time_size: None };
            inputs = outputs;
            Resnet::load(&weights.scope("resnets").scope(index), &shape)
        })
        .collect()
}

struct DownBlock<T> {
    resnets: Vec<Resnet<T>>,
    downsampler: Option<Conv2d<T>>,
}

impl<T> DownBlock<T> {
    fn load(
        weights: &Weights<'_, T>,
        config: &VaeConfig,
        inputs: usize,
        outputs: usize,
        is_last: bool,
    ) -> weights::Result<Self> {
        let padding = Padding { top: 0, left: 0, bottom: 1, right: 1 };
        Ok(Self {
            resnets: load_resnets(weights, config, inputs, outputs, config.layers_per_block)?,
            downsampler: if is_last { None } else { Some(load_downsampler(weights, outputs, padding)?) },
        })
    }

    fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: T) -> Result<T> {
        let x = self.resnets.iter().try_fold(x, |x, resnet| resnet.forward(e, &x, None))?;
        match &self.downsampler {
            Some(conv) => conv.forward(e, &x),
            None => Ok(x),
        }
    }
}

struct UpBlock<T> {
    resnets: Vec<Resnet<T>>,
    upsampler: Option<Conv2d<T>>,
}

impl<T> UpBlock<T> {
    fn load(
        weights: &Weights<'_, T>,
        config: &VaeConfig,
        inputs: usize,
        outputs: usize,
        is_last: bool,
    ) -> weights::Result<Self> {
        Ok(Self {
            resnets: load_resnets(weights, config, inputs, outputs, config.layers_per_block + 1)?,
            upsampler: if is_last { None } else { Some(load_upsampler(weights, outputs)?) },
        })
    }

    fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: T) -> Result<T> {
        let x = self.resnets.iter().try_fold(x, |x, resnet| resnet.forward(e, &x, None))?;
        match &self.upsampler {
            Some(conv) => conv.forward(e, &e.upsample_nearest_2x(&x)?),
            None => Ok(x),
        }
    }
}

struct MiddleBlock<T> {
    resnet1: Resnet<T>,
    norm: GroupNorm<T>,
    attention: Attention<T>,
    resnet2: Resnet<T>,
}

impl<T> MiddleBlock<T> {
    fn load(weights: &Weights<'_, T>, config: &VaeConfig, channels: usize) -> weights::Result<Self> {
        let groups = config.norm_groups;
        let shape = ResnetShape { inputs: channels, outputs: channels, groups, eps: EPS, time_size: None };
        let attention = weights.scope("attentions.0");
        let attention_shape = AttentionShape {
            names: ["to_q", "to_k", "to_v", "to_out.0"],
            query_size: channels,
            key_size: channels,
            inner_size: channels,
            heads: 1,
            biased: true,
        };
        Ok(Self {
            resnet1: Resnet::load(&weights.scope("resnets.0"), &shape)?,
            norm: GroupNorm::load(&attention.scope("group_norm"), groups, channels, EPS)?,
            attention: Attention::load(&attention, &attention_shape)?,
            resnet2: Resnet::load(&weights.scope("resnets.1"), &shape)?,
        })
    }

    fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: T) -> Result<T> {
        let x = self.resnet1.forward(e, &x, None)?;
        let tokens = e.flatten_spatial(&self.norm.forward(e, &x)?)?;
        let attended = self.attention.to_itself(e, &tokens, None)?;
        let x = e.add(&x, &e.unflatten_spatial(&attended, &x)?)?;
        self.resnet2.forward(e, &x, None)
    }
}
