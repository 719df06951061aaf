//! The Bidirectional Interaction Module (paper, section 3.3): text queries and image features read each other.

use std::f32::consts::TAU;

use ndarray::{Array3, ArrayD, Ix2};

use super::layers::{Attention, AttentionShape, Conv2d, LayerNorm, Linear};
use crate::engine::{Engine, Result};
use crate::model::BimConfig;
use crate::weights::{self, Weights, WeightsError};

/// The two-way transformer and its heads.
pub struct Bim<T> {
    modulate_head: Linear<T>,
    position_encoding: T,
    blocks: Vec<Block<T>>,
    final_attention: Attention<T>,
    final_norm: LayerNorm<T>,
    image_head: Conv2d<T>,
    text_head: Linear<T>,
    grid_size: usize,
}

/// What the module makes of text queries and image features.
pub struct BimOutput<T> {
    /// Queries after the final norm, `[batch, 77, e]`.
    pub queries: T,
    /// Image features after the last block, `[batch, g·g, e]`.
    pub keys: T,
    /// What half of is added to the QFormer's output, `[batch, 77, q]`.
    pub text_feature: T,
    /// What is added after the UNet's first convolution once it has the latents' size, `[batch, c0, g, g]`.
    ///
    /// The reference resizes before it projects to `c0` channels. Bilinear weights sum to 1, so the order does
    /// not matter, and this way the result does not depend on the latents' size.
    pub image_feature: T,
}

impl<T: Clone> Bim<T> {
    /// Loads the module; `text_size` is the width of the QFormer's output.
    pub fn load(weights: &Weights<'_, T>, config: &BimConfig, text_size: usize) -> weights::Result<Self> {
        let (size, eps) = (config.vision_size, config.layer_norm_eps);
        if config.downsample_rate == 0 {
            return Err(WeightsError::Config("downsample_rate is 0".to_owned()));
        }
        let transformer = weights.scope("modulate_transformer");
        let blocks = (0..config.depth)
            .map(|index| Block::load(&transformer.scope("layers").scope(index), config, index > 0))
            .collect::<weights::Result<_>>()?;
        let gaussian = weights.host("pe_layer.positional_encoding_gaussian_matrix", &[2, size / 2])?;
        let encoding = position_encoding(&gaussian, config.grid_size)?;
        Ok(Self {
            modulate_head: Linear::load(&weights.scope("modulate_head"), text_size, size)?,
            position_encoding: weights.constant("position_encoding", encoding)?,
            blocks,
            final_attention: attention(
                &transformer.scope("final_attn_token_to_image"),
                config,
                config.downsample_rate,
            )?,
            final_norm: LayerNorm::load(&transformer.scope("norm_final_attn"), size, eps)?,
            image_head: Conv2d::load(
                &weights.scope("dimension_reduction_head_zeroconv"),
                size,
                config.feature_channels,
                1,
            )?,
            text_head: Linear::load(&weights.scope("dimension_reduction_head_qformer_out"), size, text_size)?,
            grid_size: config.grid_size,
        })
    }

    /// The QFormer's output `[batch, 77, q]` and image features `[batch, g·g, e]`.
    pub fn forward<E: Engine<Tensor = T>>(&self, e: &E, text: &T, image: &T) -> Result<BimOutput<T>> {
        let encoding =
            Encoding { queries: self.modulate_head.forward(e, text)?, keys: self.position_encoding.clone() };
        let mut queries = encoding.queries.clone();
        let mut keys = image.clone();
        for block in &self.blocks {
            (queries, keys) = block.forward(e, &queries, &keys, &encoding)?;
        }
        let attended = self.final_attention.forward(
            e,
            &e.add(&queries, &encoding.queries)?,
            &e.add(&keys, &encoding.keys)?,
            &keys,
            None,
        )?;
        let queries = self.final_norm.forward(e, &e.add(&queries, &attended)?)?;
        let grid = e.unflatten_square(&keys, self.grid_size)?;
        Ok(BimOutput {
            text_feature: self.text_head.forward(e, &queries)?,
            image_feature: self.image_head.forward(e, &grid)?,
            queries,
            keys,
        })
    }
}

