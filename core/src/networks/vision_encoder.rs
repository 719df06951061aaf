//! CLIP vision tower, up to the layer whose output SmartEdit uses.

use super::clip::{ClipLayers, ClipShape};
use super::layers::{Conv2d, LayerNorm};
use crate::engine::{Engine, Result};
use crate::model::VisionConfig;
use crate::weights::{self, Weights};

/// Picture → one feature per patch.
pub struct VisionEncoder<T> {
    class_embedding: T,
    patch_embedding: Conv2d<T>,
    position_embedding: T,
    norm: LayerNorm<T>,
    layers: ClipLayers<T>,
    num_patches: usize,
}

impl<T> VisionEncoder<T> {
    /// Loads the tower.
    pub fn load(weights: &Weights<'_, T>, config: &VisionConfig) -> weights::Result<Self> {
        let size = config.hidden_size;
        if config.patch_size == 0 || !config.image_size.is_multiple_of(config.patch_size) {
            return Err(weights::WeightsError::Config(format!(
                "image_size {} is not a multiple of patch_size {}",
                config.image_size, config.patch_size
            )));
        }
        let num_patches = (config.image_size / config.patch_size).pow(2);
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
            class_embedding: embeddings.tensor("class_embedding", &[size])?,
            patch_embedding: Conv2d::load_patches(
                &embeddings.scope("patch_embedding"),
                3,
                size,
                config.patch_size,
            )?,
            position_embedding: embeddings.tensor("position_embedding.weight", &[num_patches + 1, size])?,
            norm: LayerNorm::load(&weights.scope("pre_layrnorm"), size, config.layer_norm_eps)?,
            layers: ClipLayers::load(&weights.scope("encoder"), &shape)?,
            num_patches,
        })
    }

    /// Normalised pixels `[batch, 3, s, s]` → features of the patches `[batch, p, e]`.
    pub fn forward<E: Engine<Tensor = T>>(&self, e: &E, pixels: &T) -> Result<T> {
        e.narrow(&self.states(e, pixels)?, 1, 1, self.num_patches)
    }

    /// Normalised pixels `[batch, 3, s, s]` → states of the class token and of the patches `[batch, 1 + p, e]`.
    pub fn states<E: Engine<Tensor = T>>(&self, e: &E, pixels: &T) -> Result<T> {
        let patches = e.flatten_spatial(&self.patch_embedding.forward(e, pixels)?)?;
        let class = e.unsqueeze(&e.unsqueeze(&self.class_embedding, 0)?, 0)?;
        let class = e.broadcast_batch_like(&class, &patches)?;
        let x = e.add(&e.concat(&[&class, &patches], 1)?, &self.position_embedding)?;
        self.layers.forward(e, self.norm.forward(e, &x)?, None)
    }
}
