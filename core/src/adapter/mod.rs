//! LoRA adapters: low-rank updates of the layers of a denoiser and a language model, read from a file.
//!
//! An adapter is merged into a model's weights when those are loaded ([`WeightFile::with_update`]), which costs nothing
//! afterwards, or chosen by an edit ([`AdapterChoice`]), for which its update is computed beside the weights.
//!
//! [`WeightFile::with_update`]: crate::weights::WeightFile::with_update

mod alpha;
mod file;
mod names;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::Key;
use crate::model::ModelConfig;
use crate::stage::StageKind;
use crate::weights::{Layers, Update};

/// Stages whose layers an adapter may update.
pub const ADAPTED: [StageKind; 2] = [StageKind::LanguageModel, StageKind::Denoiser];

/// An adapter cannot be had. No message names a path.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The file is larger than it may be.
    #[error("the file has {bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Its bytes.
        bytes: u64,
        /// The bytes it may have.
        limit: u64,
    },
    /// The file is no safetensors file, or a damaged one.
    #[error("the file is not a valid safetensors file: {0}")]
    Format(String),
    /// What is said of rank and alpha cannot be used.
    #[error("{name}: {message}")]
    Config {
        /// Where it is said.
        name: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// A tensor cannot be used.
    #[error("tensor `{key}` {message}")]
    Tensor {
        /// Its name in the file.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// A tensor's shape does not fit the layer that it updates.
    #[error("tensor `{key}` has shape {found:?}; layer `{layer}` of the {stage} needs {expected:?}")]
    Shape {
        /// Its name in the file.
        key: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The layer.
        layer: String,
        /// The stage that has the layer.
        stage: StageKind,
        /// The shape that fits.
        expected: Vec<usize>,
    },
    /// The file updates no layer.
    #[error("the file updates no layer")]
    Empty,
}

/// A LoRA adapter in the host's memory. The file is not looked at again.
pub struct Adapter {
    digest: Key,
    bytes: usize,
    rank: usize,
    stages: BTreeMap<StageKind, Arc<Layers>>,
}

impl Adapter {
    /// Reads an adapter for a model from a safetensors file, or from the directory in which PEFT or diffusers have
    /// written it: in their layouts, or in that of kohya's scripts.
    ///
    /// # Errors
    ///
    /// The file has more than `max_bytes`, or does not fit the model.
    pub fn read(path: &Path, model: &ModelConfig, max_bytes: u64) -> Result<Self, AdapterError> {
        file::read(path, model, max_bytes)
    }

    /// The files that [`Adapter::read`] reads of a path.
    ///
    /// # Errors
    ///
    /// There is nothing, or a directory that is no adapter's.
    pub fn files(path: &Path) -> Result<Vec<PathBuf>, AdapterError> {
        file::files(path)
    }

    /// Tells its content from every other one's.
    pub fn digest(&self) -> Key {
        self.digest
    }

    /// Bytes of its factors.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The largest rank of its factors.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The stages that it updates, and how many layers of each.
    pub fn stages(&self) -> impl Iterator<Item = (StageKind, usize)> {
        self.stages.iter().map(|(stage, layers)| (*stage, layers.len()))
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adapter")
            .field("digest", &self.digest)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// An adapter and how strong it is: 1 as it was trained, 0 not at all.
#[derive(Debug, Clone)]
pub struct Strength {
    /// The adapter.
    pub adapter: Arc<Adapter>,
    /// What its updates are multiplied with.
    pub scale: f32,
}

impl Strength {
    /// The update of a stage; `None` if the adapter has none.
    pub fn update(&self, stage: StageKind) -> Option<Update> {
        let layers = self.adapter.stages.get(&stage)?.clone();
        Some(Update { layers, scale: self.scale })
    }
}

/// The adapter of an edit.
#[derive(Debug, Clone, Default)]
pub enum AdapterChoice {
    /// The one that is merged into the model's weights, if one is.
    #[default]
    Default,
    /// None, not even that one.
    None,
    /// This one instead.
    Of(Strength),
}

impl AdapterChoice {
    /// What has to be added to the weights of a model into which `merged` has been merged.
    pub(crate) fn beside(&self, merged: Option<&Strength>) -> Vec<Strength> {
        let wanted = match self {
            Self::Default => return Vec::new(),
            Self::None => None,
            Self::Of(strength) => Some(strength.clone()),
        };
        let mut added: Vec<Strength> = wanted.into_iter().collect();
        if let Some(Strength { adapter, scale }) = merged {
            match added.iter_mut().find(|added| added.adapter.digest == adapter.digest) {
                Some(added) => added.scale -= scale,
                None => added.push(Strength { adapter: adapter.clone(), scale: -scale }),
            }
        }
        added.retain(|added| added.scale != 0.0);
        added
    }
}

#[cfg(test)]
mod tests;
