//! Recipes: what is trained, in which order, on how much.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use smartedit_core::engine::Precision;
use smartedit_core::model::{EditDefaults, NetworkConfig, PromptConfig, SchedulerConfig};
use smartedit_core::stage::StageKind;
use toml::{Table, Value};

use crate::optimizer::Rule;
use crate::world::Mixture;

/// A recipe file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The name of the model.
    pub name: String,
    /// Seed of all that is random.
    pub seed: u64,
    /// Precision of arithmetic; parameters are kept in 32 bits.
    pub precision: TrainingPrecision,
    /// Rank of the language model's adapters.
    pub lora_rank: i64,
    /// What adapters are multiplied with is this over their rank.
    pub lora_alpha: f64,
    /// Scenes whose pictures are encoded once, to be used by all stages that train on latents.
    pub pool_scenes: usize,
    /// The texts around an instruction.
    pub prompt: PromptConfig,
    /// The noise schedule.
    pub scheduler: SchedulerConfig,
    /// What the trained model does by default.
    pub defaults: EditDefaults,
    /// The networks by their stage.
    pub networks: BTreeMap<StageKind, NetworkConfig>,
    /// What is trained, in this order.
    pub stages: Vec<StageRecipe>,
    /// The model directories that are written at the end.
    pub models: Vec<ModelRecipe>,
}

/// Precision of arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainingPrecision {
    /// 32 bits.
    F32,
    /// 16 bits, with the exponent of 32.
    Bf16,
}

impl From<TrainingPrecision> for Precision {
    fn from(precision: TrainingPrecision) -> Self {
        match precision {
            TrainingPrecision::F32 => Self::F32,
            TrainingPrecision::Bf16 => Self::Bf16,
        }
    }
}

/// One stage of training.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageRecipe {
    /// The stage's own name, which its directory gets.
    pub name: String,
    /// What is learnt.
    pub objective: ObjectiveKind,
    /// The stages whose networks this one begins with, a later one before an earlier one; `stage/network` takes one
    /// network of a stage alone. What none of them trained begins anew.
    #[serde(default)]
    pub after: Vec<String>,
    /// Steps.
    pub steps: usize,
    /// Examples in a step.
    pub batch: usize,
    /// Highest learning rate of AdamW; Muon's is ten times it.
    pub learning_rate: f64,
    /// Which parameters Muon changes.
    pub optimizer: Rule,
    /// Steps in which the learning rate rises from 0.
    #[serde(default = "default_warmup")]
    pub warmup: usize,
    /// Part of the steps, at their end, over which the learning rate falls to 0.
    #[serde(default = "default_decay")]
    pub decay: f64,
    /// Norm to which gradients are scaled down together.
    #[serde(default = "default_clip")]
    pub clip_norm: f64,
    /// Factors of the objective's parts that are not 1, and other numbers that it takes.
    #[serde(default)]
    pub weights: BTreeMap<String, f64>,
}

fn default_warmup() -> usize {
    40
}

fn default_decay() -> f64 {
    0.4
}

fn default_clip() -> f64 {
    1.0
}

impl StageRecipe {
    /// The factor of a part of the loss, or another number of the objective's.
    pub fn weight(&self, name: &str) -> f64 {
        self.weights.get(name).copied().or_else(|| self.objective.default_weight(name)).unwrap_or(1.0)
    }

    /// Which requests are drawn, for objectives that take `complex` and `segmentation`.
    pub fn mixture(&self) -> Mixture {
        Mixture { complex: self.weight("complex"), segmentation: self.weight("segmentation") }
    }

    /// The learning rate in a step.
    pub fn learning_rate_at(&self, step: usize) -> f64 {
        let rise = ((step + 1) as f64 / self.warmup.max(1) as f64).min(1.0);
        let left = self.steps.saturating_sub(step) as f64 / (self.steps as f64 * self.decay).max(1.0);
        self.learning_rate * rise * left.min(1.0)
    }
}

