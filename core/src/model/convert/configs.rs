//! Network sizes from the configuration files of `transformers` and `diffusers`.
//!
//! Fields that inference does not need are ignored; features that our networks lack are refused by name, so
//! that no model is converted into one that computes something else.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Problem;
use super::source::read_json;
use crate::model::{
    Activation, BetaSchedule, LlamaConfig, PredictionType, SchedulerConfig, SchedulerKind, TextConfig,
    TimestepSpacing, UnetConfig, VaeConfig, VisionConfig,
};

/// A configuration file.
pub(super) struct ConfigFile<'a> {
    path: &'a Path,
    value: Value,
}

impl<'a> ConfigFile<'a> {
    pub(super) fn read(path: &'a Path) -> Result<Self, Problem> {
        Ok(Self { path, value: read_json(path)? })
    }

    /// What has been read already; the path is for messages.
    pub(super) fn of(path: &'a Path, value: Value) -> Self {
        Self { path, value }
    }

    /// The part of it under a key, or the whole if it has no such key.
    pub(super) fn part(mut self, key: &str) -> Self {
        if let Some(part) = self.value.get_mut(key).filter(|part| part.is_object()) {
            self.value = part.take();
        }
        self
    }

    pub(super) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::Config { path: self.path.to_owned(), message: message.into() }
    }

    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        T::deserialize(&self.value).map_err(|e| self.problem(e.to_string()))
    }

    /// Refuses values other than those our networks have; a field that is absent, null or false is fine.
    pub(super) fn only(&self, supported: &[(&str, Value)]) -> Result<(), Problem> {
        let unsupported = supported.iter().find_map(|(key, supported)| {
            let found = self.value.get(*key)?;
            let equal = found == supported || found.is_number() && found.as_f64() == supported.as_f64();
            let fits = equal || found.is_null() || *found == Value::Bool(false);
            (!fits).then(|| match supported {
                Value::Null | Value::Bool(false) => format!("`{key}` is {found}, which is not supported"),
                _ => format!("`{key}` is {found}; only {supported} is supported"),
            })
        });
        unsupported.map_or(Ok(()), |message| Err(self.problem(message)))
    }
}

fn activation(name: &str) -> Option<Activation> {
    match name {
        "quick_gelu" => Some(Activation::QuickGelu),
        "gelu" => Some(Activation::Gelu),
        _ => None,
    }
}

#[derive(Deserialize)]
struct ClipJson {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    #[serde(default = "quick_gelu")]
    hidden_act: String,
    #[serde(default = "clip_eps")]
    layer_norm_eps: f64,
}

fn quick_gelu() -> String {
    "quick_gelu".to_owned()
}

const fn clip_eps() -> f64 {
    1e-5
}

/// The vision tower up to the layer whose output is used: `select_layer` counts hidden states, from the end if
/// negative, and the embedding is the first of them.
pub(super) fn vision(
    file: ConfigFile<'_>,
    preprocessor: &Path,
    select_layer: i64,
) -> Result<VisionConfig, Problem> {
    #[derive(Deserialize)]
    struct Vision {
        image_size: usize,
        patch_size: usize,
        #[serde(flatten)]
        clip: ClipJson,
    }
    #[derive(Deserialize)]
    struct Preprocessor {
        image_mean: [f32; 3],
        image_std: [f32; 3],
    }
    let file = file.part("vision_config");
    let Vision { image_size, patch_size, clip } = file.parse()?;
    let Preprocessor { image_mean, image_std } = ConfigFile::read(preprocessor)?.parse()?;
    let layers = i64::try_from(clip.num_hidden_layers).unwrap_or(i64::MAX);
    let run =
        if select_layer < 0 { select_layer.saturating_add(layers).saturating_add(1) } else { select_layer };
    if !(1..=layers).contains(&run) {
        return Err(file.problem(format!(
            "has {layers} layers, so that hidden state {select_layer} (`mm_vision_select_layer`) cannot be used"
        )));
    }
    Ok(VisionConfig {
        hidden_size: clip.hidden_size,
        intermediate_size: clip.intermediate_size,
        num_layers: usize::try_from(run).unwrap_or(clip.num_hidden_layers),
        num_heads: clip.num_attention_heads,
        image_size,
        patch_size,
        layer_norm_eps: clip.layer_norm_eps,
        activation: activation(&clip.hidden_act).ok_or_else(|| {
            file.problem(format!("`hidden_act` is {:?}, which is not supported", clip.hidden_act))
        })?,
        image_mean,
        image_std,
    })
}

