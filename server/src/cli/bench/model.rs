//! A model of a preset's sizes with pseudo-random weights.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use smartedit_core::engine::Precision;
use smartedit_core::model::{
    ModelConfig, NetworkConfig, PipelineConfig, Preset, PromptConfig, PromptTemplate,
};
use smartedit_core::networks::{manifest, random_weights, random_weights_that_reply};
use smartedit_core::pipeline::{Model, Tokenizers};
use smartedit_core::stage::{Backend, Stage, StageKind, StageOptions};
use smartedit_core::text::{ClipTokenizer, LlamaTokenizer};
use smartedit_core::weights::{self, WeightFile};

use super::reply::Reply;

/// The tokenizers of the repository's small models.
const TOKENIZERS: [(&str, &[u8]); 4] = [
    ("tokenizer.model", include_bytes!("../../../../models/tiny-random/tokenizer.model")),
    ("vocab.json", include_bytes!("../../../../models/tiny-random/clip_tokenizer/vocab.json")),
    ("merges.txt", include_bytes!("../../../../models/tiny-random/clip_tokenizer/merges.txt")),
    (
        "special_tokens_map.json",
        include_bytes!("../../../../models/tiny-random/clip_tokenizer/special_tokens_map.json"),
    ),
];

/// Short enough that the prompt has about as many tokens as the release's with LLaMA's tokenizer.
const SYSTEM: &str = "A chat between a curious user and an artificial intelligence assistant. \
The assistant can generate <img>.";
const HUMAN: &str = "Here is a picture and a wish [cap]. Draw the new picture, please.";
/// No token of it occurs twice, which is what lets random weights give it: see [`Reply`].
const GPT: &str = "Gladly, this is the new picture you asked for [img].";
/// The instruction of every measured edit.
pub(super) const INSTRUCTION: &str = "Change the left cat to a fox";

/// Networks without weights yet.
pub(super) struct RandomModel {
    preset: Preset,
    config: ModelConfig,
    precision: Precision,
    seed: u64,
}

impl RandomModel {
    pub(super) fn new(preset: Preset, precision: Precision, seed: u64) -> Self {
        let mut config = preset.config();
        if let PipelineConfig::SmartEdit { prompt, .. } = &mut config.pipeline {
            let template = PromptTemplate { human: HUMAN.to_owned(), gpt: GPT.to_owned() };
            *prompt =
                PromptConfig { system: SYSTEM.to_owned(), templates: vec![template], replies: Vec::new() };
        }
        Self { preset, config, precision, seed }
    }

    /// Gives the language model another number of layers.
    pub(super) fn set_layers(&mut self, layers: usize) -> Result<(), String> {
        match self.config.stages.get_mut(&StageKind::LanguageModel).map(|stage| &mut stage.network) {
            Some(NetworkConfig::LanguageModel(llama)) => {
                llama.num_layers = layers;
                Ok(())
            }
            _ => {
                Err(format!("the preset {} has no language model whose --layers to set", self.preset.name()))
            }
        }
    }

    pub(super) fn preset(&self) -> Preset {
        self.preset
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// The network of a stage; `None` if the preset has no such stage.
    pub(super) fn network(&self, kind: StageKind) -> Option<&NetworkConfig> {
        self.config.stages.get(&kind).map(|stage| &stage.network)
    }

    /// The networks of all stages.
    pub(super) fn networks(&self) -> impl Iterator<Item = &NetworkConfig> {
        self.config.stages.values().map(|stage| &stage.network)
    }

    /// Bytes that the parameters of networks take.
    pub(super) fn weight_bytes(&self, networks: &[&NetworkConfig]) -> weights::Result<u64> {
        let width = if self.precision == Precision::F32 { 4 } else { 2 };
        networks.iter().try_fold(0, |total, network| {
            let elements: usize =
                manifest(network)?.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
            Ok(total + width * elements as u64)
        })
    }

    /// The reply that the language model will give; `None` without a language model.
    pub(super) fn reply(&self, tokenizers: &Tokenizers) -> anyhow::Result<Option<Reply>> {
        match (&self.config.pipeline, &tokenizers.llama) {
            (PipelineConfig::SmartEdit { prompt, .. }, Some(tokenizer)) => {
                Reply::new(tokenizer, &prompt.system, &prompt.templates[0]).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Makes the weights of a stage and loads them.
    pub(super) fn load(
        &self,
        network: &NetworkConfig,
        reply: Option<&Reply>,
        backend: &dyn Backend,
        options: &StageOptions,
    ) -> anyhow::Result<Arc<dyn Stage>> {
        let weights = self.weights(network, reply)?;
        Ok(backend.load(network, &weights, options)?)
    }

    /// Makes all weights, and a model of them.
    pub(super) fn assemble(
        &self,
        backend: &dyn Backend,
        options: &StageOptions,
    ) -> anyhow::Result<Arc<Model>> {
        let tokenizers = tokenizers(&self.config)?;
        let reply = self.reply(&tokenizers)?;
        let stages = self
            .networks()
            .map(|network| Ok((network.kind(), self.load(network, reply.as_ref(), backend, options)?)))
            .collect::<anyhow::Result<BTreeMap<_, _>>>()?;
        Ok(Arc::new(Model::assemble(self.config.clone(), tokenizers, stages)?))
    }

    /// The tokenizers of the preset's pipeline.
    pub(super) fn tokenizers(&self) -> anyhow::Result<Tokenizers> {
        tokenizers(&self.config)
    }

    fn weights(&self, network: &NetworkConfig, reply: Option<&Reply>) -> weights::Result<WeightFile> {
        match (network, reply) {
            (NetworkConfig::LanguageModel(llama), Some(reply)) => {
                random_weights_that_reply(llama, self.precision, self.seed, &reply.chain())
            }
            _ => random_weights(network, self.precision, self.seed),
        }
    }
}

fn tokenizers(config: &ModelConfig) -> anyhow::Result<Tokenizers> {
    let directory = tempfile::tempdir().context("cannot make a directory for tokenizer files")?;
    for (name, content) in TOKENIZERS {
        std::fs::write(directory.path().join(name), content).context("cannot write tokenizer files")?;
    }
    let llama = match config.pipeline {
        PipelineConfig::SmartEdit { .. } => {
            Some(LlamaTokenizer::from_file(&directory.path().join("tokenizer.model"))?)
        }
        PipelineConfig::InstructPix2Pix { .. } => None,
    };
    Ok(Tokenizers { clip: ClipTokenizer::from_directory(directory.path())?, llama })
}
