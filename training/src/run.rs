//! A recipe from its first stage to the model directories.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use smartedit_core::text::{ClipTokenizer, LlamaTokenizer};

use crate::lab::Lab;
use crate::machine::Machine;
use crate::parameters::Parameters;
use crate::recipe::{ModelRecipe, Recipe, StageRecipe, stage_and_network};
use crate::trainer::{Files, Trainer};
use crate::{ship, vocabulary, world};

/// A recipe being followed in a directory.
pub struct Run {
    lab: Lab,
    directory: PathBuf,
    tokenizers: BTreeMap<String, String>,
}

impl Run {
    /// Prepares the directory.
    ///
    /// # Errors
    /// Files cannot be written.
    pub fn new(mut recipe: Recipe, directory: PathBuf, threads: NonZeroUsize) -> Result<Self> {
        let speech = recipe
            .prompt
            .templates
            .iter()
            .flat_map(|template| [template.human.clone(), template.gpt.clone()]);
        let speech = speech.chain([recipe.prompt.system.clone(), "USER: \"\" ASSISTANT:".to_owned()]);
        // Later stages must read texts as earlier ones did, whatever has become of the world's texts since.
        let tokenizers = match vocabulary::read(&directory)? {
            Some(files) => files,
            None => {
                let files = vocabulary::tokenizer_files(world::corpus().chain(speech))?;
                vocabulary::write(&files, &directory)?;
                files
            }
        };
        let tokenizer = LlamaTokenizer::from_file(&directory.join("tokenizer.json"))?;
        let clip_tokenizer = ClipTokenizer::from_directory(&directory.join("clip_tokenizer"))?;
        recipe.fit_vocabularies(tokenizer.vocab_size(), clip_vocabulary(&tokenizers)?);
        let machine = Machine::cpu(recipe.precision.into(), threads);
        let lab = Lab::new(recipe, machine, tokenizer, clip_tokenizer, directory.join("encoded"))?;
        Ok(Self { lab, directory, tokenizers })
    }

    /// Where things are computed.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Trains the named stages, or all that the models need.
    ///
    /// # Errors
    /// A stage that others need has not been trained, or training fails.
    pub fn train(&self, only: &[String], resume: bool) -> Result<()> {
        let recipe = &self.lab.recipe;
        let stages: Vec<&StageRecipe> = match only.is_empty() {
            true => recipe.needed().collect(),
            false => recipe.stages.iter().filter(|stage| only.contains(&stage.name)).collect(),
        };
        for stage in stages {
            let done = Files::new(&self.directory, &stage.name).result().exists();
            if resume && done {
                continue;
            }
            let parameters = self.parameters(&stage.after)?;
            Trainer::new(&self.lab, stage, &self.directory, parameters, resume)
                .and_then(Trainer::run)
                .with_context(|| format!("stage `{}`", stage.name))?;
        }
        Ok(())
    }

    /// What stages have trained, a later one before an earlier one; `stage/network` is one network of a stage.
    ///
    /// # Errors
    /// A stage has not been trained.
    pub fn parameters(&self, stages: &[String]) -> Result<Parameters> {
        let mut parameters = Parameters::default();
        for stage in &self.lab.recipe.stages {
            let entries = stages.iter().map(|after| stage_and_network(after));
            let networks: Vec<Option<&str>> =
                entries.filter(|(name, _)| *name == stage.name).map(|(_, network)| network).collect();
            if networks.is_empty() {
                continue;
            }
            let file = Files::new(&self.directory, &stage.name).result();
            if !file.exists() {
                bail!("stage `{}` has not been trained yet: {} is missing", stage.name, file.display());
            }
            let mut trained = Parameters::load(&file)?;
            // An entry without a network means all of them.
            if let Some(networks) = networks.into_iter().collect::<Option<Vec<&str>>>() {
                trained.keep(&networks);
            }
            parameters.take(trained);
        }
        Ok(parameters)
    }

    /// Writes the model directories.
    ///
    /// # Errors
    /// A stage has not been trained, or a directory exists.
    pub fn ship(&self, models: &Path) -> Result<()> {
        for model in &self.lab.recipe.models {
            self.ship_model(model, &models.join(&model.name))?;
        }
        Ok(())
    }

    fn ship_model(&self, model: &ModelRecipe, out: &Path) -> Result<()> {
        let parameters = self.parameters(&model.after)?;
        ship::ship(&self.lab.recipe, model, &parameters, &self.tokenizers, out)
            .with_context(|| format!("model `{}`", model.name))
    }
}

fn clip_vocabulary(files: &BTreeMap<String, String>) -> Result<usize> {
    let vocabulary = files.get("clip_tokenizer/vocab.json").context("the tokenizer has a vocabulary")?;
    let vocabulary: BTreeMap<String, u32> = serde_json::from_str(vocabulary)?;
    Ok(vocabulary.len())
}
