//! `model.json`: what a model directory holds and how its networks are sized.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stage::StageKind;

/// The version of the directory format that this build reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// The file that describes a model directory.
pub const MODEL_FILE: &str = "model.json";

/// Number of image tokens `<img_0>` … `<img_31>` whose states the language model hands on.
pub const IMAGE_TOKENS: usize = 32;

/// The content of `model.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Version of this format: [`FORMAT_VERSION`].
    pub format: u32,
    /// A name for people, such as `SmartEdit-7B`.
    pub name: String,
    /// How stages are composed, and the texts and tokenizers around them.
    pub pipeline: PipelineConfig,
    /// Every stage: its weight file and the sizes of its network.
    pub stages: BTreeMap<StageKind, StageConfig>,
    /// The noise schedule the denoiser was trained with.
    pub scheduler: SchedulerConfig,
    /// What a request gets that does not say otherwise.
    pub defaults: EditDefaults,
    /// Digest and size of every other file of the directory.
    pub files: BTreeMap<String, FileDigest>,
    /// What the model was made from: role and name of each source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, String>,
}

/// How stages are composed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PipelineConfig {
    /// SmartEdit: the instruction goes through the language model.
    #[serde(rename = "smartedit")]
    SmartEdit {
        /// LLaMA tokenizer file: `tokenizer.model` or `tokenizer.json`.
        tokenizer: String,
        /// Directory of the CLIP tokenizer files (`vocab.json`, `merges.txt`).
        clip_tokenizer: String,
        /// Texts around the instruction.
        prompt: PromptConfig,
    },
    /// InstructPix2Pix and models of its architecture: the instruction goes through the CLIP text encoder.
    InstructPix2Pix {
        /// Directory of the CLIP tokenizer files (`vocab.json`, `merges.txt`).
        clip_tokenizer: String,
    },
}

impl PipelineConfig {
    /// The stages that the pipeline runs.
    pub const fn stages(&self) -> &'static [StageKind] {
        match self {
            Self::SmartEdit { .. } => &StageKind::ALL,
            Self::InstructPix2Pix { .. } => {
                &[StageKind::TextEncoder, StageKind::VaeEncoder, StageKind::Denoiser, StageKind::VaeDecoder]
            }
        }
    }
}

/// The texts of SmartEdit's prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptConfig {
    /// The system sentence.
    pub system: String,
    /// Ways to ask; a request chooses one by its index, the first is the default.
    pub templates: Vec<PromptTemplate>,
    /// Replies that the model is known to give whatever the template, the likeliest first; `[img]` stands for the
    /// image tokens. They make no difference but in speed: a reply that was expected, here or as the template's
    /// answer, is verified in one pass of the language model instead of being made token by token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replies: Vec<String>,
}

/// One way to ask, with the answer it was trained with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptTemplate {
    /// The user's turn; `[cap]` stands for image and instruction.
    pub human: String,
    /// The assistant's turn; `[img]` stands for the image tokens.
    pub gpt: String,
}

/// A stage's weight file and network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// The safetensors file, relative to the directory.
    pub file: String,
    /// The network and its sizes.
    pub network: NetworkConfig,
}

/// The network of a stage and its sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NetworkConfig {
    /// CLIP vision tower.
    VisionEncoder(VisionConfig),
    /// LLaMA with the vision projector.
    LanguageModel(LlamaConfig),
    /// QFormer and what follows it.
    Connector(ConnectorConfig),
    /// CLIP text encoder.
    TextEncoder(TextConfig),
    /// VAE encoder.
    VaeEncoder(VaeConfig),
    /// UNet.
    Denoiser(UnetConfig),
    /// VAE decoder.
    VaeDecoder(VaeConfig),
}

impl NetworkConfig {
    /// The stage this network serves.
    pub const fn kind(&self) -> StageKind {
        match self {
            Self::VisionEncoder(_) => StageKind::VisionEncoder,
            Self::LanguageModel(_) => StageKind::LanguageModel,
            Self::Connector(_) => StageKind::Connector,
            Self::TextEncoder(_) => StageKind::TextEncoder,
            Self::VaeEncoder(_) => StageKind::VaeEncoder,
            Self::Denoiser(_) => StageKind::Denoiser,
            Self::VaeDecoder(_) => StageKind::VaeDecoder,
        }
    }
}

