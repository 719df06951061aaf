//! A loaded model: configuration, tokenizers and stages.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ndarray::{Array2, ArrayD};

use super::adapted::Adapted;
use super::caching::{Caching, KEPT, identity};
use super::prefix::Prefixes;
use crate::adapter::{ADAPTED, AdapterChoice, Strength};
use crate::cache::StageCache;
use crate::model::{
    DirectoryError, InteractionConfig, LlamaConfig, ModelConfig, ModelDirectory, NetworkConfig,
    PipelineConfig, PromptConfig, TextConfig, UnetConfig, VaeConfig, VisionConfig,
};
use crate::pipeline::{Edit, EditError, EditRequest};
use crate::stage::{LoadError, Stage, StageError, StageInfo, StageKind, StageOptions};
use crate::tensor::Tensors;
use crate::text::{ClipTokenizer, LlamaTokenizer, TextError, reply_tokens};
use crate::weights::WeightFile;

/// A model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A tokenizer cannot be used.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A stage cannot be loaded.
    #[error(transparent)]
    Stage(#[from] LoadError),
    /// A stage failed on its first run.
    #[error(transparent)]
    Run(#[from] StageError),
    /// What computes a stage cannot be told.
    #[error("cannot read the program of {stage}: {source}")]
    Identity {
        /// The stage.
        stage: StageKind,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Stages, tokenizers and pipeline of the directory do not fit together.
    #[error("the model is inconsistent: {0}")]
    Inconsistent(String),
}

/// A model directory with all stages loaded; shared by all requests.
pub struct Model {
    config: Arc<ModelConfig>,
    stages: BTreeMap<StageKind, Arc<dyn Stage>>,
    pub(super) sizes: Sizes,
    pub(super) clip_tokenizer: Arc<ClipTokenizer>,
    pub(super) family: Family,
    pub(super) caching: Option<Caching>,
    pub(super) prefixes: Option<Prefixes>,
    pub(super) adapted: Adapted,
}

/// The tokenizers of a model.
pub struct Tokenizers {
    /// CLIP's.
    pub clip: ClipTokenizer,
    /// The language model's, where the pipeline has one.
    pub llama: Option<LlamaTokenizer>,
}

/// What an edit needs to know of the networks.
#[derive(Clone)]
pub(super) struct Sizes {
    pub(super) text: TextConfig,
    pub(super) vae: VaeConfig,
}

/// What sets the pipelines apart.
#[derive(Clone)]
pub(super) enum Family {
    SmartEdit(Arc<SmartEdit>),
    InstructPix2Pix,
}

/// What only SmartEdit has.
pub(super) struct SmartEdit {
    pub(super) vision: VisionConfig,
    pub(super) tokenizer: LlamaTokenizer,
    pub(super) prompt: PromptConfig,
    /// Replies that are expected of any template, and the reply that each template was trained with, as tokens.
    replies: Replies,
    /// Positions that the language model has.
    pub(super) max_positions: usize,
    /// The text encoder's states of the empty text, `[1, n, c]`.
    pub(super) null_embeds: ArrayD<f32>,
}

struct Replies {
    any: Vec<Vec<u32>>,
    trained: Vec<Vec<u32>>,
}

impl Replies {
    fn new(prompt: &PromptConfig, tokenizer: &LlamaTokenizer) -> Result<Self, TextError> {
        let any = prompt.replies.iter().map(|reply| reply_tokens(reply, tokenizer));
        let trained = prompt.templates.iter().map(|template| reply_tokens(&template.gpt, tokenizer));
        Ok(Self { any: any.collect::<Result<_, _>>()?, trained: trained.collect::<Result<_, _>>()? })
    }
}

impl SmartEdit {
    /// What the reply to a template may be, the likeliest first.
    pub(super) fn drafts(&self, template: usize) -> Vec<Vec<u32>> {
        let Replies { any, trained } = &self.replies;
        any.iter().chain(trained.get(template)).chain(trained).cloned().collect()
    }
}

impl Model {
    /// Loads a model directory; `load` turns each stage's network and weights into a stage on an engine.
    pub fn load(
        directory: &Path,
        load: impl FnMut(&NetworkConfig, &WeightFile) -> Result<Arc<dyn Stage>, LoadError>,
    ) -> Result<Self, ModelError> {
        Self::load_adapted(directory, None, load)
    }

    /// The same with an adapter merged into the weights, which edits have that choose no other.
    pub fn load_adapted(
        directory: &Path,
        merged: Option<Strength>,
        mut load: impl FnMut(&NetworkConfig, &WeightFile) -> Result<Arc<dyn Stage>, LoadError>,
    ) -> Result<Self, ModelError> {
        let directory = ModelDirectory::open(directory)?;
        let config = directory.config().clone();
        check(&config)?;

        let mut stages = BTreeMap::new();
        for (&kind, stage) in &config.stages {
            let weights = directory.stage_weights(kind).ok_or_else(|| lacks(kind))?;
            let mut weights = weights.map_err(|source| LoadError::Weights { stage: kind, source })?;
            if let Some(update) = merged.as_ref().and_then(|merged| merged.update(kind)) {
                weights = weights.with_update(update);
            }
            stages.insert(kind, load(&stage.network, &weights)?);
        }

        let tokenizers = Tokenizers {
            clip: ClipTokenizer::from_directory(&directory.clip_tokenizer())?,
            llama: directory.tokenizer().map(|path| LlamaTokenizer::from_file(&path)).transpose()?,
        };
        if let Some((tokens, rows)) = vocabularies(&config, &tokenizers) {
            agree("vocabulary", ("language model", rows), ("tokenizer", tokens))?;
        }
        let model = Self::assemble(config, tokenizers, stages)?;
        Ok(Self { adapted: Adapted::beside(merged), ..model })
    }

    /// Puts loaded stages and tokenizers together, from wherever they come. The language model's vocabulary may
    /// exceed its tokenizer's.
    pub fn assemble(
        config: ModelConfig,
        tokenizers: Tokenizers,
        stages: BTreeMap<StageKind, Arc<dyn Stage>>,
    ) -> Result<Self, ModelError> {
        check(&config)?;
        if let Some(&kind) = needed(&config.pipeline).iter().find(|kind| !stages.contains_key(kind)) {
            return Err(lacks(kind));
        }
        if let Some((tokens, rows)) = vocabularies(&config, &tokenizers)
            && tokens > rows
        {
            let message = format!("the language model has {rows} tokens, its tokenizer {tokens}");
            return Err(ModelError::Inconsistent(message));
        }
        let sizes = Sizes { text: text(&config)?, vae: vae(&config)? };
        let family = match (&config.pipeline, tokenizers.llama) {
            (PipelineConfig::SmartEdit { prompt, .. }, Some(tokenizer)) => {
                let ids = tokenizers.clip.encode("", sizes.text.max_positions)?;
                let null_embeds = text_embeds(&stages, vec![ids])?;
                Family::SmartEdit(Arc::new(SmartEdit {
                    vision: vision(&config)?,
                    replies: Replies::new(prompt, &tokenizer)?,
                    tokenizer,
                    prompt: prompt.clone(),
                    max_positions: llama(&config)?.max_positions,
                    null_embeds,
                }))
            }
            (PipelineConfig::SmartEdit { .. }, None) => {
                return Err(ModelError::Inconsistent("it lacks the language model's tokenizer".to_owned()));
            }
            (PipelineConfig::InstructPix2Pix { .. }, _) => Family::InstructPix2Pix,
        };
        Ok(Self {
            config: Arc::new(config),
            stages,
            sizes,
            clip_tokenizer: Arc::new(tokenizers.clip),
            family,
            caching: None,
            prefixes: None,
            adapted: Adapted::default(),
        })
    }

    /// Keeps what the stages before the denoiser make in a cache, which may be shared with other models. `options`
    /// are those with which a stage was loaded: together with the weights' digests they tell what computes a result. Stages whose
    /// weights have no digest, because they come from no model directory, are computed each time.
    ///
    /// # Errors
    /// A stage's program cannot be read.
    pub fn with_cache(
        mut self,
        cache: Arc<StageCache>,
        options: impl Fn(StageKind) -> StageOptions,
    ) -> Result<Self, ModelError> {
        let mut identities = BTreeMap::new();
        for stage in self.stages.values().map(|stage| stage.info()).filter(|info| KEPT.contains(&info.kind)) {
            let identity = identity(&self.config, stage, &options(stage.kind));
            let identity = identity.map_err(|source| ModelError::Identity { stage: stage.kind, source })?;
            let identity = identity.map(|identity| self.adapted.identity(stage.kind, identity));
            identities.extend(identity.map(|identity| (stage.kind, identity)));
        }
        self.caching = Some(Caching { cache, identities });
        Ok(self)
    }

    /// Keeps the language model's keys and values of prompts' beginnings (the text before the picture; that and the
    /// picture), so many bytes of them at most, where the stage is computed. With 0, or where the language model's
    /// engine cannot share them, whole prompts are fed in one pass instead.
    #[must_use]
    pub fn with_prefixes(mut self, max_bytes: usize) -> Self {
        let stage = self.stage(StageKind::LanguageModel);
        let can = max_bytes > 0 && stage.is_some_and(|stage| stage.session().fork().is_some());
        let precision = stage.map(|stage| stage.info().precision).unwrap_or_default();
        self.prefixes = match llama(&self.config) {
            Ok(config) if can => Some(Prefixes::new(max_bytes, &config, precision)),
            _ => None,
        };
        self
    }

    /// The content of `model.json`.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What computes each stage.
    pub fn stages(&self) -> Vec<&StageInfo> {
        self.stages.values().map(|stage| stage.info()).collect()
    }

    /// A stage, if the pipeline has it.
    pub fn stage(&self, kind: StageKind) -> Option<&Arc<dyn Stage>> {
        self.stages.get(&kind)
    }

    /// Checks a request and prepares its edit; runs no stage yet.
    pub fn edit(self: &Arc<Self>, request: EditRequest) -> Result<Edit, EditError> {
        let model = self.adapted(&request.options.adapter);
        let model = model.map_err(|error| EditError::Adapter(Box::new(error)))?;
        Edit::new(model, request)
    }

    /// The adapter that is merged into the weights.
    pub fn merged_adapter(&self) -> Option<&Strength> {
        self.adapted.merged()
    }

    /// Whether edits may choose this adapter: their stages can be had with updates.
    ///
    /// # Errors
    ///
    /// [`LoadError::Fixed`] with the stage that cannot.
    pub fn can_adapt(&self, choice: &AdapterChoice) -> Result<(), LoadError> {
        for added in choice.beside(self.adapted.merged()) {
            for (kind, _) in added.adapter.stages() {
                if let Some(stage) = self.stages.get(&kind).filter(|stage| !stage.updates()) {
                    return Err(LoadError::Fixed { engine: stage.info().engine, stage: kind });
                }
            }
        }
        Ok(())
    }

    /// The model as an adapter makes it: all else, weights included, is shared with this one. As long as one is in use
    /// it is handed out again.
    ///
    /// # Errors
    ///
    /// A stage cannot be had with updates.
    pub fn adapted(self: &Arc<Self>, choice: &AdapterChoice) -> Result<Arc<Self>, LoadError> {
        let added = choice.beside(self.adapted.merged());
        if added.is_empty() {
            return Ok(self.clone());
        }
        self.adapted.get_or_make(&added, || {
            let mut stages = self.stages.clone();
            for kind in ADAPTED {
                let updates: Vec<_> = added.iter().filter_map(|added| added.update(kind)).collect();
                if let Some(stage) = stages.get_mut(&kind).filter(|_| !updates.is_empty()) {
                    *stage = stage.updated(&updates)?;
                }
            }
            let adapts_language = added.iter().any(|added| added.update(StageKind::LanguageModel).is_some());
            Ok(Arc::new(Self {
                config: self.config.clone(),
                stages,
                sizes: self.sizes.clone(),
                clip_tokenizer: self.clip_tokenizer.clone(),
                family: self.family.clone(),
                caching: self.caching.as_ref().map(|caching| caching.adapted(&added)),
                prefixes: self.prefixes.as_ref().map(|prefixes| match adapts_language {
                    true => prefixes.of_another(),
                    false => prefixes.shared(),
                }),
                adapted: Adapted::of(&added),
            }))
        })
    }

    /// A stage of which [`Model::load`] made sure that it is there.
    pub(super) fn required(&self, kind: StageKind) -> &dyn Stage {
        self.stages.get(&kind).expect("a model has all stages of its pipeline").as_ref()
    }
}

/// The stages that a pipeline runs.
fn needed(pipeline: &PipelineConfig) -> &'static [StageKind] {
    match pipeline {
        PipelineConfig::SmartEdit { .. } => &StageKind::ALL,
        PipelineConfig::InstructPix2Pix { .. } => {
            &[StageKind::TextEncoder, StageKind::VaeEncoder, StageKind::Denoiser, StageKind::VaeDecoder]
        }
    }
}

fn check(config: &ModelConfig) -> Result<(), ModelError> {
    let needed = needed(&config.pipeline);
    let missing: Vec<&str> =
        needed.iter().filter(|kind| !config.stages.contains_key(kind)).map(|kind| kind.name()).collect();
    if !missing.is_empty() {
        return Err(ModelError::Inconsistent(format!("it lacks the stages {}", missing.join(", "))));
    }
    let surplus: Vec<&str> =
        config.stages.keys().filter(|kind| !needed.contains(kind)).map(|kind| kind.name()).collect();
    if !surplus.is_empty() {
        return Err(ModelError::Inconsistent(format!("it has no use for the stages {}", surplus.join(", "))));
    }
    let (unet, text, vae) = (unet(config)?, text(config)?, vae(config)?);
    agree("latent channels", ("denoiser", unet.in_channels), ("VAE", 2 * vae.latent_channels))?;
    agree("predicted channels", ("denoiser", unet.out_channels), ("VAE", vae.latent_channels))?;
    agree("width", ("denoiser", unet.cross_attention_dim), ("text encoder", text.hidden_size))?;
    if let PipelineConfig::SmartEdit { prompt, .. } = &config.pipeline {
        check_smartedit(config, &unet)?;
        if prompt.templates.is_empty() {
            return Err(ModelError::Inconsistent("it has no prompt template".to_owned()));
        }
    }
    Ok(())
}

fn check_smartedit(config: &ModelConfig, unet: &UnetConfig) -> Result<(), ModelError> {
    let vision = vision(config)?;
    let features = (vision.image_size / vision.patch_size.max(1)).pow(2);
    agree("width", ("language model", llama(config)?.vision_size), ("vision encoder", vision.hidden_size))?;
    let Some(NetworkConfig::Connector(connector)) = network(config, StageKind::Connector) else {
        return Ok(());
    };
    agree("width", ("connector", connector.qformer.hidden_size), ("denoiser", unet.cross_attention_dim))?;
    if let InteractionConfig::Bim(bim) = &connector.interaction {
        agree("width", ("BIM", bim.vision_size), ("vision encoder", vision.hidden_size))?;
        agree("features", ("BIM", bim.grid_size.pow(2)), ("vision encoder", features))?;
        let first = unet.block_channels.first().copied().unwrap_or(0);
        agree("channels", ("BIM", bim.feature_channels), ("denoiser", first))?;
    }
    Ok(())
}

fn agree(what: &str, a: (&str, usize), b: (&str, usize)) -> Result<(), ModelError> {
    if a.1 == b.1 {
        return Ok(());
    }
    Err(ModelError::Inconsistent(format!("{what}: {} has {}, {} has {}", a.0, a.1, b.0, b.1)))
}

/// Tokens of the language model's tokenizer, and rows of its embedding table.
fn vocabularies(config: &ModelConfig, tokenizers: &Tokenizers) -> Option<(usize, usize)> {
    match network(config, StageKind::LanguageModel) {
        Some(NetworkConfig::LanguageModel(llama)) => {
            Some((tokenizers.llama.as_ref()?.vocab_size(), llama.vocab_size))
        }
        _ => None,
    }
}

fn network(config: &ModelConfig, kind: StageKind) -> Option<&NetworkConfig> {
    config.stages.get(&kind).map(|stage| &stage.network)
}

fn lacks(kind: StageKind) -> ModelError {
    ModelError::Inconsistent(format!("it lacks the stage {kind}"))
}

fn text(config: &ModelConfig) -> Result<TextConfig, ModelError> {
    match network(config, StageKind::TextEncoder) {
        Some(NetworkConfig::TextEncoder(text)) => Ok(text.clone()),
        _ => Err(lacks(StageKind::TextEncoder)),
    }
}

fn vae(config: &ModelConfig) -> Result<VaeConfig, ModelError> {
    match network(config, StageKind::VaeDecoder) {
        Some(NetworkConfig::VaeDecoder(vae)) => Ok(vae.clone()),
        _ => Err(lacks(StageKind::VaeDecoder)),
    }
}

fn unet(config: &ModelConfig) -> Result<UnetConfig, ModelError> {
    match network(config, StageKind::Denoiser) {
        Some(NetworkConfig::Denoiser(unet)) => Ok(unet.clone()),
        _ => Err(lacks(StageKind::Denoiser)),
    }
}

fn llama(config: &ModelConfig) -> Result<LlamaConfig, ModelError> {
    match network(config, StageKind::LanguageModel) {
        Some(NetworkConfig::LanguageModel(llama)) => Ok(llama.clone()),
        _ => Err(lacks(StageKind::LanguageModel)),
    }
}

fn vision(config: &ModelConfig) -> Result<VisionConfig, ModelError> {
    match network(config, StageKind::VisionEncoder) {
        Some(NetworkConfig::VisionEncoder(vision)) => Ok(vision.clone()),
        _ => Err(lacks(StageKind::VisionEncoder)),
    }
}

fn text_embeds(
    stages: &BTreeMap<StageKind, Arc<dyn Stage>>,
    texts: Vec<Vec<u32>>,
) -> Result<ArrayD<f32>, ModelError> {
    let stage = stages.get(&StageKind::TextEncoder).ok_or_else(|| lacks(StageKind::TextEncoder))?;
    let mut outputs = stage.session().run(&Tensors::new().with("input_ids", token_ids(&texts)))?;
    let embeds = outputs.take_f32("hidden_states");
    embeds.map_err(|source| StageError::Tensors { stage: StageKind::TextEncoder, source }.into())
}

/// Texts of equal length as a stage takes them: `[texts, n]`.
pub(super) fn token_ids(texts: &[Vec<u32>]) -> Array2<i64> {
    let length = texts.first().map_or(0, Vec::len);
    Array2::from_shape_fn((texts.len(), length), |(text, token)| i64::from(texts[text][token]))
}