/// The CLIP text encoder.
pub(super) fn text(file: ConfigFile<'_>) -> Result<TextConfig, Problem> {
    #[derive(Deserialize)]
    struct Text {
        vocab_size: usize,
        max_position_embeddings: usize,
        #[serde(flatten)]
        clip: ClipJson,
    }
    let file = file.part("text_config");
    let Text { vocab_size, max_position_embeddings, clip } = file.parse()?;
    Ok(TextConfig {
        vocab_size,
        hidden_size: clip.hidden_size,
        intermediate_size: clip.intermediate_size,
        num_layers: clip.num_hidden_layers,
        num_heads: clip.num_attention_heads,
        max_positions: max_position_embeddings,
        layer_norm_eps: clip.layer_norm_eps,
        activation: activation(&clip.hidden_act).ok_or_else(|| {
            file.problem(format!("`hidden_act` is {:?}, which is not supported", clip.hidden_act))
        })?,
    })
}

/// LLaMA, whose vocabulary and vision width come from elsewhere.
pub(super) fn llama(
    file: &ConfigFile<'_>,
    vocab_size: usize,
    vision_size: usize,
) -> Result<LlamaConfig, Problem> {
    #[derive(Deserialize)]
    struct Llama {
        hidden_size: usize,
        intermediate_size: usize,
        num_hidden_layers: usize,
        num_attention_heads: usize,
        num_key_value_heads: Option<usize>,
        rms_norm_eps: f64,
        #[serde(default = "rope_theta")]
        rope_theta: f64,
        max_position_embeddings: usize,
    }
    const fn rope_theta() -> f64 {
        10000.0
    }
    file.only(&[
        ("hidden_act", json!("silu")),
        ("rope_scaling", Value::Null),
        ("attention_bias", json!(false)),
        ("mlp_bias", json!(false)),
    ])?;
    let llama: Llama = file.parse()?;
    if llama.num_key_value_heads.is_some_and(|heads| heads != llama.num_attention_heads) {
        return Err(
            file.problem("`num_key_value_heads` differs from `num_attention_heads`, which is not supported")
        );
    }
    Ok(LlamaConfig {
        vocab_size,
        hidden_size: llama.hidden_size,
        intermediate_size: llama.intermediate_size,
        num_layers: llama.num_hidden_layers,
        num_heads: llama.num_attention_heads,
        rms_norm_eps: llama.rms_norm_eps,
        rope_theta: llama.rope_theta,
        max_positions: llama.max_position_embeddings,
        vision_size,
    })
}

/// What the QFormer takes from a BERT configuration: head count and epsilon.
pub(super) fn bert(path: Option<&Path>) -> Result<(usize, f64), Problem> {
    #[derive(Deserialize)]
    struct Bert {
        num_attention_heads: usize,
        #[serde(default = "bert_eps")]
        layer_norm_eps: f64,
    }
    const fn bert_eps() -> f64 {
        1e-12
    }
    let Some(path) = path else { return Ok((12, bert_eps())) };
    let file = ConfigFile::read(path)?;
    file.only(&[("hidden_act", json!("gelu")), ("position_embedding_type", json!("absolute"))])?;
    let bert: Bert = file.parse()?;
    Ok((bert.num_attention_heads, bert.layer_norm_eps))
}