/// CLIP vision tower up to the layer whose output is used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionConfig {
    /// Width.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Layers that are run: the tower's last layer is not among them.
    pub num_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Side of the square input, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Added to variances.
    pub layer_norm_eps: f64,
    /// The MLP's activation.
    pub activation: Activation,
    /// Mean of each colour channel, of values in 0…1.
    pub image_mean: [f32; 3],
    /// Standard deviation of each colour channel.
    pub image_std: [f32; 3],
}

/// An MLP's activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · σ(1.702 x)`.
    QuickGelu,
    /// `x · Φ(x)`.
    Gelu,
}

/// LLaMA and the projector of image features into its width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlamaConfig {
    /// Rows of the embedding table and of the head, added tokens included.
    pub vocab_size: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Added to mean squares.
    pub rms_norm_eps: f64,
    /// Base of the rotary position embedding.
    pub rope_theta: f64,
    /// Longest sequence, image features included.
    pub max_positions: usize,
    /// Width of the image features that the projector takes.
    pub vision_size: usize,
}

/// QFormer and the module that relates its output to the image features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectorConfig {
    /// The QFormer.
    pub qformer: QFormerConfig,
    /// What follows it.
    pub interaction: InteractionConfig,
}

/// A BERT-like stack over learned queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QFormerConfig {
    /// Learned queries.
    pub num_queries: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Width of the states that cross-attention reads.
    pub encoder_width: usize,
    /// Every how many layers there is cross-attention, from the first on.
    pub cross_attention_frequency: usize,
    /// Added to variances.
    pub layer_norm_eps: f64,
}

/// How the QFormer's output meets the image features (paper, section 3.3 and the ablation of it).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum InteractionConfig {
    /// The Bidirectional Interaction Module.
    Bim(BimConfig),
    /// One cross-attention from the QFormer's output to the image features.
    #[serde(rename = "simple_ca")]
    SimpleCa(SimpleCaConfig),
    /// Nothing: the QFormer's output goes to the UNet as it is.
    Plain,
}

/// The Bidirectional Interaction Module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BimConfig {
    /// Width of the image features, in which the module works.
    pub vision_size: usize,
    /// Side of the square grid of image features.
    pub grid_size: usize,
    /// Two-way blocks.
    pub depth: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Width inside the MLP.
    pub mlp_size: usize,
    /// By what the cross-attentions narrow their width.
    pub downsample_rate: usize,
    /// Channels of the feature added after the UNet's first convolution.
    pub feature_channels: usize,
    /// Added to variances.
    pub layer_norm_eps: f64,
}

/// One cross-attention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimpleCaConfig {
    /// Width of the image features.
    pub vision_size: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Added to variances.
    pub layer_norm_eps: f64,
}

/// CLIP text encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Tokens of a text, padding included.
    pub max_positions: usize,
    /// Added to variances.
    pub layer_norm_eps: f64,
    /// The MLP's activation.
    pub activation: Activation,
}

/// Half of the variational autoencoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeConfig {
    /// Channels of a picture.
    pub image_channels: usize,
    /// Channels of latents.
    pub latent_channels: usize,
    /// Channels of each resolution, largest resolution first.
    pub block_channels: Vec<usize>,
    /// Residual blocks of each resolution (the decoder has one more).
    pub layers_per_block: usize,
    /// Groups of group norms.
    pub norm_groups: usize,
    /// What noisy latents are multiplied with to have variance 1.
    pub scaling_factor: f32,
    /// Side of the squares of pixels that the first convolution of the encoder reads, and the last of the decoder
    /// writes, as one cell. Stable Diffusion: 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub patch_size: usize,
    /// Whether encoder and decoder normalise and activate what their last convolutions read, as Stable Diffusion's
    /// do. A group norm there takes absolute colour away, which a small network then learns slowly.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub norm_out: bool,
}

