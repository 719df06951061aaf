//! What a network's functions take and give.

use std::fmt;

use crate::model::{
    ConnectorConfig, IMAGE_TOKENS, InteractionConfig, LlamaConfig, NetworkConfig, TextConfig, UnetConfig,
    VaeConfig, VisionConfig,
};

/// A pure function of a network: tensors in, tensors out, nothing kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Function {
    /// All that the stage does: its inputs and outputs are those of the table in [`crate::stage`].
    Whole,
    /// Denoiser: what every step needs of `prompt_embeds`.
    Prepare,
    /// Denoiser: the image feature at the height and width of a sample.
    ResizeFeature,
    /// Denoiser: one prediction of the noise.
    Step,
    /// Language model: states of new positions, and the keys and values of all.
    Forward,
    /// Language model: logits of states.
    Logits,
}

impl Function {
    /// The name used in files and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Prepare => "prepare",
            Self::ResizeFeature => "resize_feature",
            Self::Step => "step",
            Self::Forward => "forward",
            Self::Logits => "logits",
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Inputs and outputs of a function, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The function.
    pub function: Function,
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<PortName>,
}

/// An input of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: PortName,
    /// What its elements are.
    pub elements: Elements,
    /// Its dimensions.
    pub shape: Vec<Dim>,
    /// For an input that need not be given, the shape of the zeros that mean the same.
    pub absent: Option<Vec<usize>>,
}

/// The name of an input or output, which may be one of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortName {
    /// The name of the tensor, or of the list it belongs to.
    pub base: &'static str,
    /// Its place in the list.
    pub index: Option<usize>,
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}.{index}", self.base),
            None => f.write_str(self.base),
        }
    }
}

/// What the elements of an input are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elements {
    /// 32-bit floats, whatever the engine's precision: a host tensor as it was uploaded.
    F32,
    /// Whole numbers from 0 on, all below a bound.
    Ids {
        /// The bound.
        below: usize,
    },
    /// Floats in the engine's precision: what another function gave.
    Computed,
}

