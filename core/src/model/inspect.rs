//! What a model directory or a checkpoint holds.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::model::checkpoint::{self, Checkpoint, CheckpointError};
use crate::model::convert::dtype_name;
use crate::model::{DirectoryError, MODEL_FILE, ModelDirectory};
use crate::stage::StageKind;

/// How deep directories of checkpoints are searched.
const MAX_DEPTH: usize = 4;

/// What was found at a path. `{}` shows a line per file and the tensors of a lone file, `{:#}` all tensors.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What was inspected.
    pub path: PathBuf,
    /// The model's name; a checkpoint has none.
    pub name: Option<String>,
    /// Number of elements of all tensors.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
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
    /// Bytes of its elements.
    pub bytes: u64,
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
    let (name, files) = if path.join(MODEL_FILE).is_file() {
        let directory = ModelDirectory::open(path)?;
        let config = directory.config();
        let files = config
            .stages
            .iter()
            .map(|(stage, stage_config)| {
                inspect_file(&path.join(&stage_config.file), stage_config.file.clone(), Some(*stage))
            })
            .collect::<Result<Vec<_>, _>>()?;
        (Some(config.name.clone()), files)
    } else if path.is_dir() {
        let files = find(path)
            .iter()
            .map(|file| {
                let name = file.strip_prefix(path).unwrap_or(file).display().to_string();
                inspect_file(file, name, None)
            })
            .collect::<Result<Vec<_>, _>>()?;
        if files.is_empty() {
            return Err(InspectError::Nothing(path.to_owned()));
        }
        (None, files)
    } else {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (None, vec![inspect_file(path, name, None)?])
    };
    Ok(Report {
        path: path.to_owned(),
        name,
        parameters: files.iter().map(|file| file.parameters).sum(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        files,
    })
}

fn inspect_file(path: &Path, file: String, stage: Option<StageKind>) -> Result<FileReport, CheckpointError> {
    let checkpoint = Checkpoint::open(&[path])?;
    let mut report =
        FileReport { file, stage, parameters: 0, bytes: 0, dtypes: BTreeMap::new(), tensors: Vec::new() };
    for (name, view) in checkpoint.iter() {
        let dtype = dtype_name(view.dtype());
        report.parameters += view.elements() as u64;
        report.bytes += view.byte_len() as u64;
        *report.dtypes.entry(dtype.clone()).or_default() += 1;
        report.tensors.push(TensorReport {
            name: name.to_owned(),
            dtype,
            shape: view.shape().to_vec(),
            bytes: view.byte_len() as u64,
        });
    }
    Ok(report)
}

/// Checkpoints in a directory, sorted; shards that an index names are left to it.
fn find(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut shards = Vec::new();
    let mut pending = vec![(directory.to_owned(), 0)];
    while let Some((directory, depth)) = pending.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let extension = path.extension().unwrap_or_default();
            if path.is_dir() {
                if depth < MAX_DEPTH {
                    pending.push((path, depth + 1));
                }
            } else if checkpoint::is_index(&path) {
                // An index that cannot be read is reported when it is opened.
                let names = checkpoint::shards(&path).unwrap_or_default();
                shards.extend(names.into_iter().map(|name| directory.join(name)));
                found.push(path);
            } else if ["bin", "pth", "pt", "safetensors"].iter().any(|known| extension == *known) {
                found.push(path);
            }
        }
    }
    found.retain(|path| !shards.contains(path));
    found.sort();
    found
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            writeln!(f, "{name}")?;
        }
        let mut rows = vec![["stage", "file", "tensors", "dtypes", "parameters", "bytes"].map(str::to_owned)];
        rows.extend(self.files.iter().map(|file| {
            [
                file.stage.map_or("-", StageKind::name).to_owned(),
                file.file.clone(),
                file.tensors.len().to_string(),
                file.dtypes.keys().map(String::as_str).collect::<Vec<_>>().join(" "),
                grouped(file.parameters),
                grouped(file.bytes),
            ]
        }));
        rows.push([
            "total".to_owned(),
            String::new(),
            self.files.iter().map(|file| file.tensors.len()).sum::<usize>().to_string(),
            String::new(),
            grouped(self.parameters),
            grouped(self.bytes),
        ]);
        table(f, &rows, &[false, false, true, false, true, true])?;
        if f.alternate() || self.name.is_none() && self.files.len() == 1 {
            for file in &self.files {
                writeln!(f, "\n{}", file.file)?;
                let mut rows = vec![["tensor", "dtype", "shape", "bytes"].map(str::to_owned)];
                rows.extend(file.tensors.iter().map(|tensor| {
                    let shape = format!("{:?}", tensor.shape);
                    [tensor.name.clone(), tensor.dtype.clone(), shape, grouped(tensor.bytes)]
                }));
                table(f, &rows, &[false, false, false, true])?;
            }
        }
        Ok(())
    }
}

/// Columns as wide as their widest cell, aligned to the right where asked for.
fn table<const N: usize>(f: &mut fmt::Formatter<'_>, rows: &[[String; N]], right: &[bool; N]) -> fmt::Result {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(widths).zip(right) {
            let cell = if *right { format!("{cell:>width$}  ") } else { format!("{cell:width$}  ") };
            line.push_str(&cell);
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A number with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}
