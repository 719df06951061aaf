//! Programs in the place of the language model and the denoiser, which keep nothing between calls.
//!
//! The program is the network itself, begun anew with every call, so an edit must come out as if there were none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use smartedit_core::engine::{EngineError, Result};
use smartedit_core::model::NetworkConfig;
use smartedit_core::pipeline::Model;
use smartedit_core::stage::{LoadError, Program, Stage, StageKind};
use smartedit_core::stages::program::{self, Input, Runner};
use smartedit_core::tensor::Tensors;
use smartedit_tests::engines::Row;
use smartedit_tests::golden::{converted, load};
use smartedit_tests::tolerance::psnr;

use crate::replay::edit;

smartedit_tests::matrix!(row: an_edit_with_programs);

/// A stage as a program with names of its own.
struct Anew {
    stage: Arc<dyn Stage>,
    inputs: Vec<Input>,
    batches: bool,
}

/// What the program calls an input or output of the stage.
fn own(name: &str) -> String {
    format!("my_{name}")
}

impl Runner for Anew {
    fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    fn outputs(&self) -> Option<&[String]> {
        None
    }

    fn batches(&self) -> bool {
        self.batches
    }

    fn run(&self, inputs: &Tensors) -> Result<Tensors> {
        let mut renamed = Tensors::new();
        for (name, tensor) in inputs.iter() {
            renamed.insert(name.trim_start_matches("my_"), tensor.clone());
        }
        let outputs = self.stage.session().run(&renamed);
        let outputs = outputs.map_err(|error| EngineError::new("program", error))?;
        let mut renamed = Tensors::new();
        for (name, tensor) in outputs.iter() {
            renamed.insert(&own(name), tensor.clone());
        }
        Ok(renamed)
    }
}

/// The stage, or, of those that keep something between calls, a program in its place, which takes any number of rows or
/// does not say so.
fn replaced(
    stage: Arc<dyn Stage>,
    config: &NetworkConfig,
    batches: bool,
) -> std::result::Result<Arc<dyn Stage>, LoadError> {
    let (inputs, outputs): (&[&str], &[&str]) = match stage.info().kind {
        StageKind::LanguageModel => {
            (&["input_ids", "image_features", "image_position"], &["hidden_states", "logits"])
        }
        StageKind::Denoiser => {
            (&["sample", "timestep", "prompt_embeds", "image_feature"], &["noise_prediction"])
        }
        _ => return Ok(stage),
    };
    let names = |names: &[&str]| -> BTreeMap<String, String> {
        names.iter().map(|name| ((*name).to_owned(), own(name))).collect()
    };
    let program = Program { file: PathBuf::from("anew"), inputs: names(inputs), outputs: names(outputs) };
    let inputs =
        inputs.iter().map(|name| Input { name: own(name), required: *name != "image_feature" }).collect();
    let info = stage.info().clone();
    program::load(Anew { stage, inputs, batches }, &program, config, info)
}

/// A model with programs in the place of language model and denoiser.
pub(crate) fn with_programs(row: &Row, directory: &Path, batches: bool) -> Arc<Model> {
    let load_replaced = |config: &NetworkConfig, weights: &_| {
        replaced(row.backend.load(config, weights, &row.options)?, config, batches)
    };
    Arc::new(Model::load(directory, load_replaced).unwrap_or_else(|e| panic!("{e}")))
}

fn an_edit_with_programs(row: &Row) {
    let directory = converted().smartedit();
    let (found, _) = edit(&with_programs(row, &directory, false));
    let (expected, _) = edit(&load(row, &directory));
    assert_eq!(found.reply, expected.reply);
    let ratio = psnr(&found.image, &expected.image);
    assert!(ratio >= 60.0, "{}: {ratio:.1} dB", row.name);
}
