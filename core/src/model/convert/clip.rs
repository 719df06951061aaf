//! CLIP as `transformers` stores it.

use std::path::Path;

use serde::Deserialize;

use super::Problem;
use super::configs::{self, ConfigFile};
use super::source::{Source, TRANSFORMERS};
use crate::model::checkpoint::Checkpoint;
use crate::model::{TextConfig, VisionConfig};

/// Both towers of CLIP and the projections of what they make into one space.
#[derive(Debug)]
pub struct ClipCheckpoint {
    /// The text tower.
    pub text: TextConfig,
    /// The vision tower with all its layers.
    pub vision: VisionConfig,
    /// Width of the common space.
    pub projection_size: usize,
    /// The parameters.
    pub checkpoint: Checkpoint,
}

impl ClipCheckpoint {
    /// Opens a directory with `config.json`, `preprocessor_config.json` and weights.
    ///
    /// # Errors
    /// A file is missing or damaged, or the model is none that the networks can compute.
    pub fn open(directory: &Path) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Clip {
            projection_dim: usize,
        }
        let path = directory.join("config.json");
        let Clip { projection_dim } = ConfigFile::read(&path)?.parse()?;
        let last_layer = -1;
        let preprocessor = directory.join("preprocessor_config.json");
        Ok(Self {
            text: configs::text(ConfigFile::read(&path)?)?,
            vision: configs::vision(ConfigFile::read(&path)?, &preprocessor, last_layer)?,
            projection_size: projection_dim,
            checkpoint: Source::open(directory, TRANSFORMERS)?.into_checkpoint(),
        })
    }
}
