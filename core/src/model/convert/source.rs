//! Finding and opening what a conversion reads.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Problem;
use crate::model::checkpoint::{Checkpoint, TensorView};

/// Bytes a configuration or a list of templates may have.
const MAX_TEXT_FILE: u64 = 16 << 20;
/// Parts that a checkpoint may have.
const MAX_SHARDS: usize = 10_000;

/// Weight files of a `transformers` model.
pub(super) const TRANSFORMERS: &[&str] = &["model", "pytorch_model"];
/// Weight files of a `diffusers` model.
pub(super) const DIFFUSERS: &[&str] = &["diffusion_pytorch_model"];
/// Weight files of a PEFT adapter.
pub(super) const ADAPTER: &[&str] = &["adapter_model"];

/// A checkpoint that remembers which of its tensors are used.
#[derive(Debug)]
pub(super) struct Source {
    /// Its place, for messages.
    pub(super) name: String,
    checkpoint: Checkpoint,
    used: RefCell<BTreeSet<String>>,
}

impl Source {
    /// Opens the weights in a directory under one of the names given without their endings.
    pub(super) fn open(directory: &Path, stems: &[&str]) -> Result<Self, Problem> {
        let files = find_weights(directory, stems).ok_or_else(|| Problem::MissingFile {
            path: directory.to_owned(),
            what: "a checkpoint".to_owned(),
            looked_for: stems
                .iter()
                .map(|stem| format!("{stem}.safetensors, {stem}.bin"))
                .collect::<Vec<_>>()
                .join(", ")
                + " and sharded indexes of these",
        })?;
        let missing: Vec<String> = files
            .iter()
            .filter(|file| !file.is_file())
            .map(|file| file.file_name().unwrap_or_default().to_string_lossy().into_owned())
            .collect();
        if !missing.is_empty() {
            return Err(Problem::MissingFile {
                path: directory.to_owned(),
                what: "a part of the checkpoint".to_owned(),
                looked_for: missing.join(", "),
            });
        }
        let name = match files.as_slice() {
            [file] => file.display().to_string(),
            _ => directory.display().to_string(),
        };
        Ok(Self { name, checkpoint: Checkpoint::open(&files)?, used: RefCell::default() })
    }

    /// The tensors without the memory of which are used.
    pub(super) fn into_checkpoint(self) -> Checkpoint {
        self.checkpoint
    }

    /// The named tensor, which does not count as used.
    pub(super) fn peek(&self, name: &str) -> Option<TensorView<'_>> {
        self.checkpoint.get(name)
    }

    /// Rows of the named tensor.
    pub(super) fn rows(&self, name: &str) -> Option<usize> {
        self.peek(name).and_then(|view| view.shape().first().copied())
    }

    /// The first of the named tensors that exists.
    pub(super) fn take(&self, candidates: &[String]) -> Option<(String, TensorView<'_>)> {
        candidates.iter().find_map(|name| {
            let view = self.checkpoint.get(name)?;
            self.used.borrow_mut().insert(name.clone());
            Some((name.clone(), view))
        })
    }

    /// The names of all tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.checkpoint.names()
    }

    /// The names of tensors that were not taken.
    pub(super) fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        self.checkpoint.names().filter(|name| !used.contains(*name)).map(str::to_owned).collect()
    }

    /// How many consecutive numbers, from 0 on, follow a prefix in the names of tensors.
    pub(super) fn count(&self, prefix: &str) -> usize {
        let numbers: BTreeSet<usize> = self
            .names()
            .filter_map(|name| name.strip_prefix(prefix)?.split('.').next()?.parse().ok())
            .collect();
        (0..).zip(&numbers).take_while(|(expected, found)| expected == *found).count()
    }
}

