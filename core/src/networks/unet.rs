//! The UNet of Stable Diffusion 1.x, with image latents beside the noisy ones and an optional image feature
//! after the first convolution.

use ndarray::Array2;

use super::layers::{Conv2d, GroupNorm, KeyValue, Linear};
use super::resnet::{Resnet, ResnetShape, load_downsampler, load_upsampler};
use super::transformer::{SpatialTransformer, TransformerShape};
use crate::engine::{Engine, EngineError, Padding, Result};
use crate::model::UnetConfig;
use crate::tensor::HostTensor;
use crate::weights::{self, Weights, WeightsError};

/// Noisy latents, timestep and conditioning → predicted noise.
pub struct Unet<T> {
    conv_in: Conv2d<T>,
    time: TimeEmbedding<T>,
    down_blocks: Vec<DownBlock<T>>,
    middle: MiddleBlock<T>,
    up_blocks: Vec<UpBlock<T>>,
    norm_out: GroupNorm<T>,
    conv_out: Conv2d<T>,
}

/// What a denoising loop needs of its conditioning in every step: keys and values of each transformer, in the
/// order in which the network meets them.
pub struct PreparedContext<T>(pub(crate) Vec<KeyValue<T>>);

impl<T> PreparedContext<T> {
    fn of(&self, place: usize) -> Result<&KeyValue<T>> {
        let missing = || EngineError::new("cross-attention", format!("transformer {place} has no context"));
        self.0.get(place).ok_or_else(missing)
    }
}

impl UnetConfig {
    /// Number and width of the heads of each transformer, in the order of [`PreparedContext`].
    pub(crate) fn transformers(&self) -> impl Iterator<Item = (usize, usize)> {
        let levels = self.block_channels.len();
        let of = |level: usize, count: usize| {
            let attends = self.block_attention.get(level).is_some_and(|attends| *attends);
            std::iter::repeat_n(level, if attends { count } else { 0 })
        };
        let down = (0..levels).flat_map(move |level| of(level, self.layers_per_block));
        let up = (0..levels).rev().flat_map(move |level| of(level, self.layers_per_block + 1));
        down.chain(levels.checked_sub(1)).chain(up).map(|level| {
            let heads = self.num_heads.get(level).copied().unwrap_or(0);
            (heads, self.block_channels[level].checked_div(heads).unwrap_or(0))
        })
    }
}

impl<T: Clone> Unet<T> {
    /// Loads the network.
    pub fn load(weights: &Weights<'_, T>, config: &UnetConfig) -> weights::Result<Self> {
        let channels = &config.block_channels;
        let levels = channels.len();
        let (Some(&first), Some(&last)) = (channels.first(), channels.last()) else {
            return Err(WeightsError::Config("block_channels is empty".to_owned()));
        };
        if config.block_attention.len() != levels || config.num_heads.len() != levels {
            return Err(WeightsError::Config(
                "block_channels, block_attention and num_heads differ in length".to_owned(),
            ));
        }
        let loader = BlockLoader { config, time_size: 4 * first };

        let mut transformers = 0;
        let mut down_blocks = Vec::new();
        let mut inputs = first;
        for (level, &outputs) in channels.iter().enumerate() {
            let scope = weights.scope("down_blocks").scope(level);
            down_blocks.push(loader.down(&scope, level, inputs, &mut transformers)?);
            inputs = outputs;
        }
        let middle = loader.middle(&weights.scope("mid_block"), last, &mut transformers)?;
        let mut up_blocks = Vec::new();
        let mut inputs = last;
        for (index, level) in (0..levels).rev().enumerate() {
            let scope = weights.scope("up_blocks").scope(index);
            up_blocks.push(loader.up(&scope, level, inputs, &mut transformers)?);
            inputs = channels[level];
        }
        Ok(Self {
            conv_in: Conv2d::load(&weights.scope("conv_in"), config.in_channels, first, 3)?,
            time: TimeEmbedding::load(&weights.scope("time_embedding"), config, first)?,
            down_blocks,
            middle,
            up_blocks,
            norm_out: GroupNorm::load(
                &weights.scope("conv_norm_out"),
                config.norm_groups,
                first,
                config.norm_eps,
            )?,
            conv_out: Conv2d::load(&weights.scope("conv_out"), first, config.out_channels, 3)?,
        })
    }

