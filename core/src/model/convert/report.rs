//! What a conversion did, or why it could not.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::directory::WriteError;
use crate::model::checkpoint::CheckpointError;
use crate::stage::StageKind;

/// What a conversion wrote.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The model's name.
    pub name: String,
    /// The model directory.
    pub out: PathBuf,
    /// Every stage, in the order of the pipeline.
    pub stages: Vec<StageReport>,
    /// Tensors of the sources that inference never reads.
    pub dropped: Vec<Dropped>,
    /// Choices that a reader should know of.
    pub notes: Vec<String>,
}

/// A written stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageReport {
    /// The stage.
    pub stage: StageKind,
    /// Its file in the model directory.
    pub file: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of elements of all tensors.
    pub parameters: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Number of tensors by element type.
    pub dtypes: BTreeMap<String, usize>,
}

/// Tensors of one source that were left out for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Where they are.
    pub source: String,
    /// Why inference does not read them.
    pub reason: String,
    /// Their names in the source.
    pub tensors: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |header: &str, cell: fn(&StageReport) -> String| {
            self.stages.iter().map(|stage| cell(stage).len()).fold(header.len(), usize::max)
        };
        let names = width("stage", |stage| stage.stage.to_string());
        let files = width("file", |stage| stage.file.clone());
        writeln!(f, "{} in {}", self.name, self.out.display())?;
        writeln!(
            f,
            "{:names$}  {:files$}  {:>7}  {:>14}  {:>14}  dtypes",
            "stage", "file", "tensors", "parameters", "bytes"
        )?;
        for stage in &self.stages {
            let dtypes: Vec<&str> = stage.dtypes.keys().map(String::as_str).collect();
            writeln!(
                f,
                "{:names$}  {:files$}  {:>7}  {:>14}  {:>14}  {}",
                stage.stage.name(),
                stage.file,
                stage.tensors,
                stage.parameters,
                stage.bytes,
                dtypes.join(" ")
            )?;
        }
        for dropped in &self.dropped {
            let example = dropped.tensors.first().map_or("", String::as_str);
            let count = dropped.tensors.len();
            writeln!(f, "dropped {count} of {}: {} (`{example}`)", dropped.source, dropped.reason)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

/// A conversion failed; nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The sources do not make up a model.
    #[error("cannot convert, {} found:{}", count(.0), list(.0))]
    Problems(Vec<Problem>),
    /// A tensor cannot be written in the wanted element type.
    #[error("{source_name}: tensor `{tensor}` holds {value}, which {dtype} cannot represent")]
    Overflow {
        /// Where the tensor comes from.
        source_name: String,
        /// Its name in the source.
        tensor: String,
        /// The first such value.
        value: f64,
        /// The element type asked for.
        dtype: String,
    },
    /// The model directory cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn count(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  - {problem}")).collect()
}

/// One reason why sources do not make up a model.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A file or directory is missing.
    #[error("{}: {what} is missing; looked for {looked_for}", path.display())]
    MissingFile {
        /// The directory that should hold it.
        path: PathBuf,
        /// What it is.
        what: String,
        /// The names it may have.
        looked_for: String,
    },
    /// A checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A configuration file cannot be read or describes something that is not supported.
    #[error("{}: {message}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A tensor that a stage needs is missing.
    #[error("{source_name}: tensor `{tensor}` is missing ({stage} needs it)")]
    MissingTensor {
        /// Where it should be.
        source_name: String,
        /// Its name there.
        tensor: String,
        /// The stage.
        stage: StageKind,
    },
    /// A tensor is in none of the places known.
    #[error("{source_name}: tensor `{tensor}` is unexpected: no stage reads it")]
    UnexpectedTensor {
        /// Where it is.
        source_name: String,
        /// Its name there.
        tensor: String,
    },
    /// A tensor has the wrong shape.
    #[error("{source_name}: tensor `{tensor}` has shape {found:?}, {stage} needs {expected:?}")]
    Shape {
        /// Where it is.
        source_name: String,
        /// Its name there.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape the stage needs.
        expected: Vec<usize>,
        /// The stage.
        stage: StageKind,
    },
    /// A tensor holds something else than floats.
    #[error("{source_name}: tensor `{tensor}` holds {dtype} elements; f32, f16, bf16 or f64 are needed")]
    DType {
        /// Where it is.
        source_name: String,
        /// Its name there.
        tensor: String,
        /// Its element type.
        dtype: String,
    },
    /// The sources contradict each other.
    #[error("{0}")]
    Contradiction(String),
}