/// What a stage learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectiveKind {
    /// Autoencoder: pictures from their latents.
    Vae,
    /// Towers of vision and text: which caption belongs to which picture, and what lies in each patch.
    Clip,
    /// Language model, projector: captions and answers (LLaVA).
    Llava,
    /// UNet on the text encoder's reading of the instruction (InstructPix2Pix).
    Editor,
    /// UNet on a condition made from the scene: what shall be drawn in cross-attention, where in the feature.
    Drawing,
    /// Language model, QFormer: the text encoder's states of a caption (the paper's first stage).
    Align,
    /// Language model, QFormer, interaction: the condition that [`ObjectiveKind::Drawing`] is given.
    Pointing,
    /// Everything together on the diffusion loss (the paper's second stage).
    Edit,
}

impl ObjectiveKind {
    /// The weights that the objective knows, with their defaults.
    pub fn known_weights(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Vae => &[("kl", 1e-4), ("object", 2.0), ("gradient", 0.5), ("square", 2.0)],
            Self::Clip => &[("contrast", 1.0), ("patch", 1.0)],
            Self::Llava => &[],
            Self::Editor => &[
                ("mask", 4.0),
                ("last_timestep", 0.5),
                ("drop", 0.05),
                ("complex", 1.0),
                ("segmentation", 0.0),
            ],
            Self::Drawing => &[("mask", 4.0), ("last_timestep", 0.5), ("drop", 0.05), ("jitter", 0.0)],
            Self::Align => &[("language", 1.0), ("text", 1.0)],
            Self::Pointing => &[
                ("language", 0.2),
                ("text", 1.0),
                ("feature", 1.0),
                ("attention", 0.2),
                ("gate", 1.0),
                ("answers", 0.25),
                ("complex", 1.0),
                ("segmentation", 0.0),
            ],
            Self::Edit => &[
                ("mask", 4.0),
                ("last_timestep", 0.5),
                ("drop", 0.05),
                ("language", 0.1),
                ("text", 0.0),
                ("feature", 0.0),
                ("attention", 0.0),
                ("gate", 0.0),
                ("diffusion", 1.0),
                ("lora", 1.0),
                ("language_rate", 1.0),
                ("connector_rate", 1.0),
                ("unet", 1.0),
                ("complex", 1.0),
                ("segmentation", 0.0),
            ],
        }
    }

    fn default_weight(self, name: &str) -> Option<f64> {
        self.known_weights().iter().find(|(known, _)| *known == name).map(|(_, default)| *default)
    }
}

/// A model directory to be written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    /// The directory's name.
    pub name: String,
    /// `smartedit` or `instruct-pix2pix`.
    pub kind: String,
    /// The stages whose networks it is made of, a later one before an earlier one.
    pub after: Vec<String>,
}

impl Recipe {
    /// Reads a recipe. One that names another as its `base` takes from there what it does not say itself; its
    /// networks replace those of the same name, and its stages follow those of the base.
    ///
    /// # Errors
    /// The file cannot be read or is none, or all that is wrong with what it says.
    pub fn read(path: &Path) -> Result<Self> {
        let recipe: Self = with_base(path, MAX_BASES)?
            .try_into()
            .with_context(|| format!("{} is no recipe", path.display()))?;
        let problems = recipe.problems();
        if problems.is_empty() {
            return Ok(recipe);
        }
        bail!("{}:\n- {}", path.display(), problems.join("\n- "))
    }

