//! The transformer that CLIP's two towers share.

use super::layers::{Attention, AttentionShape, LayerNorm, Linear};
use crate::engine::{Engine, Result};
use crate::model::Activation;
use crate::weights::{self, Weights};

/// Sizes of the transformer.
pub(crate) struct ClipShape {
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_layers: usize,
    pub(crate) num_heads: usize,
    pub(crate) layer_norm_eps: f64,
    pub(crate) activation: Activation,
}

/// Pre-norm layers without a final norm: `[batch, n, hidden]` → the same.
pub(crate) struct ClipLayers<T>(Vec<ClipLayer<T>>);

impl<T> ClipLayers<T> {
    /// Loads `layers.0`, `layers.1`, ….
    pub(crate) fn load(weights: &Weights<'_, T>, shape: &ClipShape) -> weights::Result<Self> {
        (0..shape.num_layers)
            .map(|index| ClipLayer::load(&weights.scope("layers").scope(index), shape))
            .collect::<weights::Result<_>>()
            .map(Self)
    }

    pub(crate) fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: T, mask: Option<&T>) -> Result<T> {
        self.0.iter().try_fold(x, |x, layer| layer.forward(e, &x, mask))
    }
}

struct ClipLayer<T> {
    norm1: LayerNorm<T>,
    attention: Attention<T>,
    norm2: LayerNorm<T>,
    fc1: Linear<T>,
    fc2: Linear<T>,
    activation: Activation,
}

impl<T> ClipLayer<T> {
    fn load(weights: &Weights<'_, T>, shape: &ClipShape) -> weights::Result<Self> {
        let (size, inner, eps) = (shape.hidden_size, shape.intermediate_size, shape.layer_norm_eps);
        let attention = AttentionShape {
            names: ["q_proj", "k_proj", "v_proj", "out_proj"],
            query_size: size,
            key_size: size,
            inner_size: size,
            heads: shape.num_heads,
            biased: true,
        };
        Ok(Self {
            norm1: LayerNorm::load(&weights.scope("layer_norm1"), size, eps)?,
            attention: Attention::load(&weights.scope("self_attn"), &attention)?,
            norm2: LayerNorm::load(&weights.scope("layer_norm2"), size, eps)?,
            fc1: Linear::load(&weights.scope("mlp.fc1"), size, inner)?,
            fc2: Linear::load(&weights.scope("mlp.fc2"), inner, size)?,
            activation: shape.activation,
        })
    }

    fn forward<E: Engine<Tensor = T>>(&self, e: &E, x: &T, mask: Option<&T>) -> Result<T> {
        let x = e.add(x, &self.attention.to_itself(e, &self.norm1.forward(e, x)?, mask)?)?;
        let hidden = self.fc1.forward(e, &self.norm2.forward(e, &x)?)?;
        e.add(&x, &self.fc2.forward(e, &self.activation.forward(e, &hidden)?)?)
    }
}
