//! The transformer blocks inside the UNet.

use super::layers::{Attention, AttentionShape, Conv2d, GroupNorm, KeyValue, LayerNorm, Linear};
use crate::engine::{Engine, Result};
use crate::weights::{self, Weights};

/// Added to the variances of the group norm; fixed in this architecture.
const GROUP_NORM_EPS: f64 = 1e-6;
/// Added to the variances of layer norms; fixed in this architecture.
const LAYER_NORM_EPS: f64 = 1e-5;

/// Sizes of a transformer.
pub(crate) struct TransformerShape {
    pub(crate) channels: usize,
    pub(crate) heads: usize,
    pub(crate) context_size: usize,
    pub(crate) groups: usize,
}

/// A transformer over the cells of a feature map, which also reads the conditioning.
pub(crate) struct SpatialTransformer<T> {
    norm: GroupNorm<T>,
    proj_in: Conv2d<T>,
    block: Block<T>,
    proj_out: Conv2d<T>,
}

impl<T> SpatialTransformer<T> {
    pub(crate) fn load(weights: &Weights<'_, T>, shape: &TransformerShape) -> weights::Result<Self> {
        let channels = shape.channels;
        Ok(Self {
            norm: GroupNorm::load(&weights.scope("norm"), shape.groups, channels, GROUP_NORM_EPS)?,
            proj_in: Conv2d::load(&weights.scope("proj_in"), channels, channels, 1)?,
            block: Block::load(&weights.scope("transformer_blocks.0"), shape)?,
            proj_out: Conv2d::load(&weights.scope("proj_out"), channels, channels, 1)?,
        })
    }

    /// Keys and values of the conditioning `[batch, m, context]`.
    pub(crate) fn prepare<E: Engine<Tensor = T>>(&self, e: &E, context: &T) -> Result<KeyValue<T>> {
        self.block.cross_attention.prepare(e, context, context)
    }

    /// `[batch, c, h, w]` → the same.
    pub(crate) fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: &T, context: &KeyValue<T>) -> Result<T> {
        let projected = self.proj_in.forward(e, &self.norm.forward(e, x)?)?;
        let tokens = self.block.forward(e, &e.flatten_spatial(&projected)?, context)?;
        e.add(x, &self.proj_out.forward(e, &e.unflatten_spatial(&tokens, x)?)?)
    }
}

struct Block<T> {
    norm1: LayerNorm<T>,
    self_attention: Attention<T>,
    norm2: LayerNorm<T>,
    cross_attention: Attention<T>,
    norm3: LayerNorm<T>,
    gated: Linear<T>,
    out: Linear<T>,
    inner_size: usize,
}

impl<T> Block<T> {
    fn load(weights: &Weights<'_, T>, shape: &TransformerShape) -> weights::Result<Self> {
        let size = shape.channels;
        let inner_size = 4 * size;
        let norm = |name: &str| LayerNorm::load(&weights.scope(name), size, LAYER_NORM_EPS);
        let attention = |name: &str, key_size| {
            let attention = AttentionShape {
                names: ["to_q", "to_k", "to_v", "to_out.0"],
                query_size: size,
                key_size,
                inner_size: size,
                heads: shape.heads,
                biased: false,
            };
            Attention::load(&weights.scope(name), &attention)
        };
        Ok(Self {
            norm1: norm("norm1")?,
            self_attention: attention("attn1", size)?,
            norm2: norm("norm2")?,
            cross_attention: attention("attn2", shape.context_size)?,
            norm3: norm("norm3")?,
            gated: Linear::load(&weights.scope("ff.net.0.proj"), size, 2 * inner_size)?,
            out: Linear::load(&weights.scope("ff.net.2"), inner_size, size)?,
            inner_size,
        })
    }

    /// `[batch, n, c]` → the same.
    fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: &T, context: &KeyValue<T>) -> Result<T> {
        let normed = self.norm1.forward(e, x)?;
        let x = e.add(x, &self.self_attention.to_itself(e, &normed, None)?)?;
        let normed = self.norm2.forward(e, &x)?;
        let x = e.add(&x, &self.cross_attention.attend(e, &normed, context, None)?)?;
        let gated = self.gated.forward(e, &self.norm3.forward(e, &x)?)?;
        e.add(&x, &self.out.forward(e, &e.geglu(&gated, self.inner_size)?)?)
    }
}
