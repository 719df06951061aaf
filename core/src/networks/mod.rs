//! The networks, each in a file named after it, generic over the engine.
//!
//! Field and parameter names are those of the official checkpoints, so that a reader can follow a tensor from
//! the file to its use.

mod bim;
mod clip;
mod connector;
mod language_model;
mod layers;
mod qformer;
mod resnet;
mod text_encoder;
mod transformer;
mod unet;
mod vae;
mod vision_encoder;

pub use bim::{Bim, BimOutput, position_encoding};
pub use connector::{Conditioning, Connector, Interaction, SimpleCa};
pub use language_model::{LanguageModel, Positions};
pub use layers::KeyValue;
pub use qformer::QFormer;
pub use text_encoder::TextEncoder;
pub(crate) use text_encoder::causal_mask;
pub use unet::{PreparedContext, Unet};
pub use vae::{VaeDecoder, VaeEncoder};
pub use vision_encoder::VisionEncoder;

use crate::engine::Precision;
use crate::model::NetworkConfig;
use crate::weights::{Manifest, Result, WeightFile};

/// Names and shapes of the parameters that a network asks for.
pub fn manifest(config: &NetworkConfig) -> Result<Vec<(String, Vec<usize>)>> {
    match config {
        NetworkConfig::VisionEncoder(config) => Manifest::of(|w| VisionEncoder::load(w, config)),
        NetworkConfig::LanguageModel(config) => Manifest::of(|w| LanguageModel::load(w, config)),
        NetworkConfig::Connector(config) => Manifest::of(|w| Connector::load(w, config)),
        NetworkConfig::TextEncoder(config) => Manifest::of(|w| TextEncoder::load(w, config)),
        NetworkConfig::VaeEncoder(config) => Manifest::of(|w| VaeEncoder::load(w, config)),
        NetworkConfig::Denoiser(config) => Manifest::of(|w| Unet::load(w, config)),
        NetworkConfig::VaeDecoder(config) => Manifest::of(|w| VaeDecoder::load(w, config)),
    }
}

/// Pseudo-random parameters of a network, in memory: see [`WeightFile::random`].
pub fn random_weights(config: &NetworkConfig, precision: Precision, seed: u64) -> Result<WeightFile> {
    WeightFile::random(&manifest(config)?, precision, seed)
}
