//! The paper's comparisons in miniature: several trainings, one benchmark.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::engines;
use crate::process::run;
use crate::python::Python;
use crate::workspace::{cache, cargo, root};

/// Edits of each scenario that a comparison is scored on, and what they follow from.
const PER_SCENARIO: &str = "40";
const SEED: &str = "2026";

/// Which trainings are compared.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Comparison {
    /// The models that ship: SmartEdit and InstructPix2Pix.
    Models,
    /// No interaction, one cross-attention, the Bidirectional Interaction Module.
    Interactions,
    /// Plain edits, with segmentation, with complex edits, with both.
    Mixtures,
}

impl Comparison {
    /// The directory of its recipes, and of its results.
    fn name(self) -> &'static str {
        match self {
            Self::Models => "models",
            Self::Interactions => "interactions",
            Self::Mixtures => "mixtures",
        }
    }

    /// Its models, as far as they have been trained, and where they lie.
    fn models(self) -> (PathBuf, &'static [&'static str]) {
        let names: &[&str] = match self {
            Self::Models => return (root().join("models"), &["emoji", "emoji-instruct-pix2pix"]),
            Self::Interactions => &["plain", "simple-ca", "bim"],
            Self::Mixtures => &["edits", "edits-and-segmentation", "edits-and-complex", "everything"],
        };
        (cache("comparisons").join(self.name()).join("models"), names)
    }
}

/// Trains what has not been trained, and scores the models side by side on held-out scenes, with instructions that take
/// understanding or reasoning and with plain ones. Tables and pages lie in `.cache/comparisons` then.
pub(crate) fn compare(comparison: Comparison) -> Result<()> {
    let directory = cache("comparisons").join(comparison.name());
    fs::create_dir_all(&directory)?;
    let python = Python::prepare()?;
    engines::fetch(&python)?;
    run(cargo().args([
        "build",
        "--release",
        "--package",
        "smartedit-train",
        "--package",
        "smartedit-server",
    ]))?;
    let (models, names) = comparison.models();
    let recipes = root().join("training/recipes").join(comparison.name());
    for name in names.iter().filter(|name| !models.join(name).exists()) {
        run(program("smartedit-train")?
            .arg("run")
            .arg(recipes.join(name).with_extension("toml"))
            .arg("--resume")
            .arg("--models")
            .arg(&models))?;
    }
    let config = directory.join("deployments.toml");
    fs::write(&config, deployments(&models, names)?)?;
    let mut outcome = Ok(());
    for (kind, flags) in [("complex", &[][..]), ("plain", &["--plain"])] {
        let benchmark = cache("comparisons").join(kind);
        if !benchmark.exists() {
            run(program("smartedit-train")?
                .args(["world", "--per-scenario", PER_SCENARIO, "--seed", SEED, "--reason-edit"])
                .arg(&benchmark)
                .args(flags))?;
        }
        let mut evaluate = program("smartedit")?;
        evaluate.arg("evaluate").arg(&benchmark).arg("--config").arg(&config);
        for name in names {
            evaluate.arg("--deployment").arg(name);
        }
        for (flag, ending) in [("--markdown", "md"), ("--json", "json"), ("--html", "html")] {
            evaluate.arg(flag).arg(directory.join(format!("{kind}.{ending}")));
        }
        // Edits fail where a model answers in words; the tables are written all the same.
        outcome = outcome.and(run(&mut evaluate));
    }
    outcome
}

fn deployments(models: &Path, names: &[&str]) -> Result<String> {
    let mut config = format!("default_deployment = {:?}\n", names[0]);
    for name in names {
        writeln!(config, "\n[deployments.{name:?}]\nmodel = {:?}", models.join(name))?;
    }
    Ok(config)
}

fn program(name: &str) -> Result<Command> {
    let path = root().join("target/release").join(name);
    ensure!(path.exists(), "{} has not been built", path.display());
    let mut command = Command::new(path);
    command.current_dir(root());
    Ok(command)
}