    /// What every step needs of the conditioning `[batch, n, c]`: computed once per edit.
    pub fn prepare<E: Engine<Tensor = T>>(&self, e: &E, context: &T) -> Result<PreparedContext<T>> {
        let down = self.down_blocks.iter().flat_map(|block| &block.transformers);
        let up = self.up_blocks.iter().flat_map(|block| &block.transformers);
        down.chain([&self.middle.transformer])
            .chain(up)
            .map(|transformer| transformer.layer.prepare(e, context))
            .collect::<Result<_>>()
            .map(PreparedContext)
    }

    /// Noisy latents beside image latents `[batch, 8, h, w]`, timesteps `[batch]` as `f32`, and the image feature
    /// `[1 or batch, c0, h, w]` → predicted noise `[batch, 4, h, w]`.
    pub fn forward<E: Engine<Tensor = T>>(
        &self,
        e: &E,
        sample: &T,
        timesteps: &T,
        context: &PreparedContext<T>,
        image_feature: Option<&T>,
    ) -> Result<T> {
        let time = self.time.forward(e, timesteps)?;
        let mut x = self.conv_in.forward(e, sample)?;
        if let Some(feature) = image_feature {
            x = e.add(&x, feature)?;
        }
        let mut skips = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(e, x, &time, context, &mut skips)?;
        }
        x = self.middle.forward(e, x, &time, context)?;
        for block in &self.up_blocks {
            x = block.forward(e, x, &time, context, &mut skips)?;
        }
        self.conv_out.forward(e, &e.silu(&self.norm_out.forward(e, &x)?)?)
    }
}

/// Sinusoids of the timestep through two linear layers, activated for the residual blocks.
struct TimeEmbedding<T> {
    linear1: Linear<T>,
    linear2: Linear<T>,
    frequencies: HostTensor,
    cos_first: bool,
}

impl<T> TimeEmbedding<T> {
    fn load(weights: &Weights<'_, T>, config: &UnetConfig, size: usize) -> weights::Result<Self> {
        let half = size / 2;
        let step = -(10_000f32.ln()) / (half as f32 - config.freq_shift as f32);
        Ok(Self {
            linear1: Linear::load(&weights.scope("linear_1"), size, 4 * size)?,
            linear2: Linear::load(&weights.scope("linear_2"), 4 * size, 4 * size)?,
            frequencies: Array2::from_shape_fn((1, half), |(_, i)| (step * i as f32).exp()).into(),
            cos_first: config.flip_sin_to_cos,
        })
    }

    /// Timesteps `[batch]` → `[batch, 4 · c0]`. The angles need more digits than bf16 has, so they stay `f32`.
    fn forward<E: Engine<Tensor = T>>(&self, e: &E, timesteps: &T) -> Result<T> {
        let angles = e.mul(&e.unsqueeze(timesteps, 1)?, &e.upload(&self.frequencies)?)?;
        let (sin, cos) = (e.sin(&angles)?, e.cos(&angles)?);
        let parts = if self.cos_first { [&cos, &sin] } else { [&sin, &cos] };
        let x = self.linear1.forward(e, &e.cast(&e.concat(&parts, 1)?)?)?;
        e.silu(&self.linear2.forward(e, &e.silu(&x)?)?)
    }
}

/// A transformer and its place in [`PreparedContext`].
struct PlacedTransformer<T> {
    layer: SpatialTransformer<T>,
    place: usize,
}

impl<T> PlacedTransformer<T> {
    fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: &T, context: &PreparedContext<T>) -> Result<T> {
        self.layer.forward(e, x, context.of(self.place)?)
    }
}

struct BlockLoader<'a> {
    config: &'a UnetConfig,
    time_size: usize,
}