/// The autoencoder.
pub(super) fn vae(file: &ConfigFile<'_>) -> Result<VaeConfig, Problem> {
    #[derive(Deserialize)]
    struct Vae {
        in_channels: usize,
        out_channels: usize,
        latent_channels: usize,
        block_out_channels: Vec<usize>,
        layers_per_block: usize,
        #[serde(default = "groups")]
        norm_num_groups: usize,
        scaling_factor: Option<f32>,
        #[serde(default)]
        down_block_types: Vec<String>,
        #[serde(default)]
        up_block_types: Vec<String>,
        use_quant_conv: Option<bool>,
        use_post_quant_conv: Option<bool>,
        mid_block_add_attention: Option<bool>,
    }
    file.only(&[
        ("act_fn", json!("silu")),
        ("shift_factor", Value::Null),
        ("latents_mean", Value::Null),
        ("latents_std", Value::Null),
    ])?;
    let vae: Vae = file.parse()?;
    let down = vae.down_block_types.iter().find(|kind| *kind != "DownEncoderBlock2D");
    let up = vae.up_block_types.iter().find(|kind| *kind != "UpDecoderBlock2D");
    if let Some(kind) = down.or(up) {
        return Err(file.problem(format!("has a block of type {kind:?}, which is not supported")));
    }
    if [vae.use_quant_conv, vae.use_post_quant_conv, vae.mid_block_add_attention].contains(&Some(false)) {
        return Err(file.problem("leaves out quantisation convolutions or attention, which is not supported"));
    }
    if vae.in_channels != vae.out_channels {
        return Err(file.problem("`in_channels` and `out_channels` differ"));
    }
    Ok(VaeConfig {
        image_channels: vae.in_channels,
        latent_channels: vae.latent_channels,
        block_channels: vae.block_out_channels,
        layers_per_block: vae.layers_per_block,
        norm_groups: vae.norm_num_groups,
        scaling_factor: vae.scaling_factor.unwrap_or(0.18215),
        patch_size: 1,
        norm_out: true,
    })
}

const fn groups() -> usize {
    32
}

/// The UNet.
pub(super) fn unet(file: &ConfigFile<'_>) -> Result<UnetConfig, Problem> {
    #[derive(Deserialize, Clone)]
    #[serde(untagged)]
    enum Heads {
        Same(usize),
        Each(Vec<usize>),
    }
    #[derive(Deserialize)]
    struct Unet {
        in_channels: usize,
        out_channels: usize,
        block_out_channels: Vec<usize>,
        down_block_types: Vec<String>,
        up_block_types: Vec<String>,
        layers_per_block: usize,
        // Misnamed: diffusers takes it as the number of heads.
        attention_head_dim: Heads,
        num_attention_heads: Option<Heads>,
        cross_attention_dim: usize,
        #[serde(default = "groups")]
        norm_num_groups: usize,
        #[serde(default = "unet_eps")]
        norm_eps: f64,
        #[serde(default = "yes")]
        flip_sin_to_cos: bool,
        #[serde(default)]
        freq_shift: f64,
    }
    const fn unet_eps() -> f64 {
        1e-5
    }
    const fn yes() -> bool {
        true
    }
    file.only(&[
        ("act_fn", json!("silu")),
        ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
        ("mid_block_scale_factor", json!(1)),
        ("transformer_layers_per_block", json!(1)),
        ("resnet_time_scale_shift", json!("default")),
        ("time_embedding_type", json!("positional")),
        ("conv_in_kernel", json!(3)),
        ("conv_out_kernel", json!(3)),
        ("downsample_padding", json!(1)),
        ("attention_type", json!("default")),
        ("use_linear_projection", json!(false)),
        ("center_input_sample", json!(false)),
        ("dual_cross_attention", json!(false)),
        ("only_cross_attention", json!(false)),
        ("class_embed_type", Value::Null),
        ("num_class_embeds", Value::Null),
        ("addition_embed_type", Value::Null),
        ("encoder_hid_dim", Value::Null),
        ("time_cond_proj_dim", Value::Null),
        ("time_embedding_dim", Value::Null),
        ("timestep_post_act", Value::Null),
        ("time_embedding_act_fn", Value::Null),
        ("cross_attention_norm", Value::Null),
        ("mid_block_only_cross_attention", json!(false)),
        ("resnet_skip_time_act", json!(false)),
        ("resnet_out_scale_factor", json!(1)),
    ])?;
    let unet: Unet = file.parse()?;
    let block_attention = blocks(&unet.down_block_types, "CrossAttnDownBlock2D", "DownBlock2D");
    let mut up_attention = blocks(&unet.up_block_types, "CrossAttnUpBlock2D", "UpBlock2D");
    if let Ok(up) = &mut up_attention {
        up.reverse();
    }
    let block_attention = block_attention.map_err(|e| file.problem(e))?;
    if up_attention.map_err(|e| file.problem(e))? != block_attention {
        return Err(file.problem("`up_block_types` do not mirror `down_block_types`, which is not supported"));
    }
    let num_heads = match unet.num_attention_heads.unwrap_or(unet.attention_head_dim) {
        Heads::Same(heads) => vec![heads; unet.block_out_channels.len()],
        Heads::Each(heads) => heads,
    };
    if num_heads.len() != unet.block_out_channels.len() || block_attention.len() != num_heads.len() {
        return Err(file.problem("lists blocks, channels and heads of different lengths"));
    }
    Ok(UnetConfig {
        in_channels: unet.in_channels,
        out_channels: unet.out_channels,
        block_channels: unet.block_out_channels,
        block_attention,
        num_heads,
        layers_per_block: unet.layers_per_block,
        cross_attention_dim: unet.cross_attention_dim,
        norm_groups: unet.norm_num_groups,
        norm_eps: unet.norm_eps,
        flip_sin_to_cos: unet.flip_sin_to_cos,
        freq_shift: unet.freq_shift,
    })
}

