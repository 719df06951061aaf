//! `smartedit bench`: stages and whole edits on pseudo-random weights.

use std::io::{BufRead as _, Write as _};
use std::num::NonZeroUsize;
use std::time::Instant;

use clap::{Args, ValueEnum};
use smartedit_core::engine::Precision;
use smartedit_core::model::{NetworkConfig, Preset};
use smartedit_core::stage::{StageKind, StageOptions};

use super::{CliError, print};
use crate::engines::Engines;
use crate::memory;

mod edit;
mod model;
mod reply;
mod report;
mod stage;

use model::RandomModel;
use report::{Iteration, Report, Setting};

/// Does the work once, and says how long its parts took.
type Work = Box<dyn FnMut() -> anyhow::Result<Vec<report::Part>>>;

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// The model whose sizes the networks have
    #[arg(long, value_enum, default_value = "sd15")]
    preset: PresetName,
    /// What is measured
    #[arg(long, value_enum, default_value = "denoiser")]
    stage: Subject,
    /// The engine that computes it
    #[arg(long, default_value = "candle")]
    engine: String,
    /// Element type of weights and activations
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionName,
    /// `cpu`, `cuda:N` or `metal:N`
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Threads that compute [default: as many as the engine takes by itself]
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Height and width of the latents; a picture has eight times as much
    #[arg(long, value_name = "HxW", default_value = "32x32", value_parser = size)]
    latents: (usize, usize),
    /// Rows of the denoiser's batch; guidance takes three
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    /// Layers of the language model [default: the preset's]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    layers: Option<u16>,
    /// How the language model's reply is made
    #[arg(long, value_enum, default_value = "drafted")]
    decoding: Decode,
    /// Denoising steps of an edit
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: u16,
    /// Measured repetitions; one more, before them, is not counted
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    iterations: u16,
    /// Seed of weights and inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Load, then repeat the work once for every line on standard input, answering each with one of JSON
    #[arg(long, conflicts_with_all = ["json", "iterations"])]
    serve_iterations: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PresetName {
    Tiny,
    Sd15,
    #[value(name = "smartedit-7b")]
    SmartEdit7b,
    #[value(name = "smartedit-13b")]
    SmartEdit13b,
}

