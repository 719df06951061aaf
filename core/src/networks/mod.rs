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
pub(crate) use language_model::rotary_tables;
pub use language_model::{LanguageModel, Positions};
pub use layers::KeyValue;
pub use qformer::QFormer;
pub use text_encoder::TextEncoder;
pub(crate) use text_encoder::causal_mask;
pub use unet::{PreparedContext, Unet};
pub use vae::{VaeDecoder, VaeEncoder};
pub use vision_encoder::VisionEncoder;

use crate::model::NetworkConfig;
use crate::stages::Network;
use crate::weights::{Manifest, Result};

/// Names and shapes of the parameters that a network asks for.
pub fn manifest(config: &NetworkConfig) -> Result<Vec<(String, Vec<usize>)>> {
    Manifest::of(|weights| Network::load(weights, config))
}
