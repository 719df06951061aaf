//! CLIP text encoder.

use ndarray::Array2;

use super::clip::{ClipLayers, ClipShape};
use super::layers::LayerNorm;
use crate::engine::{Engine, Result};
use crate::model::TextConfig;
use crate::weights::{self, Weights};

/// Token ids → one state per token.
pub struct TextEncoder<T> {
    token_embedding: T,
    position_embedding: T,
    layers: ClipLayers<T>,
    norm: LayerNorm<T>,
    causal_mask: T,
}

impl<T> TextEncoder<T> {
    /// Loads the encoder.
    pub fn load(weights: &Weights<'_, T>, config: &TextConfig) -> weights::Result<Self> {
        let (size, positions) = (config.hidden_size, config.max_positions);
        let embeddings = weights.scope("embeddings");
        let shape = ClipShape {
            hidden_size: size,
            intermediate_size: config.intermediate_size,
            num_layers: config.num_layers,
            num_heads: config.num_heads,
            layer_norm_eps: config.layer_norm_eps,
            activation: config.activation,
        };
        Ok(Self {
            token_embedding: embeddings.tensor("token_embedding.weight", &[config.vocab_size, size])?,
            position_embedding: embeddings.tensor("position_embedding.weight", &[positions, size])?,
            layers: ClipLayers::load(&weights.scope("encoder"), &shape)?,
            norm: LayerNorm::load(&weights.scope("final_layer_norm"), size, config.layer_norm_eps)?,
            causal_mask: weights.constant("causal_mask", causal_mask(0, positions))?,
        })
    }

    /// Token ids `[batch, max_positions]` → states after the final norm `[batch, max_positions, c]`.
    pub fn forward<E: Engine<Tensor = T>>(&self, e: &E, ids: &T) -> Result<T> {
        let x = e.add(&e.embedding(&self.token_embedding, ids)?, &self.position_embedding)?;
        let x = self.layers.forward(e, x, Some(&self.causal_mask))?;
        self.norm.forward(e, &x)
    }
}

/// What is added to attention scores so that each of `length` positions sees the `past` ones before them all,
/// those before itself and itself: `[length, past + length]`.
pub fn causal_mask(past: usize, length: usize) -> Array2<f32> {
    Array2::from_shape_fn(
        (length, past + length),
        |(row, column)| {
            if column <= past + row { 0.0 } else { f32::NEG_INFINITY }
        },
    )
}