/// The weight files in a directory: one file, one index, or shards without an index. Full precision goes before
/// the `fp16` variant, safetensors before PyTorch.
fn find_weights(directory: &Path, stems: &[&str]) -> Option<Vec<PathBuf>> {
    for variant in ["", ".fp16"] {
        for extension in ["safetensors", "bin"] {
            for stem in stems {
                let names = [
                    format!("{stem}{variant}.{extension}"),
                    format!("{stem}{variant}.{extension}.index.json"),
                    format!("{stem}.{extension}.index{variant}.json"),
                ];
                if let Some(path) = names.iter().map(|name| directory.join(name)).find(|path| path.is_file())
                {
                    return Some(vec![path]);
                }
                if let Some(shards) = find_shards(directory, &format!("{stem}{variant}"), extension) {
                    return Some(shards);
                }
            }
        }
    }
    None
}

/// `STEM-00001-of-00003.EXTENSION` and its siblings, whether there or not.
fn find_shards(directory: &Path, stem: &str, extension: &str) -> Option<Vec<PathBuf>> {
    let of = file_names(directory).iter().find_map(|name| {
        let numbers = name.strip_prefix(stem)?.strip_prefix("-00001-of-")?;
        numbers.strip_suffix(extension)?.strip_suffix('.')?.parse::<usize>().ok()
    })?;
    let name = |number| format!("{stem}-{number:05}-of-{of:05}.{extension}");
    Some((1..=of.min(MAX_SHARDS)).map(|number| directory.join(name(number))).collect())
}

fn file_names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// A name with a number of training steps in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) steps: u64,
    /// The name, up to the end of `suffix`.
    pub(super) name: String,
    /// Other step numbers found, in ascending order.
    pub(super) others: Vec<u64>,
}

/// The entry `PREFIX<number>SUFFIX…` with the highest number.
pub(super) fn find_step(directory: &Path, prefix: &str, suffix: &str) -> Result<Step, Problem> {
    let mut steps: BTreeMap<u64, String> = file_names(directory)
        .iter()
        .filter_map(|name| {
            let rest = name.strip_prefix(prefix)?;
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (digits, rest) = rest.split_at(end);
            let fits = rest.strip_prefix(suffix)?;
            (fits.is_empty() || fits.starts_with('.') && !suffix.is_empty()).then_some(())?;
            Some((digits.parse().ok()?, format!("{prefix}{digits}{suffix}")))
        })
        .collect();
    match steps.pop_last() {
        Some((number, name)) => Ok(Step { steps: number, name, others: steps.into_keys().collect() }),
        None => Err(Problem::MissingFile {
            path: directory.to_owned(),
            what: format!("`{prefix}<steps>{suffix}`"),
            looked_for: format!("names such as {prefix}15000{suffix}"),
        }),
    }
}

/// A text file of bounded size.
pub(super) fn read_text(path: &Path) -> Result<String, Problem> {
    let problem = |message: String| Problem::Config { path: path.to_owned(), message };
    let file = File::open(path).map_err(|e| problem(format!("cannot be read: {e}")))?;
    let mut text = String::new();
    file.take(MAX_TEXT_FILE + 1)
        .read_to_string(&mut text)
        .map_err(|e| problem(format!("cannot be read: {e}")))?;
    if text.len() as u64 > MAX_TEXT_FILE {
        return Err(problem(format!("has more than {MAX_TEXT_FILE} bytes")));
    }
    Ok(text)
}

/// A JSON object.
pub(super) fn read_json(path: &Path) -> Result<Value, Problem> {
    let problem = |message: String| Problem::Config { path: path.to_owned(), message };
    let value: Value =
        serde_json::from_str(&read_text(path)?).map_err(|e| problem(format!("is not valid JSON: {e}")))?;
    match value.is_object() {
        true => Ok(value),
        false => Err(problem("is no JSON object".to_owned())),
    }
}

/// The last part of a path, as a name for people.
pub(super) fn base_name(path: &Path) -> String {
    let resolved = match path.file_name() {
        Some(_) => None,
        // `.` and `..` have none of their own.
        None => path.canonicalize().ok(),
    };
    let name = resolved.as_deref().unwrap_or(path).file_name();
    name.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}