    /// The stages that the models are made of, and those before them, in their order.
    pub fn needed(&self) -> impl Iterator<Item = &StageRecipe> {
        let mut names: BTreeSet<&str> = self
            .models
            .iter()
            .flat_map(|model| &model.after)
            .map(|after| stage_and_network(after).0)
            .collect();
        for stage in self.stages.iter().rev() {
            if names.contains(stage.name.as_str()) {
                names.extend(stage.after.iter().map(|after| stage_and_network(after).0));
            }
        }
        self.stages.iter().filter(move |stage| names.contains(stage.name.as_str()))
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for kind in StageKind::ALL {
            match self.networks.get(&kind) {
                None => problems.push(format!("`networks.{kind}` is missing")),
                Some(config) if config.kind() != kind => {
                    problems.push(format!("`networks.{kind}` is a {}", config.kind()));
                }
                Some(config) => problems.extend(config.check_sizes().err()),
            }
        }
        let mut earlier = BTreeSet::new();
        for stage in &self.stages {
            let name = &stage.name;
            let unknown = stage.after.iter().filter(|after| !earlier.contains(stage_and_network(after).0));
            problems.extend(
                unknown.map(|after| format!("stage `{name}`: there is no stage `{after}` before it")),
            );
            let networks = stage.after.iter().filter_map(|after| Some((after, stage_and_network(after).1?)));
            let unknown = networks
                .filter(|(_, network)| StageKind::ALL.iter().all(|kind| kind.to_string() != *network));
            problems.extend(unknown.map(|(after, _)| format!("stage `{name}`: `{after}` names no network")));
            let known = stage.objective.known_weights();
            let unknown =
                stage.weights.keys().filter(|weight| known.iter().all(|(known, _)| known != weight));
            problems.extend(unknown.map(|weight| {
                let known: Vec<&str> = known.iter().map(|(known, _)| *known).collect();
                format!("stage `{name}`: there is no weight `{weight}`; known are {}", known.join(", "))
            }));
            if stage.steps == 0 || stage.batch == 0 {
                problems.push(format!("stage `{name}`: `steps` and `batch` must be positive"));
            }
            if !(stage.learning_rate > 0.0 && (0.0..=1.0).contains(&stage.decay) && stage.clip_norm > 0.0) {
                problems.push(format!(
                    "stage `{name}`: `learning_rate` and `clip_norm` must be positive, `decay` between 0 and 1"
                ));
            }
            if !earlier.insert(name.as_str()) {
                problems.push(format!("there are two stages `{name}`"));
            }
        }
        for model in &self.models {
            let unknown = model.after.iter().filter(|after| !earlier.contains(stage_and_network(after).0));
            problems
                .extend(unknown.map(|after| format!("model `{}`: there is no stage `{after}`", model.name)));
            if !["smartedit", "instruct-pix2pix"].contains(&model.kind.as_str()) {
                problems.push(format!(
                    "model `{}`: `kind` is neither smartedit nor instruct-pix2pix",
                    model.name
                ));
            }
        }
        problems
    }
}

/// The stage that an entry of `after` names, and the one network of it, if it names that.
pub(crate) fn stage_and_network(after: &str) -> (&str, Option<&str>) {
    after.split_once('/').map_or((after, None), |(stage, network)| (stage, Some(network)))
}

/// How many recipes may be each other's base.
const MAX_BASES: usize = 4;

fn with_base(path: &Path, bases: usize) -> Result<Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut own: Table = text.parse().with_context(|| format!("{} is no recipe", path.display()))?;
    let Some(base) = own.remove("base") else { return Ok(own) };
    let base = base.as_str().with_context(|| format!("{}: `base` is no file name", path.display()))?;
    ensure!(bases > 0, "{}: more than {MAX_BASES} recipes are each other's base", path.display());
    let base = path.parent().unwrap_or(Path::new("")).join(base);
    let mut recipe = with_base(&base, bases - 1)?;
    for (key, value) in own {
        match (key.as_str(), recipe.get_mut(&key), value) {
            ("networks", Some(Value::Table(networks)), Value::Table(own)) => networks.extend(own),
            ("stages", Some(Value::Array(stages)), Value::Array(own)) => stages.extend(own),
            (_, _, value) => drop(recipe.insert(key, value)),
        }
    }
    Ok(recipe)
}

impl Recipe {
    /// What adapters are multiplied with.
    pub(crate) fn lora_scale(&self) -> f64 {
        self.lora_alpha / self.lora_rank.max(1) as f64
    }

    /// Gives the language model and the text encoder as many tokens as their tokenizers have.
    pub(crate) fn fit_vocabularies(&mut self, llama: usize, clip: usize) {
        for config in self.networks.values_mut() {
            match config {
                NetworkConfig::LanguageModel(config) => config.vocab_size = llama,
                NetworkConfig::TextEncoder(config) => config.vocab_size = clip,
                _ => {}
            }
        }
    }
}