impl From<PresetName> for Preset {
    fn from(name: PresetName) -> Self {
        match name {
            PresetName::Tiny => Self::Tiny,
            PresetName::Sd15 => Self::Sd15,
            PresetName::SmartEdit7b => Self::SmartEdit7b,
            PresetName::SmartEdit13b => Self::SmartEdit13b,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PrecisionName {
    F32,
    Bf16,
    F16,
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::F32 => Self::F32,
            PrecisionName::Bf16 => Self::Bf16,
            PrecisionName::F16 => Self::F16,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Subject {
    VisionEncoder,
    /// Prompt and reply
    LanguageModel,
    Connector,
    TextEncoder,
    VaeEncoder,
    /// One denoising step
    Denoiser,
    VaeDecoder,
    /// Every stage by itself
    All,
    /// A whole edit
    Edit,
}

impl Subject {
    /// The stages to measure one by one; `None` for a whole edit.
    fn stages(self) -> Option<&'static [StageKind]> {
        match self {
            Self::VisionEncoder => Some(&[StageKind::VisionEncoder]),
            Self::LanguageModel => Some(&[StageKind::LanguageModel]),
            Self::Connector => Some(&[StageKind::Connector]),
            Self::TextEncoder => Some(&[StageKind::TextEncoder]),
            Self::VaeEncoder => Some(&[StageKind::VaeEncoder]),
            Self::Denoiser => Some(&[StageKind::Denoiser]),
            Self::VaeDecoder => Some(&[StageKind::VaeDecoder]),
            Self::All => Some(&StageKind::ALL),
            Self::Edit => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Decode {
    /// The expected reply and the image tokens are verified in one pass
    Drafted,
    /// One pass per token
    Stepwise,
}

/// `HxW` in latent cells.
fn size(text: &str) -> Result<(usize, usize), String> {
    let parse = |side: &str| side.parse().ok().filter(|side| (1..=512).contains(side));
    text.split_once('x')
        .and_then(|(height, width)| Some((parse(height)?, parse(width)?)))
        .ok_or_else(|| format!("`{text}` is not HxW with sides of 1 to 512, such as 32x32"))
}

impl Bench {
    pub(super) fn run(self) -> Result<(), CliError> {
        let mut model = RandomModel::new(self.preset.into(), self.precision.into(), self.seed);
        if let Some(layers) = self.layers {
            model.set_layers(layers.into()).map_err(CliError::usage)?;
        }
        let subjects: Vec<Option<StageKind>> = match self.stage.stages() {
            None => vec![None],
            Some(stages) => {
                let present: Vec<_> =
                    stages.iter().copied().filter(|&kind| model.network(kind).is_some()).map(Some).collect();
                if present.is_empty() {
                    let message = format!("the preset {} has no such stage", model.preset().name());
                    return Err(CliError::usage(message));
                }
                present
            }
        };
        if self.serve_iterations && subjects.len() > 1 {
            return Err(CliError::usage("--serve-iterations takes one stage, or `edit`"));
        }
        let mut reports = Vec::with_capacity(subjects.len());
        for subject in subjects {
            reports.extend(self.measure(&model, subject)?);
        }
        match (self.serve_iterations, self.json) {
            (true, _) => Ok(()),
            (false, true) => {
                print(&(serde_json::to_string_pretty(&reports).map_err(CliError::failed)? + "\n"))
            }
            (false, false) => print(&report::table(&reports)),
        }
    }

    /// Measures a stage or, without one, a whole edit. Served iterations have no report.
    fn measure(&self, model: &RandomModel, stage: Option<StageKind>) -> Result<Option<Report>, CliError> {
        let networks: Vec<&NetworkConfig> = match stage {
            Some(kind) => model.network(kind).into_iter().collect(),
            None => model.networks().collect(),
        };
        let weight_bytes = model.weight_bytes(&networks).map_err(CliError::failed)?;
        check_memory(weight_bytes)?;

        let engines = Engines::built_in();
        let backend = engines.get(&self.engine).map_err(CliError::usage)?;
        let options = StageOptions {
            device: self.device.clone(),
            precision: self.precision.into(),
            threads: self.threads,
            ..StageOptions::default()
        };
        for network in networks {
            backend.check(network.kind(), &options).map_err(CliError::usage)?;
        }

        let start = Instant::now();
        let mut work = match stage {
            Some(kind) => stage::work(self, model, kind, backend.as_ref(), &options),
            None => edit::work(self, model, backend.as_ref(), &options),
        }
        .map_err(CliError::failed)?;
        let setting = Setting {
            preset: model.preset().name(),
            stage: stage.map_or("edit", StageKind::name),
            engine: self.engine.clone(),
            device: self.device.clone(),
            precision: self.precision.into(),
            threads: self.threads,
            latents: self.latents,
            weight_bytes,
            load_seconds: start.elapsed().as_secs_f64(),
        };
        // What is allocated, compiled or packed once is not measured.
        iterate(&mut work)?;
        if self.serve_iterations {
            serve(&setting, &mut work)?;
            return Ok(None);
        }
        let iterations =
            (0..self.iterations).map(|_| iterate(&mut work)).collect::<Result<Vec<_>, CliError>>()?;
        Ok(Some(Report::new(setting, &iterations)))
    }
}

fn iterate(work: &mut Work) -> Result<Iteration, CliError> {
    let start = Instant::now();
    let parts = work().map_err(CliError::failed)?;
    Ok(Iteration::new(start.elapsed(), parts))
}

/// Answers every line of standard input with one iteration, until it ends.
fn serve(setting: &Setting, work: &mut Work) -> Result<(), CliError> {
    let answer = |text: serde_json::Result<String>| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", text.map_err(CliError::failed)?)
            .and_then(|()| out.flush())
            .map_err(CliError::failed)
    };
    answer(serde_json::to_string(setting))?;
    for line in std::io::stdin().lock().lines() {
        line.map_err(CliError::failed)?;
        answer(serde_json::to_string(&iterate(work)?))?;
    }
    Ok(())
}

/// Refuses what this machine would have to swap.
fn check_memory(weights: u64) -> Result<(), CliError> {
    match memory::available() {
        Some(available) if weights > available => Err(CliError::usage(format!(
            "the weights take {} and {} of memory are available; choose a smaller preset, fewer --layers or \
             --precision bf16",
            report::bytes(weights),
            report::bytes(available)
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_height_and_width() {
        assert_eq!(size("32x48"), Ok((32, 48)));
        for text in ["", "32", "0x32", "32x513", "32x32x32", "-1x2"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
