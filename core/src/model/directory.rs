//! A model directory, opened for reading.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::model::writer::hex;
use crate::model::{FORMAT_VERSION, MODEL_FILE, ModelConfig, PipelineConfig};
use crate::stage::StageKind;
use crate::weights::{WeightFile, WeightsError};

/// Bytes `model.json` may have.
const MAX_MODEL_FILE: u64 = 16 << 20;
/// Most steps of training that a noise schedule may have.
const MAX_TRAIN_TIMESTEPS: usize = 1_000_000;

/// A model directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// `model.json` was written by another version.
    #[error("{} has format {found}, this build reads format {supported}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The format this build reads.
        supported: u32,
    },
    /// `model.json` is damaged or contradicts itself.
    #[error("{}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A file has another size than `model.json` says.
    #[error("{} has {found} bytes, model.json says {expected}: the model directory is damaged", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The size it should have.
        expected: u64,
    },
    /// A file has another content than `model.json` says.
    #[error("{} has SHA-256 {found}, model.json says {expected}: the model directory is damaged", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: String,
        /// The digest it should have.
        expected: String,
    },
}

/// A model directory whose files are present in their full size.
#[derive(Debug, Clone)]
pub struct ModelDirectory {
    path: PathBuf,
    config: ModelConfig,
}

impl ModelDirectory {
    /// Reads and checks `model.json`, and that every file is there in its full size. Contents are not read:
    /// see [`ModelDirectory::verify`].
    ///
    /// # Errors
    /// `model.json` is missing, of another format version, contradicts itself or names files outside the
    /// directory; or a file is missing or has another size.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let file = path.join(MODEL_FILE);
        let config = parse(&file)?;
        check(&config).map_err(|message| DirectoryError::Invalid { path: file, message })?;
        let directory = Self { path: path.to_owned(), config };
        for (name, digest) in &directory.config.files {
            let path = directory.path.join(name);
            let found = match fs::metadata(&path) {
                Ok(found) if found.is_file() => found.len(),
                Ok(_) => {
                    let source = io::Error::new(io::ErrorKind::InvalidInput, "is no file");
                    return Err(DirectoryError::Io { path, source });
                }
                Err(source) => return Err(DirectoryError::Io { path, source }),
            };
            if found != digest.bytes {
                return Err(DirectoryError::Size { path, found, expected: digest.bytes });
            }
        }
        Ok(directory)
    }

    /// Reads every file and compares its SHA-256 with the one in `model.json`.
    ///
    /// # Errors
    /// The first file that cannot be read or has another content.
    pub fn verify(&self) -> Result<(), DirectoryError> {
        self.config.files.iter().try_for_each(|(name, expected)| {
            let path = self.path.join(name);
            match sha256(&path) {
                Err(source) => Err(DirectoryError::Io { path, source }),
                Ok(found) if !found.eq_ignore_ascii_case(&expected.sha256) => {
                    Err(DirectoryError::Digest { path, found, expected: expected.sha256.clone() })
                }
                Ok(_) => Ok(()),
            }
        })
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content of `model.json`.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The path of a file that `model.json` names.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The weight file of a stage; `None` if the model has no such stage.
    pub fn stage_file(&self, stage: StageKind) -> Option<PathBuf> {
        self.config.stages.get(&stage).map(|stage| self.path.join(&stage.file))
    }

    /// Maps the weight file of a stage; `None` if the model has no such stage.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn stage_weights(&self, stage: StageKind) -> Option<Result<WeightFile, WeightsError>> {
        self.stage_file(stage).map(|path| WeightFile::open(&path))
    }

    /// The LLaMA tokenizer's file; `None` if the pipeline has no language model.
    pub fn tokenizer(&self) -> Option<PathBuf> {
        match &self.config.pipeline {
            PipelineConfig::SmartEdit { tokenizer, .. } => Some(self.path.join(tokenizer)),
            PipelineConfig::InstructPix2Pix { .. } => None,
        }
    }

    /// The directory of the CLIP tokenizer's files.
    pub fn clip_tokenizer(&self) -> PathBuf {
        match &self.config.pipeline {
            PipelineConfig::SmartEdit { clip_tokenizer, .. }
            | PipelineConfig::InstructPix2Pix { clip_tokenizer } => self.path.join(clip_tokenizer),
        }
    }
}

