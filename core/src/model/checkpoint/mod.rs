//! Read-only, memory-mapped access to the tensors of checkpoints.
//!
//! Reads PyTorch zip files (`.bin`, `.pth`), safetensors files and the sharded indexes of both. A PyTorch
//! checkpoint names its tensors in a pickle, a program for a stack machine; [`pickle`] interprets the few
//! instructions that describe tensors and refuses everything else, so that nothing is ever executed.

pub mod pickle;
mod tensor;
mod torch;
mod weights;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::SafeTensors;
use serde::Deserialize;

pub use self::tensor::TensorView;
use self::tensor::{Entry, Layout};
use self::torch::Fault;
pub use self::weights::CheckpointWeights;
use crate::weights::map_read_only;

/// Bytes a sharded index may have.
const MAX_INDEX: u64 = 64 << 20;

/// A checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file is not what it should be, is damaged, or exceeds a limit.
    #[error("{} {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what helps.
        message: String,
    },
    /// One tensor of the file cannot be read.
    #[error("{}: tensor `{tensor}` {message}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What is wrong with it.
        message: String,
    },
}

/// What reading a checkpoint returns.
pub type Result<T> = std::result::Result<T, CheckpointError>;

/// One or more memory-mapped files, read as one set of tensors.
pub struct Checkpoint {
    files: Vec<(PathBuf, Mmap)>,
    tensors: BTreeMap<String, (usize, Entry)>,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files: Vec<&Path> = self.files.iter().map(|(path, _)| path.as_path()).collect();
        f.debug_struct("Checkpoint").field("files", &files).field("tensors", &self.tensors.len()).finish()
    }
}

impl Checkpoint {
    /// Maps checkpoint files and finds their tensors. A sharded index stands for its shards.
    ///
    /// # Errors
    /// A file is missing, damaged or malicious, or two files hold a tensor of the same name.
    pub fn open(paths: &[impl AsRef<Path>]) -> Result<Self> {
        let mut checkpoint = Self { files: Vec::new(), tensors: BTreeMap::new() };
        for path in paths.iter().map(AsRef::as_ref) {
            match is_index(path) {
                true => checkpoint.add_index(path)?,
                false => checkpoint.add(path)?,
            }
        }
        Ok(checkpoint)
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// All tensors, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.tensors.iter().filter_map(|(name, (file, entry))| {
            let (path, map) = self.files.get(*file)?;
            Some((name.as_str(), TensorView::new(path, map, entry)))
        })
    }

    /// The named tensor.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let (file, entry) = self.tensors.get(name)?;
        let (path, map) = self.files.get(*file)?;
        Some(TensorView::new(path, map, entry))
    }

    /// The files the tensors come from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let io = |source| CheckpointError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        if !file.metadata().map_err(io)?.is_file() {
            return Err(CheckpointError::Format { path: path.to_owned(), message: "is no file".to_owned() });
        }
        let map = map_read_only(&file).map_err(io)?;
        let tensors = read(&map).map_err(|fault| match fault {
            Fault::File(message) => CheckpointError::Format { path: path.to_owned(), message },
            Fault::Tensor(tensor, message) => {
                CheckpointError::Tensor { path: path.to_owned(), tensor, message }
            }
        })?;
        let number = self.files.len();
        for (tensor, entry) in tensors {
            // Within one file the last of equal names counts, as in a Python dict.
            if let Some((other, _)) = self.tensors.insert(tensor.clone(), (number, entry))
                && other != number
            {
                let message = match self.files.get(other) {
                    Some((other, _)) => format!("is in {}, too", other.display()),
                    None => "is in two files".to_owned(),
                };
                return Err(CheckpointError::Tensor { path: path.to_owned(), tensor, message });
            }
        }
        self.files.push((path.to_owned(), map));
        Ok(())
    }

    fn add_index(&mut self, path: &Path) -> Result<()> {
        let format = |message| CheckpointError::Format { path: path.to_owned(), message };
        let index = read_index(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let shards: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
        if let Some(shard) = shards.iter().find(|shard| !is_plain_name(shard)) {
            return Err(format(format!(
                "names the shard `{}`, which is no plain file name",
                shard.escape_debug()
            )));
        }
        let missing: Vec<&str> =
            shards.iter().copied().filter(|shard| !folder.join(shard).is_file()).collect();
        if !missing.is_empty() {
            return Err(format(format!("names shards that are missing: {}", missing.join(", "))));
        }
        for shard in shards {
            self.add(&folder.join(shard))?;
        }
        match index.weight_map.iter().find(|(name, _)| !self.tensors.contains_key(*name)) {
            Some((tensor, shard)) => Err(CheckpointError::Tensor {
                path: folder.join(shard),
                tensor: tensor.clone(),
                message: format!("is missing, although {} names it", path.display()),
            }),
            None => Ok(()),
        }
    }
}

/// Whether a path names a sharded index: `NAME.index.json` or `NAME.index.VARIANT.json`.
pub fn is_index(path: &Path) -> bool {
    path.file_name().is_some_and(|name| {
        let name = name.to_string_lossy();
        name.ends_with(".json") && name.contains(".index.")
    })
}

/// Whether a name denotes a file beside the one that mentions it.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !matches!(name, "." | "..") && !name.contains(['/', '\\', '\0', ':'])
}

/// The shards that an index names.
///
/// # Errors
/// The index cannot be read.
pub(crate) fn shards(index: &Path) -> Result<BTreeSet<String>> {
    Ok(read_index(index)?.weight_map.into_values().collect())
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn read_index(path: &Path) -> Result<Index> {
    let io = |source| CheckpointError::Io { path: path.to_owned(), source };
    let mut text = Vec::new();
    File::open(path).map_err(io)?.take(MAX_INDEX + 1).read_to_end(&mut text).map_err(io)?;
    let message = if text.len() as u64 > MAX_INDEX {
        format!("has more than {MAX_INDEX} bytes, the most an index may have")
    } else {
        match serde_json::from_slice(&text) {
            Ok(index) => return Ok(index),
            Err(e) => format!("is no index of shards: {e}"),
        }
    };
    Err(CheckpointError::Format { path: path.to_owned(), message })
}

/// Where the tensors of a mapped file are; its first bytes tell its format.
fn read(map: &[u8]) -> std::result::Result<Vec<(String, Entry)>, Fault> {
    const LEGACY_TORCH: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
    const LFS_POINTER: &[u8] = b"version https://git-lfs";
    if map.is_empty() {
        Err(Fault::File("is empty".to_owned()))
    } else if map.starts_with(b"PK") {
        torch::read(map)
    } else if map.starts_with(LEGACY_TORCH) {
        Err(Fault::File(
            "is in the format PyTorch used before 1.6; load it and save it again with a current `torch.save`"
                .to_owned(),
        ))
    } else if map.starts_with(LFS_POINTER) {
        Err(Fault::File("is a Git LFS pointer instead of the file itself; run `git lfs pull`".to_owned()))
    } else {
        read_safetensors(map)
    }
}

fn read_safetensors(map: &[u8]) -> std::result::Result<Vec<(String, Entry)>, Fault> {
    let tensors = SafeTensors::deserialize(map)
        .map_err(|e| format!("is neither a PyTorch zip file nor a valid safetensors file: {e}"))?;
    let base = map.as_ptr() as usize;
    let entry = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let entry = Entry {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            start: view.data().as_ptr() as usize - base,
            layout: Layout::Contiguous,
        };
        (name.to_owned(), entry)
    };
    Ok(tensors.iter().map(entry).collect())
}