impl BlockLoader<'_> {
    fn resnet<T>(
        &self,
        weights: &Weights<'_, T>,
        index: usize,
        inputs: usize,
        outputs: usize,
    ) -> weights::Result<Resnet<T>> {
        let shape = ResnetShape {
            inputs,
            outputs,
            groups: self.config.norm_groups,
            eps: self.config.norm_eps,
            time_size: Some(self.time_size),
        };
        Resnet::load(&weights.scope("resnets").scope(index), &shape)
    }

    fn transformer<T>(
        &self,
        weights: &Weights<'_, T>,
        index: usize,
        level: usize,
        transformers: &mut usize,
    ) -> weights::Result<PlacedTransformer<T>> {
        let shape = TransformerShape {
            channels: self.config.block_channels[level],
            heads: self.config.num_heads[level],
            context_size: self.config.cross_attention_dim,
            groups: self.config.norm_groups,
        };
        let layer = SpatialTransformer::load(&weights.scope("attentions").scope(index), &shape)?;
        let place = *transformers;
        *transformers += 1;
        Ok(PlacedTransformer { layer, place })
    }

    fn down<T>(
        &self,
        weights: &Weights<'_, T>,
        level: usize,
        mut inputs: usize,
        transformers: &mut usize,
    ) -> weights::Result<DownBlock<T>> {
        let outputs = self.config.block_channels[level];
        let mut block = DownBlock { resnets: Vec::new(), transformers: Vec::new(), downsampler: None };
        for index in 0..self.config.layers_per_block {
            block.resnets.push(self.resnet(weights, index, inputs, outputs)?);
            inputs = outputs;
            if self.config.block_attention[level] {
                block.transformers.push(self.transformer(weights, index, level, transformers)?);
            }
        }
        if level + 1 < self.config.block_channels.len() {
            block.downsampler = Some(load_downsampler(weights, outputs, Padding::all(1))?);
        }
        Ok(block)
    }

    fn middle<T>(
        &self,
        weights: &Weights<'_, T>,
        channels: usize,
        transformers: &mut usize,
    ) -> weights::Result<MiddleBlock<T>> {
        let level = self.config.block_channels.len() - 1;
        Ok(MiddleBlock {
            resnet1: self.resnet(weights, 0, channels, channels)?,
            transformer: self.transformer(weights, 0, level, transformers)?,
            resnet2: self.resnet(weights, 1, channels, channels)?,
        })
    }

    fn up<T>(
        &self,
        weights: &Weights<'_, T>,
        level: usize,
        mut inputs: usize,
        transformers: &mut usize,
    ) -> weights::Result<UpBlock<T>> {
        let channels = &self.config.block_channels;
        let (outputs, below) = (channels[level], channels[level.saturating_sub(1)]);
        let mut block = UpBlock { resnets: Vec::new(), transformers: Vec::new(), upsampler: None };
        for index in 0..=self.config.layers_per_block {
            let skip = if index == self.config.layers_per_block { below } else { outputs };
            block.resnets.push(self.resnet(weights, index, inputs + skip, outputs)?);
            inputs = outputs;
            if self.config.block_attention[level] {
                block.transformers.push(self.transformer(weights, index, level, transformers)?);
            }
        }
        if level > 0 {
            block.upsampler = Some(load_upsampler(weights, outputs)?);
        }
        Ok(block)
    }
}

struct DownBlock<T> {
    resnets: Vec<Resnet<T>>,
    transformers: Vec<PlacedTransformer<T>>,
    downsampler: Option<Conv2d<T>>,
}

impl<T: Clone> DownBlock<T> {
    fn forward<E: Engine<Tensor = T>>(
        &self,
        e: &E,
        mut x: T,
        time: &T,
        context: &PreparedContext<T>,
        skips: &mut Vec<T>,
    ) -> Result<T> {
        for (index, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(e, &x, Some(time))?;
            if let Some(transformer) = self.transformers.get(index) {
                x = transformer.forward(e, &x, context)?;
            }
            skips.push(x.clone());
        }
        if let Some(downsampler) = &self.downsampler {
            x = downsampler.forward(e, &x)?;
            skips.push(x.clone());
        }
        Ok(x)
    }
}

struct MiddleBlock<T> {
    resnet1: Resnet<T>,
    transformer: PlacedTransformer<T>,
    resnet2: Resnet<T>,
}

impl<T> MiddleBlock<T> {
    fn forward<E: Engine<Tensor = T>>(
        &self,
        e: &E,
        x: T,
        time: &T,
        context: &PreparedContext<T>,
    ) -> Result<T> {
        let x = self.resnet1.forward(e, &x, Some(time))?;
        let x = self.transformer.forward(e, &x, context)?;
        self.resnet2.forward(e, &x, Some(time))
    }
}

struct UpBlock<T> {
    resnets: Vec<Resnet<T>>,
    transformers: Vec<PlacedTransformer<T>>,
    upsampler: Option<Conv2d<T>>,
}

impl<T> UpBlock<T> {
    fn forward<E: Engine<Tensor = T>>(
        &self,
        e: &E,
        mut x: T,
        time: &T,
        context: &PreparedContext<T>,
        skips: &mut Vec<T>,
    ) -> Result<T> {
        for (index, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("every residual block on the way up has a skip from the way down");
            x = resnet.forward(e, &e.concat(&[&x, &skip], 1)?, Some(time))?;
            if let Some(transformer) = self.transformers.get(index) {
                x = transformer.forward(e, &x, context)?;
            }
        }
        match (&self.upsampler, skips.last()) {
            (Some(conv), Some(skip)) => conv.forward(e, &e.upsample_nearest_like(&x, skip)?),
            _ => Ok(x),
        }
    }
}
