//! `smartedit-train run`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::recipe::Recipe;
use crate::run::Run;

/// Trains what a recipe says and writes its model directories.
#[derive(Args)]
pub(super) struct Arguments {
    /// The recipe.
    recipe: PathBuf,
    /// Only this stage; may be given several times. Model directories are then not written.
    #[arg(long = "stage", value_name = "NAME")]
    stages: Vec<String>,
    /// Only write the model directories, of what has been trained.
    #[arg(long, conflicts_with = "stages")]
    ship_only: bool,
    /// Where checkpoints, curves and encoded pictures go.
    #[arg(long, value_name = "DIR", default_value = ".cache/training")]
    work: PathBuf,
    /// Where model directories go.
    #[arg(long, value_name = "DIR", default_value = "models")]
    models: PathBuf,
    /// Goes on from checkpoints, and leaves out stages that are done.
    #[arg(long)]
    resume: bool,
    /// Threads to compute with. Two runs of one thread each do more than one of two.
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZeroUsize,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let recipe = Recipe::read(&arguments.recipe)?;
    let unknown: Vec<&str> = arguments
        .stages
        .iter()
        .map(String::as_str)
        .filter(|name| recipe.stages.iter().all(|stage| stage.name != *name))
        .collect();
    if !unknown.is_empty() {
        let known: Vec<&str> = recipe.stages.iter().map(|stage| stage.name.as_str()).collect();
        bail!("the recipe has no stage {}; it has {}", unknown.join(", "), known.join(", "));
    }
    let run = Run::new(recipe, arguments.work.clone(), arguments.threads)?;
    if !arguments.ship_only {
        run.train(&arguments.stages, arguments.resume)?;
    }
    if arguments.stages.is_empty() { run.ship(&arguments.models) } else { Ok(()) }
}