/// Which blocks have attention.
fn blocks(types: &[String], with: &str, without: &str) -> Result<Vec<bool>, String> {
    types
        .iter()
        .map(|kind| match kind.as_str() {
            kind if kind == with => Ok(true),
            kind if kind == without => Ok(false),
            kind => Err(format!("has a block of type {kind:?}, which is not supported")),
        })
        .collect()
}

/// The noise schedule, and notes about what differs from it at inference.
pub(super) fn scheduler(file: &ConfigFile<'_>) -> Result<(SchedulerConfig, Vec<String>), Problem> {
    #[derive(Deserialize)]
    struct Scheduler {
        #[serde(rename = "_class_name", default)]
        class: String,
        beta_start: f64,
        beta_end: f64,
        beta_schedule: BetaSchedule,
        num_train_timesteps: usize,
        #[serde(default)]
        steps_offset: usize,
        #[serde(default)]
        prediction_type: PredictionType,
        timestep_spacing: Option<String>,
    }
    file.only(&[
        ("trained_betas", Value::Null),
        ("use_karras_sigmas", json!(false)),
        ("rescale_betas_zero_snr", json!(false)),
    ])?;
    let scheduler: Scheduler = file.parse()?;
    if scheduler.num_train_timesteps == 0 || scheduler.num_train_timesteps > 1_000_000 {
        return Err(file.problem(format!("`num_train_timesteps` is {}", scheduler.num_train_timesteps)));
    }
    let mut notes = Vec::new();
    let default = match scheduler.class.as_str() {
        "EulerAncestralDiscreteScheduler" => SchedulerKind::EulerAncestral,
        "EulerDiscreteScheduler" => SchedulerKind::Euler,
        "DDIMScheduler" => SchedulerKind::Ddim,
        other => {
            notes
                .push(format!("scheduler {other:?} is replaced by euler_ancestral, that of InstructPix2Pix"));
            SchedulerKind::EulerAncestral
        }
    };
    let spacing = match scheduler.timestep_spacing.as_deref() {
        None | Some("linspace") => TimestepSpacing::Linspace,
        Some("trailing") => TimestepSpacing::Trailing,
        Some(other) => {
            notes.push(format!("`timestep_spacing` {other:?} of the scheduler is not carried over"));
            TimestepSpacing::Linspace
        }
    };
    let config = SchedulerConfig {
        default,
        beta_start: scheduler.beta_start,
        beta_end: scheduler.beta_end,
        beta_schedule: scheduler.beta_schedule,
        num_train_timesteps: scheduler.num_train_timesteps,
        steps_offset: scheduler.steps_offset,
        prediction_type: scheduler.prediction_type,
        timestep_spacing: spacing,
    };
    Ok((config, notes))
}
