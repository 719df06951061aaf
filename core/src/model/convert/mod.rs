//! Conversion of official checkpoints into a model directory.
//!
//! Which tensors a stage needs is asked of the networks themselves; a conversion only says where each comes
//! from. Everything is checked before anything is written, and all problems are reported at once. Tensors are
//! written one by one in bounded chunks, so that memory does not grow with the checkpoint.

mod clip;
mod configs;
mod diffusion;
mod instruct_pix2pix;
mod lora;
mod plan;
mod recipe;
mod report;
mod smartedit;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use self::clip::ClipCheckpoint;
pub(crate) use self::lora::Lora;
use self::plan::{Findings, Plan};
pub(super) use self::recipe::dtype_name;
pub use self::report::{ConvertError, Dropped, Problem, Report, StageReport};
use super::{EditDefaults, FORMAT_VERSION, ModelConfig, ModelWriter, PipelineConfig, SchedulerConfig};
use crate::engine::Precision;
use crate::stage::StageKind;

/// The directories of the official SmartEdit release.
#[derive(Debug, Clone, Default)]
pub struct SmartEditSources {
    /// Vicuna: `config.json` and the tokenizer; its weights are not read.
    pub vicuna: PathBuf,
    /// LLaVA: the rows of the embedding table and of the head for the base vocabulary.
    pub llava: PathBuf,
    /// The CLIP vision tower with `config.json` and `preprocessor_config.json`.
    pub vision_tower: PathBuf,
    /// SmartEdit's own weights: `LLM-*`, `embeddings_qformer`, `modulate-*`, `unet-*`, `adapter_config.json`.
    pub smartedit: PathBuf,
    /// InstructPix2Pix in diffusers layout: VAE, text encoder, tokenizer, scheduler and the UNet's configuration.
    pub instruct_pix2pix: PathBuf,
    /// BERT `config.json` with the QFormer's head count; BERT-base's without.
    pub qformer_config: Option<PathBuf>,
    /// Prompt templates as `Human: …` and `GPT: …` lines; the release's pair without.
    pub templates: Option<PathBuf>,
    /// The system sentence; the release's without.
    pub system: Option<String>,
    /// The model's name; that of the SmartEdit directory without.
    pub name: Option<String>,
    /// Element type to write; without it every tensor keeps the type in which it is stored, and tensors
    /// computed from several are as wide as the widest of them, merged ones `f32`.
    pub dtype: Option<Precision>,
}

/// A directory in diffusers layout of InstructPix2Pix or of a model of its architecture.
#[derive(Debug, Clone, Default)]
pub struct InstructPix2PixSources {
    /// The directory that holds `unet`, `vae`, `text_encoder`, `tokenizer` and `scheduler`.
    pub from: PathBuf,
    /// The model's name; that of the directory without.
    pub name: Option<String>,
    /// Element type to write; without it every tensor keeps the type in which it is stored.
    pub dtype: Option<Precision>,
}

/// Converts the official SmartEdit release into the model directory `out`, which must not exist or be empty.
///
/// # Errors
/// [`ConvertError::Problems`] lists everything that is missing or does not fit; `out` is then untouched.
pub fn convert_smartedit(sources: &SmartEditSources, out: &Path) -> Result<Report, ConvertError> {
    smartedit::convert(sources, out)
}

/// Converts a diffusers directory into the model directory `out`, which must not exist or be empty.
///
/// # Errors
/// [`ConvertError::Problems`] lists everything that is missing or does not fit; `out` is then untouched.
pub fn convert_instruct_pix2pix(
    sources: &InstructPix2PixSources,
    out: &Path,
) -> Result<Report, ConvertError> {
    instruct_pix2pix::convert(sources, out)
}

/// A model directory that is ready to be written, unless problems were found.
struct Assembly<'a> {
    name: String,
    pipeline: PipelineConfig,
    defaults: EditDefaults,
    sources: BTreeMap<String, String>,
    dtype: Option<Precision>,
    findings: Findings,
    plans: Vec<Plan<'a>>,
}

impl Assembly<'_> {
    /// Writes stages, `copy`'s files and `model.json`.
    fn write(
        self,
        out: &Path,
        scheduler: Option<SchedulerConfig>,
        copy: impl FnOnce(&mut ModelWriter) -> Result<(), ConvertError>,
    ) -> Result<Report, ConvertError> {
        ModelWriter::check(out)?;
        let Findings { mut problems, dropped, notes } = self.findings;
        if problems.is_empty() {
            let planned = |stage: &&StageKind| self.plans.iter().any(|plan| plan.network.kind() == **stage);
            problems.extend(self.pipeline.stages().iter().filter(|stage| !planned(stage)).map(|stage| {
                Problem::Contradiction(format!("the sources do not tell the sizes of {stage}"))
            }));
        }
        let Some(scheduler) = scheduler.filter(|_| problems.is_empty()) else {
            return Err(ConvertError::Problems(problems));
        };
        let mut writer = ModelWriter::create(out)?;
        let mut stages = BTreeMap::new();
        let mut reports = Vec::new();
        for plan in &self.plans {
            let (stage, report) = plan.write(&mut writer, self.dtype)?;
            stages.insert(report.stage, stage);
            reports.push(report);
        }
        reports.sort_by_key(|report| report.stage);
        copy(&mut writer)?;
        let out = writer.finish(ModelConfig {
            format: FORMAT_VERSION,
            name: self.name.clone(),
            pipeline: self.pipeline,
            stages,
            scheduler,
            defaults: self.defaults,
            files: BTreeMap::new(),
            sources: self.sources,
        })?;
        Ok(Report { name: self.name, out, stages: reports, dropped, notes })
    }
}
