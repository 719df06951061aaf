//! The published models' sizes, for use without a checkpoint.

use std::collections::BTreeMap;

use super::{
    Activation, BetaSchedule, BimConfig, ConnectorConfig, EditDefaults, FORMAT_VERSION, IMAGE_TOKENS,
    InteractionConfig, LlamaConfig, ModelConfig, NetworkConfig, PipelineConfig, PredictionType,
    QFormerConfig, SchedulerConfig, SchedulerKind, StageConfig, TextConfig, TimestepSpacing, UnetConfig,
    VaeConfig, VisionConfig,
};
use crate::stage::StageKind;
use crate::text::release_prompt;

/// Means and standard deviations of CLIP's colour channels.
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// A model whose sizes are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// SmartEdit, every network as small as its structure allows.
    Tiny,
    /// InstructPix2Pix on Stable Diffusion 1.5.
    Sd15,
    /// SmartEdit-7B.
    SmartEdit7b,
    /// SmartEdit-13B.
    SmartEdit13b,
}

impl Preset {
    /// Every preset, the smallest first.
    pub const ALL: [Self; 4] = [Self::Tiny, Self::Sd15, Self::SmartEdit7b, Self::SmartEdit13b];

    /// The name used on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::Sd15 => "sd15",
            Self::SmartEdit7b => "smartedit-7b",
            Self::SmartEdit13b => "smartedit-13b",
        }
    }

    /// What `model.json` of such a model says, without files.
    pub fn config(self) -> ModelConfig {
        let networks = self.networks();
        let clip_tokenizer = "clip_tokenizer".to_owned();
        let pipeline = match self {
            Self::Sd15 => PipelineConfig::InstructPix2Pix { clip_tokenizer },
            Self::Tiny | Self::SmartEdit7b | Self::SmartEdit13b => PipelineConfig::SmartEdit {
                tokenizer: "tokenizer.model".to_owned(),
                clip_tokenizer,
                prompt: release_prompt(),
            },
        };
        ModelConfig {
            format: FORMAT_VERSION,
            name: self.name().to_owned(),
            pipeline,
            stages: networks.into_iter().map(stage).collect(),
            scheduler: SchedulerConfig {
                default: SchedulerKind::EulerAncestral,
                beta_start: 0.00085,
                beta_end: 0.012,
                beta_schedule: BetaSchedule::ScaledLinear,
                num_train_timesteps: 1000,
                steps_offset: 1,
                prediction_type: PredictionType::Epsilon,
                timestep_spacing: TimestepSpacing::Linspace,
            },
            defaults: EditDefaults {
                steps: 100,
                text_guidance: 7.5,
                image_guidance: 1.5,
                resolution: Some((256, 256)),
            },
            files: BTreeMap::new(),
            sources: BTreeMap::new(),
        }
    }

    fn networks(self) -> Vec<NetworkConfig> {
        match self {
            Self::Tiny => smartedit(tiny_vision(), tiny_llama(), tiny_diffusion()),
            Self::Sd15 => stable_diffusion_1().into(),
            Self::SmartEdit7b => smartedit(clip_vision(), llama(4096, 11008, 32), stable_diffusion_1()),
            Self::SmartEdit13b => smartedit(clip_vision(), llama(5120, 13824, 40), stable_diffusion_1()),
        }
    }
}

fn stage(network: NetworkConfig) -> (StageKind, StageConfig) {
    let kind = network.kind();
    (kind, StageConfig { file: format!("{kind}.safetensors"), network })
}

/// The networks of SmartEdit; QFormer and BIM take their widths from their neighbours.
fn smartedit(vision: VisionConfig, llama: LlamaConfig, diffusion: [NetworkConfig; 4]) -> Vec<NetworkConfig> {
    let (mut context, mut feature_channels) = (0, 0);
    for network in &diffusion {
        if let NetworkConfig::Denoiser(unet) = network {
            context = unet.cross_attention_dim;
            feature_channels = unet.block_channels.first().copied().unwrap_or(0);
        }
    }
    let qformer = QFormerConfig {
        num_queries: 77,
        hidden_size: context,
        intermediate_size: 4 * context,
        num_layers: 6,
        num_heads: 12,
        encoder_width: llama.hidden_size,
        cross_attention_frequency: 2,
        layer_norm_eps: 1e-12,
    };
    let bim = BimConfig {
        vision_size: vision.hidden_size,
        grid_size: vision.image_size / vision.patch_size,
        depth: 2,
        num_heads: 8,
        mlp_size: 2 * vision.hidden_size,
        downsample_rate: 2,
        feature_channels,
        layer_norm_eps: 1e-5,
    };
    let connector = ConnectorConfig { qformer, interaction: InteractionConfig::Bim(bim) };
    let front = [
        NetworkConfig::VisionEncoder(vision),
        NetworkConfig::LanguageModel(llama),
        NetworkConfig::Connector(connector),
    ];
    front.into_iter().chain(diffusion).collect()
}

