//! A model directory, opened for reading.

use std::path::{Path, PathBuf};

use crate::model::ModelConfig;
use crate::stage::StageKind;

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

/// A model directory whose files are present.
#[derive(Debug, Clone)]
pub struct ModelDirectory {
    path: PathBuf,
    config: ModelConfig,
}

impl ModelDirectory {
    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content of `model.json`.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The weight file of a stage; `None` if the model has no such stage.
    pub fn stage_file(&self, stage: StageKind) -> Option<PathBuf> {
        self.config.stages.get(&stage).map(|stage| self.path.join(&stage.file))
    }
}