/// Random Fourier features of the cells' centres: `[1, g·g, e]`, rows from the top, then columns from the left.
pub fn position_encoding(gaussian: &ArrayD<f32>, grid_size: usize) -> weights::Result<Array3<f32>> {
    let gaussian = gaussian
        .view()
        .into_dimensionality::<Ix2>()
        .map_err(|e| WeightsError::Config(format!("positional_encoding_gaussian_matrix: {e}")))?;
    let half = gaussian.ncols();
    let centre = |index: usize| 2.0 * ((index as f32 + 0.5) / grid_size as f32) - 1.0;
    Ok(Array3::from_shape_fn((1, grid_size * grid_size, 2 * half), |(_, cell, channel)| {
        let (x, y) = (centre(cell % grid_size), centre(cell / grid_size));
        let column = channel % half;
        let angle = TAU * (x * gaussian[[0, column]] + y * gaussian[[1, column]]);
        if channel < half { angle.sin() } else { angle.cos() }
    }))
}

/// What is added to queries and keys, not to values, wherever they meet in attention.
struct Encoding<T> {
    queries: T,
    keys: T,
}

fn attention<T>(
    weights: &Weights<'_, T>,
    config: &BimConfig,
    downsample_rate: usize,
) -> weights::Result<Attention<T>> {
    let shape = AttentionShape {
        names: ["q_proj", "k_proj", "v_proj", "out_proj"],
        query_size: config.vision_size,
        key_size: config.vision_size,
        inner_size: config.vision_size / downsample_rate,
        heads: config.num_heads,
        biased: true,
    };
    Attention::load(weights, &shape)
}

struct Block<T> {
    self_attention: Attention<T>,
    norm1: LayerNorm<T>,
    text_to_image: Attention<T>,
    norm2: LayerNorm<T>,
    lin1: Linear<T>,
    lin2: Linear<T>,
    norm3: LayerNorm<T>,
    image_to_text: Attention<T>,
    norm4: LayerNorm<T>,
    /// The first block neither encodes positions in its self-attention nor keeps a residual around it.
    residual: bool,
}

impl<T> Block<T> {
    fn load(weights: &Weights<'_, T>, config: &BimConfig, residual: bool) -> weights::Result<Self> {
        let (size, rate) = (config.vision_size, config.downsample_rate);
        let norm = |name: &str| LayerNorm::load(&weights.scope(name), size, config.layer_norm_eps);
        Ok(Self {
            self_attention: attention(&weights.scope("self_attn"), config, 1)?,
            norm1: norm("norm1")?,
            text_to_image: attention(&weights.scope("cross_attn_token_to_image"), config, rate)?,
            norm2: norm("norm2")?,
            lin1: Linear::load(&weights.scope("mlp.lin1"), size, config.mlp_size)?,
            lin2: Linear::load(&weights.scope("mlp.lin2"), config.mlp_size, size)?,
            norm3: norm("norm3")?,
            image_to_text: attention(&weights.scope("cross_attn_image_to_token"), config, rate)?,
            norm4: norm("norm4")?,
            residual,
        })
    }

    fn forward<E: Engine<Tensor = T>>(
        &self,
        e: &E,
        queries: &T,
        keys: &T,
        encoding: &Encoding<T>,
    ) -> Result<(T, T)> {
        let x = if self.residual {
            let encoded = e.add(queries, &encoding.queries)?;
            let attended = self.self_attention.forward(e, &encoded, &encoded, queries, None)?;
            e.add(queries, &attended)?
        } else {
            self.self_attention.to_itself(e, queries, None)?
        };
        let x = self.norm1.forward(e, &x)?;

        let encoded_keys = e.add(keys, &encoding.keys)?;
        let encoded = e.add(&x, &encoding.queries)?;
        let attended = self.text_to_image.forward(e, &encoded, &encoded_keys, keys, None)?;
        let x = self.norm2.forward(e, &e.add(&x, &attended)?)?;

        let hidden = e.relu(&self.lin1.forward(e, &x)?)?;
        let x = self.norm3.forward(e, &e.add(&x, &self.lin2.forward(e, &hidden)?)?)?;

        let encoded = e.add(&x, &encoding.queries)?;
        let attended = self.image_to_text.forward(e, &encoded_keys, &encoded, &x, None)?;
        let keys = self.norm4.forward(e, &e.add(keys, &attended)?)?;
        Ok((x, keys))
    }
}