/// A dimension of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    /// Always this size.
    Is(usize),
    /// Any size but 0; dimensions of one name in one call have the same size.
    Any(&'static str),
    /// As [`Dim::Any`], but a multiple of a number.
    MultipleOf(&'static str, usize),
}

impl Dim {
    /// Whether a size will do.
    pub fn admits(self, size: usize) -> bool {
        match self {
            Self::Is(expected) => size == expected,
            Self::Any(_) => size > 0,
            Self::MultipleOf(_, factor) => size > 0 && size.is_multiple_of(factor),
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(size) => write!(f, "{size}"),
            Self::Any(name) => f.write_str(name),
            Self::MultipleOf(name, factor) => write!(f, "{name}: a multiple of {factor}"),
        }
    }
}

/// The functions that a stage of this network is run by.
pub fn signatures(config: &NetworkConfig) -> Vec<Signature> {
    match config {
        NetworkConfig::VisionEncoder(config) => vec![vision_encoder(config)],
        NetworkConfig::LanguageModel(config) => language_model(config),
        NetworkConfig::Connector(config) => vec![connector(config)],
        NetworkConfig::TextEncoder(config) => vec![text_encoder(config)],
        NetworkConfig::VaeEncoder(config) => vec![vae_encoder(config)],
        NetworkConfig::Denoiser(config) => denoiser(config),
        NetworkConfig::VaeDecoder(config) => vec![vae_decoder(config)],
    }
}

/// The functions of the stage for those who keep nothing between calls: all of it in one, where that can be. A
/// denoiser is given an image feature or is not.
pub fn stateless(config: &NetworkConfig, image_feature: bool) -> Vec<Signature> {
    match config {
        NetworkConfig::Denoiser(config) => {
            let mut inputs = vec![sample(config), timestep(), prompt_embeds(config)];
            inputs.extend(image_feature.then(|| self::image_feature(config)));
            vec![all_in_one(inputs, [named("noise_prediction")])]
        }
        _ => signatures(config),
    }
}

const BATCH: Dim = Dim::Any("batch");
const HEIGHT: Dim = Dim::Any("height");
const WIDTH: Dim = Dim::Any("width");

fn named(base: &'static str) -> PortName {
    PortName { base, index: None }
}

fn listed(base: &'static str, index: usize) -> PortName {
    PortName { base, index: Some(index) }
}

fn all_in_one(inputs: Vec<Port>, outputs: impl Into<Vec<PortName>>) -> Signature {
    Signature { function: Function::Whole, inputs, outputs: outputs.into() }
}

pub(super) fn input(base: &'static str, elements: Elements, shape: impl Into<Vec<Dim>>) -> Port {
    Port { name: named(base), elements, shape: shape.into(), absent: None }
}

fn floats(base: &'static str, shape: impl Into<Vec<Dim>>) -> Port {
    input(base, Elements::F32, shape)
}

impl Port {
    fn computed(base: &'static str, index: usize, shape: impl Into<Vec<Dim>>) -> Self {
        let name = listed(base, index);
        Self { name, elements: Elements::Computed, shape: shape.into(), absent: None }
    }

    pub(super) fn or_zeros(mut self, shape: impl Into<Vec<usize>>) -> Self {
        self.absent = Some(shape.into());
        self
    }
}

pub(super) fn vision_encoder(config: &VisionConfig) -> Signature {
    let side = Dim::Is(config.image_size);
    let pixels = floats("pixel_values", [BATCH, Dim::Is(3), side, side]);
    all_in_one(vec![pixels], [named("image_features")])
}

pub(super) fn text_encoder(config: &TextConfig) -> Signature {
    let ids = Elements::Ids { below: config.vocab_size };
    let ids = input("input_ids", ids, [BATCH, Dim::Is(config.max_positions)]);
    all_in_one(vec![ids], [named("hidden_states")])
}

pub(super) fn connector(config: &ConnectorConfig) -> Signature {
    let (count, width) = match &config.interaction {
        InteractionConfig::Bim(bim) => (Dim::Is(bim.grid_size.pow(2)), Dim::Is(bim.vision_size)),
        InteractionConfig::SimpleCa(simple) => (Dim::Any("patches"), Dim::Is(simple.vision_size)),
        InteractionConfig::Plain => (Dim::Any("patches"), Dim::Any("features")),
    };
    let states = [BATCH, Dim::Is(IMAGE_TOKENS), Dim::Is(config.qformer.encoder_width)];
    let inputs = vec![floats("image_states", states), floats("image_features", [BATCH, count, width])];
    let mut outputs = vec![named("prompt_embeds")];
    if matches!(config.interaction, InteractionConfig::Bim(_)) {
        outputs.push(named("image_feature"));
    }
    all_in_one(inputs, outputs)
}

pub(super) fn vae_encoder(config: &VaeConfig) -> Signature {
    let factor = config.downsampling();
    let (height, width) = (Dim::MultipleOf("height", factor), Dim::MultipleOf("width", factor));
    let image = floats("image", [BATCH, Dim::Is(config.image_channels), height, width]);
    all_in_one(vec![image], [named("latents")])
}

pub(super) fn vae_decoder(config: &VaeConfig) -> Signature {
    let latents = floats("latents", [BATCH, Dim::Is(config.latent_channels), HEIGHT, WIDTH]);
    all_in_one(vec![latents], [named("image")])
}

pub(super) fn sample(config: &UnetConfig) -> Port {
    floats("sample", [BATCH, Dim::Is(config.in_channels), HEIGHT, WIDTH])
}

pub(super) fn timestep() -> Port {
    floats("timestep", [BATCH])
}

pub(super) fn prompt_embeds(config: &UnetConfig) -> Port {
    floats("prompt_embeds", [BATCH, Dim::Any("tokens"), Dim::Is(config.cross_attention_dim)])
}

pub(super) fn feature_channels(config: &UnetConfig) -> usize {
    config.block_channels.first().copied().unwrap_or(0)
}

/// One for all rows of a run, or one for each.
pub(super) fn image_feature(config: &UnetConfig) -> Port {
    let grid = [Dim::Any("feature_height"), Dim::Any("feature_width")];
    floats("image_feature", [Dim::Any("features"), Dim::Is(feature_channels(config)), grid[0], grid[1]])
}

/// `Prepare`, `ResizeFeature` and `Step`. The step may do without a feature.
fn denoiser(config: &UnetConfig) -> Vec<Signature> {
    let resized =
        Port { name: named("resized_feature"), elements: Elements::Computed, ..image_feature(config) };
    let name = resized.name;
    let absent = [1, feature_channels(config), 1, 1];
    let mut step = vec![sample(config), timestep(), resized.or_zeros(absent)];
    let mut context = Vec::new();
    for (index, (heads, head_dim)) in config.transformers().enumerate() {
        let shape = [BATCH, Dim::Is(heads), Dim::Any("tokens"), Dim::Is(head_dim)];
        for base in ["context_key", "context_value"] {
            context.push(listed(base, index));
            step.push(Port::computed(base, index, shape));
        }
    }
    vec![
        Signature { function: Function::Prepare, inputs: vec![prompt_embeds(config)], outputs: context },
        Signature {
            function: Function::ResizeFeature,
            inputs: vec![image_feature(config), sample(config)],
            outputs: vec![name],
        },
        Signature { function: Function::Step, inputs: step, outputs: vec![named("noise_prediction")] },
    ]
}

pub(super) fn tokens(config: &LlamaConfig, base: &'static str, length: &'static str) -> Port {
    input(base, Elements::Ids { below: config.vocab_size }, [Dim::Is(1), Dim::Any(length)])
}

pub(super) fn image_features(config: &LlamaConfig) -> Port {
    floats("image_features", [Dim::Is(1), Dim::Any("patches"), Dim::Is(config.vision_size)])
}

/// `Forward` and `Logits`. The new positions are tokens, image features and again tokens, each of which there
/// may be none of.
fn language_model(config: &LlamaConfig) -> Vec<Signature> {
    let tokens = |base, length| tokens(config, base, length).or_zeros([1, 0]);
    let head_dim = config.hidden_size.checked_div(config.num_heads).unwrap_or(0);
    let mut inputs = vec![
        tokens("tokens_before", "before"),
        image_features(config).or_zeros([1, 0, config.vision_size]),
        tokens("tokens_after", "after"),
        floats("cos", [Dim::Any("new"), Dim::Is(head_dim)]),
        floats("sin", [Dim::Any("new"), Dim::Is(head_dim)]),
        floats("mask", [Dim::Any("new"), Dim::Any("total")]),
    ];
    let mut outputs = vec![named("hidden_states")];
    let shape = [Dim::Is(1), Dim::Is(config.num_heads), Dim::Any("past"), Dim::Is(head_dim)];
    for index in 0..config.num_layers {
        for (past, now) in [("past_key", "key"), ("past_value", "value")] {
            let port = Port::computed(past, index, shape);
            inputs.push(port.or_zeros([1, config.num_heads, 0, head_dim]));
            outputs.push(listed(now, index));
        }
    }
    let states = [Dim::Is(1), Dim::Any("wanted"), Dim::Is(config.hidden_size)];
    let states = Port { elements: Elements::Computed, ..floats("hidden_states", states) };
    vec![
        Signature { function: Function::Forward, inputs, outputs },
        Signature { function: Function::Logits, inputs: vec![states], outputs: vec![named("logits")] },
    ]
}
