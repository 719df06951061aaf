//! The shapes that a program's outputs must have.

use crate::model::{InteractionConfig, NetworkConfig};
use crate::tensor::HostTensor;

/// Sizes of the outputs for these inputs, both in the stage's order; `None` is any size. A language model gives no logits
/// of so many first positions.
pub(super) fn shapes(
    config: &NetworkConfig,
    inputs: &[Option<&HostTensor>],
    without_logits: usize,
) -> Vec<Vec<Option<usize>>> {
    let given = |input: usize, axis: usize| {
        inputs.get(input).copied().flatten().and_then(|tensor| tensor.shape().get(axis).copied())
    };
    let batch = given(0, 0);
    match config {
        NetworkConfig::VisionEncoder(c) => {
            let patches = c.image_size.checked_div(c.patch_size).map(|side| side * side);
            vec![vec![batch, patches, Some(c.hidden_size)]]
        }
        NetworkConfig::LanguageModel(c) => {
            let positions = given(0, 1).map(|tokens| tokens + given(1, 1).unwrap_or(0));
            let wanted = positions.map(|positions| positions.saturating_sub(without_logits));
            vec![vec![batch, positions, Some(c.hidden_size)], vec![batch, wanted, Some(c.vocab_size)]]
        }
        NetworkConfig::Connector(c) => {
            let mut shapes = vec![vec![batch, Some(c.qformer.num_queries), Some(c.qformer.hidden_size)]];
            if let InteractionConfig::Bim(bim) = &c.interaction {
                shapes.push(vec![
                    batch,
                    Some(bim.feature_channels),
                    Some(bim.grid_size),
                    Some(bim.grid_size),
                ]);
            }
            shapes
        }
        NetworkConfig::TextEncoder(c) => vec![vec![batch, given(0, 1), Some(c.hidden_size)]],
        NetworkConfig::VaeEncoder(c) => {
            let side = |axis| given(0, axis).map(|side| side / c.downsampling());
            vec![vec![batch, Some(c.latent_channels), side(2), side(3)]]
        }
        NetworkConfig::Denoiser(c) => {
            vec![vec![batch, Some(c.out_channels), given(0, 2), given(0, 3)]]
        }
        NetworkConfig::VaeDecoder(c) => {
            let side = |axis| given(0, axis).map(|side| side * c.downsampling());
            vec![vec![batch, Some(c.image_channels), side(2), side(3)]]
        }
    }
}