fn parse(path: &Path) -> Result<ModelConfig, DirectoryError> {
    #[derive(Deserialize)]
    struct Format {
        format: u64,
    }
    let io = |source| DirectoryError::Io { path: path.to_owned(), source };
    let invalid = |message: String| DirectoryError::Invalid { path: path.to_owned(), message };
    let mut text = Vec::new();
    File::open(path).map_err(io)?.take(MAX_MODEL_FILE + 1).read_to_end(&mut text).map_err(io)?;
    if text.len() as u64 > MAX_MODEL_FILE {
        return Err(invalid(format!("has more than {MAX_MODEL_FILE} bytes")));
    }
    // Another version may have other fields; its number must be read without them.
    let Format { format } = serde_json::from_slice(&text).map_err(|e| invalid(e.to_string()))?;
    if format != u64::from(FORMAT_VERSION) {
        return Err(DirectoryError::Version {
            path: path.to_owned(),
            found: format,
            supported: FORMAT_VERSION,
        });
    }
    serde_json::from_slice(&text).map_err(|e| invalid(e.to_string()))
}

/// Checks what `model.json` says about files and stages.
fn check(config: &ModelConfig) -> Result<(), String> {
    if let Some(name) = config.files.keys().find(|name| !is_inside(name)) {
        return Err(format!("`{}` in `files` is no relative path inside the directory", name.escape_debug()));
    }
    let listed = |name: &str, what: &str| match config.files.contains_key(name) {
        true => Ok(()),
        false => Err(format!("{what} `{}` is not listed in `files`", name.escape_debug())),
    };
    for (kind, stage) in &config.stages {
        let network = stage.network.kind();
        if network != *kind {
            return Err(format!("stage {kind} has a network of kind {network}"));
        }
        stage.network.check_sizes()?;
        listed(&stage.file, &format!("file of stage {kind}"))?;
    }
    if let Some(stage) = config.pipeline.stages().iter().find(|stage| !config.stages.contains_key(stage)) {
        return Err(format!("stage {stage}, which the pipeline runs, is missing"));
    }
    check_numbers(config)?;
    let clip = match &config.pipeline {
        PipelineConfig::SmartEdit { tokenizer, clip_tokenizer, prompt } => {
            listed(tokenizer, "tokenizer")?;
            if prompt.templates.is_empty() {
                return Err("`templates` is empty; one at least is needed".to_owned());
            }
            clip_tokenizer
        }
        PipelineConfig::InstructPix2Pix { clip_tokenizer } => clip_tokenizer,
    };
    listed(&format!("{clip}/vocab.json"), "CLIP tokenizer file")?;
    listed(&format!("{clip}/merges.txt"), "CLIP tokenizer file")
}

/// Checks what schedulers and requests start from.
fn check_numbers(config: &ModelConfig) -> Result<(), String> {
    let (scheduler, defaults) = (&config.scheduler, &config.defaults);
    if !(1..=MAX_TRAIN_TIMESTEPS).contains(&scheduler.num_train_timesteps) {
        return Err(format!(
            "`num_train_timesteps` is {}; it must lie in 1…{MAX_TRAIN_TIMESTEPS}",
            scheduler.num_train_timesteps
        ));
    }
    if !(0.0 < scheduler.beta_start && scheduler.beta_start <= scheduler.beta_end && scheduler.beta_end < 1.0)
    {
        return Err(format!(
            "`beta_start` {} and `beta_end` {} must rise from above 0 to below 1",
            scheduler.beta_start, scheduler.beta_end
        ));
    }
    if defaults.steps == 0 || !defaults.text_guidance.is_finite() || !defaults.image_guidance.is_finite() {
        return Err(format!("`defaults` cannot be used: {defaults:?}"));
    }
    match defaults.resolution {
        Some((width, height)) if width == 0 || height == 0 => {
            Err(format!("`resolution` is {width}×{height} pixels"))
        }
        _ => Ok(()),
    }
}

/// Whether a name is a relative path that cannot leave its directory, on any platform.
fn is_inside(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\\', ':', '\0'])
        && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&digest.finalize())),
            read => digest.update(&buffer[..read]),
        }
    }
}
