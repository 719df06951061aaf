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
pub use language_model::{LanguageModel, Positions, rotary_tables};
pub use layers::KeyValue;
pub(crate) use layers::{Conv2d, LayerNorm, Linear};
pub use qformer::QFormer;
pub use text_encoder::{TextEncoder, causal_mask};
pub use unet::{PreparedContext, Unet};
pub use vae::{VaeDecoder, VaeEncoder};
pub use vision_encoder::VisionEncoder;

use crate::engine::Precision;
use crate::model::{LlamaConfig, NetworkConfig};
use crate::stages::Network;
use crate::weights::{Manifest, RandomWeights, Result, WeightFile};

/// Names and shapes of the parameters that a network asks for.
pub fn manifest(config: &NetworkConfig) -> Result<Vec<(String, Vec<usize>)>> {
    Manifest::of(|weights| Network::load(weights, config))
}

/// Names and shapes of the weights of a network's linear and convolutional layers.
pub fn updatable(config: &NetworkConfig) -> Result<Vec<(String, Vec<usize>)>> {
    Manifest::updatable(|weights| Network::load(weights, config))
}

/// Pseudo-random parameters of a network, in memory: see [`RandomWeights`].
pub fn random_weights(config: &NetworkConfig, precision: Precision, seed: u64) -> Result<WeightFile> {
    RandomWeights::new(&manifest(config)?, precision, seed)?.freeze()
}

/// Pseudo-random parameters of a language model that, decoded greedily, follows a chain of tokens: fed one of them,
/// it finds the next one likeliest, whatever came before. No token may occur twice.
///
/// The head's row of a token is the embedding of the one before it, and the residual stream still points to that
/// embedding after all layers.
pub fn random_weights_that_reply(
    config: &LlamaConfig,
    precision: Precision,
    seed: u64,
    chain: &[u32],
) -> Result<WeightFile> {
    let parameters = Manifest::of(|weights| LanguageModel::load(weights, config))?;
    let mut weights = RandomWeights::new(&parameters, precision, seed)?;
    for (&token, &next) in chain.iter().zip(chain.iter().skip(1)) {
        let (from, to) = (("embed_tokens.weight", token as usize), ("lm_head.weight", next as usize));
        weights.copy_row(from, to)?;
    }
    weights.freeze()
}
