//! A user's own program in the place of a network.
//!
//! A program is one pure function: it keeps nothing between calls. What calls of a stage build on is therefore kept by
//! the session and handed over every time: a denoiser gets the conditioning with each step, a language model
//! everything that was fed so far, whose states and logits it gives for every position. Where requests share a run of a
//! denoiser, every row of its inputs belongs to one of them.
//!
//! | program of | inputs | outputs |
//! | --- | --- | --- |
//! | language model | `input_ids [1, n]`, `image_features [1, p, e]`, `image_position [1]`, `logits_from [1]` if the program takes it | `hidden_states [1, n + p, h]`, `logits [1, n + p, v]`, or those from position `logits_from` on |
//! | denoiser | `sample [b, 8, h, w]`, `timestep [b]`, `prompt_embeds [b, q, c]`, `image_feature [1 or b, c0, g, g]` if the model has one | `noise_prediction [b, 4, h, w]` |
//! | another stage | as in the table of [`crate::stage`] | as there |

mod executor;
mod language_model;
mod shapes;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::executor::Names;
use self::executor::ProgramExecutor;
use self::language_model::Recompute;
use super::denoiser::Denoise;
use super::placed;
use super::signature::{Signature, stateless};
use super::whole::Whole;
use crate::engine::Result;
use crate::model::NetworkConfig;
use crate::stage::{LoadError, Program, Stage, StageInfo};
use crate::tensor::Tensors;

/// A loaded program, as a backend provides it: named host tensors in, named host tensors out.
pub trait Runner: Send + Sync + 'static {
    /// What the program takes.
    fn inputs(&self) -> &[Input];

    /// The names of what it gives; `None` if its format does not say.
    fn outputs(&self) -> Option<&[String]>;

    /// Whether the first dimension of every input may have any size, so that requests can share a run. A format that
    /// does not say does not promise it.
    fn batches(&self) -> bool {
        false
    }

    /// Runs the program once.
    fn run(&self, inputs: &Tensors) -> Result<Tensors>;
}

/// An input of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The program's name of it.
    pub name: String,
    /// Whether the program cannot run without it.
    pub required: bool,
}

/// The names under which a program in the place of `config` gives its outputs, in the stage's order. `names` are those
/// that differ from the stage's.
pub fn output_names(config: &NetworkConfig, names: &BTreeMap<String, String>) -> Vec<String> {
    let own = |name: &&str| names.get(*name).cloned().unwrap_or_else(|| (*name).to_owned());
    outputs(config).iter().map(own).collect()
}

/// Makes a stage of a program that takes the place of the network of `config`. `info` is what the stage reports of
/// itself.
///
/// # Errors
///
/// Inputs or outputs of the program are not those of the stage, or `program` maps names that the stage has not got.
pub fn load(
    runner: impl Runner,
    program: &Program,
    config: &NetworkConfig,
    info: StageInfo,
) -> std::result::Result<Arc<dyn Stage>, LoadError> {
    let names = Names { inputs: &program.inputs, outputs: &program.outputs };
    bind(runner, names, config, info).map_err(|message| program.unfit(config.kind(), message))
}

/// As [`load`], of a program that is in no file.
///
/// # Errors
///
/// What does not fit.
pub fn bind(
    runner: impl Runner,
    names: Names<'_>,
    config: &NetworkConfig,
    info: StageInfo,
) -> std::result::Result<Arc<dyn Stage>, String> {
    let batches = runner.batches();
    let executor = ProgramExecutor::new(runner, names, config)?;
    Ok(match config {
        NetworkConfig::LanguageModel(config) => placed(executor, Recompute::new(config), info),
        NetworkConfig::Denoiser(config) => placed(executor, Denoise::program(config, batches), info),
        _ => placed(executor, Whole(whole(config)), info),
    })
}

/// The stage in one function; not of a language model, which has several.
fn whole(config: &NetworkConfig) -> Signature {
    stateless(config, true).swap_remove(0)
}

/// Whether a program takes an input of the stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Every program does.
    Always,
    /// It must where the input is given.
    Given,
    /// One that does not is none the worse: what the input asks for is done here.
    Never,
}

/// The stage's names of a program's inputs, in the order in which they are handed over.
fn inputs(config: &NetworkConfig) -> Vec<(&'static str, Need)> {
    match config {
        NetworkConfig::LanguageModel(_) => vec![
            ("input_ids", Need::Always),
            ("image_features", Need::Given),
            ("image_position", Need::Given),
            (language_model::LOGITS_FROM, Need::Never),
        ],
        _ => {
            let need = |name| if name == "image_feature" { Need::Given } else { Need::Always };
            let ports = whole(config).inputs;
            ports.iter().map(|port| (port.name.base, need(port.name.base))).collect()
        }
    }
}

/// The stage's names of a program's outputs, in their order.
fn outputs(config: &NetworkConfig) -> Vec<&'static str> {
    match config {
        NetworkConfig::LanguageModel(_) => vec!["hidden_states", "logits"],
        _ => whole(config).outputs.iter().map(|name| name.base).collect(),
    }
}