fn one() -> usize {
    1
}

fn is_one(size: &usize) -> bool {
    *size == 1
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

impl VaeConfig {
    /// By what factor height and width of a picture exceed those of its latents.
    pub fn downsampling(&self) -> usize {
        self.patch_size << self.block_channels.len().saturating_sub(1).min(16)
    }
}

/// Stable-Diffusion-1.x UNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnetConfig {
    /// Channels of the input: noisy latents, then image latents.
    pub in_channels: usize,
    /// Channels of the predicted noise.
    pub out_channels: usize,
    /// Channels of each resolution, largest resolution first.
    pub block_channels: Vec<usize>,
    /// Which resolutions have transformers, in the order of `block_channels`.
    pub block_attention: Vec<bool>,
    /// Attention heads of each resolution.
    pub num_heads: Vec<usize>,
    /// Residual blocks of each resolution (one more on the way up).
    pub layers_per_block: usize,
    /// Width of the conditioning that cross-attention reads.
    pub cross_attention_dim: usize,
    /// Groups of group norms.
    pub norm_groups: usize,
    /// Added to variances in residual blocks.
    pub norm_eps: f64,
    /// Whether the timestep embedding is `[cos, sin]` rather than `[sin, cos]`.
    pub flip_sin_to_cos: bool,
    /// Shift of the timestep embedding's frequencies.
    pub freq_shift: f64,
}

/// The noise schedule of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulerConfig {
    /// The scheduler a request gets that does not name one.
    pub default: SchedulerKind,
    /// Variance of the first training step.
    pub beta_start: f64,
    /// Variance of the last training step.
    pub beta_end: f64,
    /// How variances lie between the two.
    pub beta_schedule: BetaSchedule,
    /// Training steps.
    pub num_train_timesteps: usize,
    /// Added to DDIM's timesteps.
    pub steps_offset: usize,
    /// What the denoiser predicts.
    #[serde(default, skip_serializing_if = "PredictionType::is_default")]
    pub prediction_type: PredictionType,
    /// Which training steps a run visits.
    #[serde(default, skip_serializing_if = "TimestepSpacing::is_default")]
    pub timestep_spacing: TimestepSpacing,
}

/// What a denoiser predicts of noisy latents `√ᾱ x₀ + √(1−ᾱ) ε`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise `ε`.
    #[default]
    Epsilon,
    /// The velocity `√ᾱ ε − √(1−ᾱ) x₀` (Salimans and Ho, 2022).
    VPrediction,
}

impl PredictionType {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Which training steps a run of some number of steps visits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// Evenly from the last training step to the first, both included; a single step is at the first.
    #[default]
    Linspace,
    /// Evenly from the last training step on, which a single step is at, too.
    Trailing,
}

impl TimestepSpacing {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How variances lie between the first and the last training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Evenly.
    Linear,
    /// Their square roots lie evenly.
    ScaledLinear,
}

/// A sampler of the reverse process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchedulerKind {
    /// Euler with fresh noise in each step.
    EulerAncestral,
    /// Euler.
    Euler,
    /// Denoising diffusion implicit model, η = 0.
    Ddim,
}

impl SchedulerKind {
    /// Every scheduler.
    pub const ALL: [Self; 3] = [Self::EulerAncestral, Self::Euler, Self::Ddim];

    /// The name used in requests, configuration and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EulerAncestral => "euler_ancestral",
            Self::Euler => "euler",
            Self::Ddim => "ddim",
        }
    }
}

/// What a request gets that does not say otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditDefaults {
    /// Denoising steps.
    pub steps: usize,
    /// Guidance scale of the instruction.
    pub text_guidance: f32,
    /// Guidance scale of the source image.
    pub image_guidance: f32,
    /// Width and height to which pictures are resized; without it their own size is kept.
    pub resolution: Option<(usize, usize)>,
}

/// A file's content, pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// SHA-256, in hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}
