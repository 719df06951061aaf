//! Bounds on the sizes that a configuration may give a network.

use crate::model::{InteractionConfig, NetworkConfig};

/// Largest width, in elements.
const MAX_WIDTH: usize = 1 << 17;
/// Largest vocabulary.
const MAX_VOCABULARY: usize = 1 << 21;
/// Most layers of a kind.
const MAX_LAYERS: usize = 1 << 10;
/// Longest sequence of the language model.
const MAX_POSITIONS: usize = 1 << 17;
/// Longest text of the text encoder, which masks all pairs of positions.
const MAX_TEXT: usize = 1 << 12;
/// Largest side of a picture that the vision tower takes, in pixels.
const MAX_SIDE: usize = 1 << 12;
/// Most elements of the position encoding that the BIM computes when it is loaded.
const MAX_ENCODING: usize = 1 << 26;
/// Most resolutions of a UNet or autoencoder.
const MAX_RESOLUTIONS: usize = 16;

impl NetworkConfig {
    /// Checks that every size is positive and no larger than any network has, so that a damaged or malicious
    /// file cannot ask for endless memory.
    ///
    /// # Errors
    /// The name of a size, its value and the bound.
    pub fn check_sizes(&self) -> Result<(), String> {
        let sizes: Vec<(&str, usize, usize)> = match self {
            Self::VisionEncoder(c) => vec![
                ("hidden_size", c.hidden_size, MAX_WIDTH),
                ("intermediate_size", c.intermediate_size, MAX_WIDTH),
                ("num_layers", c.num_layers, MAX_LAYERS),
                ("num_heads", c.num_heads, c.hidden_size),
                ("image_size", c.image_size, MAX_SIDE),
                ("patch_size", c.patch_size, c.image_size),
            ],
            Self::LanguageModel(c) => vec![
                ("vocab_size", c.vocab_size, MAX_VOCABULARY),
                ("hidden_size", c.hidden_size, MAX_WIDTH),
                ("intermediate_size", c.intermediate_size, MAX_WIDTH),
                ("num_layers", c.num_layers, MAX_LAYERS),
                ("num_heads", c.num_heads, c.hidden_size),
                ("max_positions", c.max_positions, MAX_POSITIONS),
                ("vision_size", c.vision_size, MAX_WIDTH),
            ],
            Self::Connector(c) => {
                let q = &c.qformer;
                let mut sizes = vec![
                    ("num_queries", q.num_queries, MAX_TEXT),
                    ("hidden_size", q.hidden_size, MAX_WIDTH),
                    ("intermediate_size", q.intermediate_size, MAX_WIDTH),
                    ("num_layers", q.num_layers, MAX_LAYERS),
                    ("num_heads", q.num_heads, q.hidden_size),
                    ("encoder_width", q.encoder_width, MAX_WIDTH),
                    ("cross_attention_frequency", q.cross_attention_frequency, MAX_LAYERS),
                ];
                match &c.interaction {
                    InteractionConfig::Bim(c) => sizes.extend([
                        (
                            "grid_size² · vision_size",
                            c.grid_size.saturating_mul(c.grid_size).saturating_mul(c.vision_size),
                            MAX_ENCODING,
                        ),
                        ("vision_size", c.vision_size, MAX_WIDTH),
                        ("grid_size", c.grid_size, MAX_SIDE),
                        ("depth", c.depth, MAX_LAYERS),
                        ("num_heads", c.num_heads, c.vision_size),
                        ("mlp_size", c.mlp_size, MAX_WIDTH),
                        ("downsample_rate", c.downsample_rate, c.vision_size),
                        ("feature_channels", c.feature_channels, MAX_WIDTH),
                    ]),
                    InteractionConfig::SimpleCa(c) => sizes.extend([
                        ("vision_size", c.vision_size, MAX_WIDTH),
                        ("num_heads", c.num_heads, q.hidden_size),
                    ]),
                    InteractionConfig::Plain => {}
                }
                sizes
            }
            Self::TextEncoder(c) => vec![
                ("vocab_size", c.vocab_size, MAX_VOCABULARY),
                ("hidden_size", c.hidden_size, MAX_WIDTH),
                ("intermediate_size", c.intermediate_size, MAX_WIDTH),
                ("num_layers", c.num_layers, MAX_LAYERS),
                ("num_heads", c.num_heads, c.hidden_size),
                ("max_positions", c.max_positions, MAX_TEXT),
            ],
            Self::VaeEncoder(c) | Self::VaeDecoder(c) => {
                if !(c.scaling_factor.is_finite() && c.scaling_factor > 0.0) {
                    return Err(format!("{}: `scaling_factor` is {}", self.kind(), c.scaling_factor));
                }
                let mut sizes = vec![
                    ("image_channels", c.image_channels, MAX_WIDTH),
                    ("latent_channels", c.latent_channels, MAX_WIDTH),
                    ("length of block_channels", c.block_channels.len(), MAX_RESOLUTIONS),
                    ("layers_per_block", c.layers_per_block, MAX_LAYERS),
                    ("norm_groups", c.norm_groups, MAX_WIDTH),
                    ("patch_size", c.patch_size, MAX_SIDE),
                ];
                sizes.extend(c.block_channels.iter().map(|&size| ("block_channels", size, MAX_WIDTH)));
                sizes
            }
            Self::Denoiser(c) => {
                let mut sizes = vec![
                    ("in_channels", c.in_channels, MAX_WIDTH),
                    ("out_channels", c.out_channels, MAX_WIDTH),
                    ("length of block_channels", c.block_channels.len(), MAX_RESOLUTIONS),
                    ("layers_per_block", c.layers_per_block, MAX_LAYERS),
                    ("cross_attention_dim", c.cross_attention_dim, MAX_WIDTH),
                    ("norm_groups", c.norm_groups, MAX_WIDTH),
                ];
                sizes.extend(c.block_channels.iter().map(|&size| ("block_channels", size, MAX_WIDTH)));
                sizes.extend(c.num_heads.iter().map(|&size| ("num_heads", size, MAX_WIDTH)));
                sizes
            }
        };
        match sizes.into_iter().find(|&(_, size, bound)| size == 0 || size > bound) {
            Some((name, size, bound)) => {
                Err(format!("{}: `{name}` is {size}; it must lie in 1…{bound}", self.kind()))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BimConfig, ConnectorConfig, QFormerConfig};

    fn official() -> (QFormerConfig, BimConfig) {
        let qformer = QFormerConfig {
            num_queries: 77,
            hidden_size: 768,
            intermediate_size: 3072,
            num_layers: 6,
            num_heads: 12,
            encoder_width: 5120,
            cross_attention_frequency: 2,
            layer_norm_eps: 1e-12,
        };
        let bim = BimConfig {
            vision_size: 1024,
            grid_size: 16,
            depth: 2,
            num_heads: 8,
            mlp_size: 2048,
            downsample_rate: 2,
            feature_channels: 320,
            layer_norm_eps: 1e-5,
        };
        (qformer, bim)
    }

    fn check(qformer: QFormerConfig, bim: BimConfig) -> Result<(), String> {
        let interaction = InteractionConfig::Bim(bim);
        NetworkConfig::Connector(ConnectorConfig { qformer, interaction }).check_sizes()
    }

    #[test]
    fn official_sizes_pass_and_absurd_ones_are_named() {
        let (qformer, bim) = official();
        check(qformer.clone(), bim.clone()).unwrap();
        let message = check(QFormerConfig { num_layers: 0, ..qformer.clone() }, bim.clone()).unwrap_err();
        assert!(message.contains("`num_layers` is 0"), "{message}");
        let message = check(QFormerConfig { num_heads: 769, ..qformer.clone() }, bim.clone()).unwrap_err();
        assert!(message.contains("1…768"), "{message}");
        let message = check(qformer, BimConfig { grid_size: 4096, vision_size: 1 << 17, ..bim }).unwrap_err();
        assert!(message.contains("grid_size²"), "{message}");
    }
}
