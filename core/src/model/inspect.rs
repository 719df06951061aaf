//! What a model directory or a checkpoint holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::model::DirectoryError;
use crate::model::checkpoint::CheckpointError;
use crate::stage::StageKind;

/// What was found at a path.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What was inspected.
    pub path: PathBuf,
    /// The model's name; a checkpoint has none.
    pub name: Option<String>,
    /// Every weight file; stages come in the order of the pipeline.
    pub files: Vec<FileReport>,
}

/// A weight file or a sharded checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileReport {
    /// The file, relative to what was inspected.
    pub file: String,
    /// The stage it belongs to, in a model directory.
    pub stage: Option<StageKind>,
    /// Number of elements of all tensors.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Number of tensors by element type.
    pub dtypes: BTreeMap<String, usize>,
    /// Every tensor.
    pub tensors: Vec<TensorReport>,
}

/// A tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorReport {
    /// Its full name.
    pub name: String,
    /// Its element type.
    pub dtype: String,
    /// The size of every dimension.
    pub shape: Vec<usize>,
}

/// A path holds nothing that can be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The model directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A directory holds neither `model.json` nor a checkpoint.
    #[error("{} holds neither a model nor a checkpoint", .0.display())]
    Nothing(PathBuf),
}

/// Tells what a model directory, a checkpoint, a sharded index or a directory of checkpoints holds.
///
/// # Errors
/// The first file that cannot be read.
pub fn inspect(path: &Path) -> Result<Report, InspectError> {
    Err(InspectError::Nothing(path.to_owned()))
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.path.display())
    }
}