/// CLIP ViT-L/14 without its last layer, whose output is not used.
fn clip_vision() -> VisionConfig {
    VisionConfig {
        hidden_size: 1024,
        intermediate_size: 4096,
        num_layers: 23,
        num_heads: 16,
        image_size: 224,
        patch_size: 14,
        layer_norm_eps: 1e-5,
        activation: Activation::QuickGelu,
        image_mean: CLIP_MEAN,
        image_std: CLIP_STD,
    }
}

/// LLaMA with heads of 128, and SmartEdit's added tokens.
fn llama(hidden_size: usize, intermediate_size: usize, num_layers: usize) -> LlamaConfig {
    LlamaConfig {
        vocab_size: 32_000 + 3 + IMAGE_TOKENS,
        hidden_size,
        intermediate_size,
        num_layers,
        num_heads: hidden_size / 128,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        max_positions: 2048,
        vision_size: 1024,
    }
}

/// Text encoder, VAE and UNet of Stable Diffusion 1.x, with InstructPix2Pix's eight input channels.
fn stable_diffusion_1() -> [NetworkConfig; 4] {
    let text = TextConfig {
        vocab_size: 49_408,
        hidden_size: 768,
        intermediate_size: 3072,
        num_layers: 12,
        num_heads: 12,
        max_positions: 77,
        layer_norm_eps: 1e-5,
        activation: Activation::QuickGelu,
    };
    diffusion(text, vec![128, 256, 512, 512], vec![320, 640, 1280, 1280])
}

fn diffusion(text: TextConfig, vae_channels: Vec<usize>, unet_channels: Vec<usize>) -> [NetworkConfig; 4] {
    let vae = VaeConfig {
        image_channels: 3,
        latent_channels: 4,
        block_channels: vae_channels,
        layers_per_block: 2,
        norm_groups: 32,
        scaling_factor: 0.18215,
        patch_size: 1,
        norm_out: true,
    };
    let unet = UnetConfig {
        in_channels: 8,
        out_channels: 4,
        block_channels: unet_channels,
        block_attention: vec![true, true, true, false],
        num_heads: vec![8; 4],
        layers_per_block: 2,
        cross_attention_dim: text.hidden_size,
        norm_groups: 32,
        norm_eps: 1e-5,
        flip_sin_to_cos: true,
        freq_shift: 0.0,
    };
    [
        NetworkConfig::TextEncoder(text),
        NetworkConfig::VaeEncoder(vae.clone()),
        NetworkConfig::Denoiser(unet),
        NetworkConfig::VaeDecoder(vae),
    ]
}

fn tiny_vision() -> VisionConfig {
    VisionConfig { hidden_size: 64, intermediate_size: 128, num_layers: 2, num_heads: 4, ..clip_vision() }
}

fn tiny_llama() -> LlamaConfig {
    LlamaConfig { num_heads: 4, vision_size: 64, ..llama(128, 256, 4) }
}

fn tiny_diffusion() -> [NetworkConfig; 4] {
    let text = TextConfig {
        vocab_size: 49_408,
        hidden_size: 96,
        intermediate_size: 192,
        num_layers: 2,
        num_heads: 4,
        max_positions: 77,
        layer_norm_eps: 1e-5,
        activation: Activation::QuickGelu,
    };
    diffusion(text, vec![32; 4], vec![32, 32, 32, 64])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::manifest;

    fn parameters(preset: Preset, kind: StageKind) -> (usize, usize) {
        let config = preset.config();
        let tensors = manifest(&config.stages[&kind].network).unwrap();
        (tensors.len(), tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum())
    }

    /// The counts are those of the published checkpoints.
    #[test]
    fn networks_have_the_published_sizes() {
        assert_eq!(parameters(Preset::Sd15, StageKind::Denoiser), (686, 859_520_964 + 320 * 4 * 9));
        assert_eq!(parameters(Preset::Sd15, StageKind::TextEncoder), (196, 123_060_480));
        let (_, encoder) = parameters(Preset::Sd15, StageKind::VaeEncoder);
        let (_, decoder) = parameters(Preset::Sd15, StageKind::VaeDecoder);
        assert_eq!(encoder + decoder, 83_653_863);
        let added = 2 * 35 * 4096 + 4096 * 1025;
        assert_eq!(parameters(Preset::SmartEdit7b, StageKind::LanguageModel).1, 6_738_415_616 + added);
        let added = 2 * 35 * 5120 + 5120 * 1025;
        assert_eq!(parameters(Preset::SmartEdit13b, StageKind::LanguageModel).1, 13_015_864_320 + added);
    }

    #[test]
    fn sizes_lie_within_the_limits() {
        for preset in Preset::ALL {
            for stage in preset.config().stages.values() {
                stage.network.check_sizes().unwrap_or_else(|e| panic!("{}: {e}", preset.name()));
            }
        }
    }
}
