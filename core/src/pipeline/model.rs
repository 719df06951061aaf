//! A loaded model: configuration, tokenizers and stages.

use std::path::Path;
use std::sync::Arc;

use crate::model::{ModelConfig, NetworkConfig};
use crate::pipeline::{Edit, EditError, EditRequest};
use crate::stage::{LoadError, Stage, StageInfo};
use crate::weights::WeightFile;

/// A model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A stage cannot be loaded.
    #[error(transparent)]
    Stage(#[from] LoadError),
}

/// A model directory with all stages loaded; shared by all requests.
pub struct Model {
    config: ModelConfig,
}

impl Model {
    /// Loads a model directory; `load` turns each stage's network and weights into a stage on an engine.
    pub fn load(
        _directory: &Path,
        _load: impl FnMut(&NetworkConfig, &WeightFile) -> Result<Arc<dyn Stage>, LoadError>,
    ) -> Result<Self, ModelError> {
        unimplemented!()
    }

    /// The content of `model.json`.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What computes each stage.
    pub fn stages(&self) -> Vec<&StageInfo> {
        unimplemented!()
    }

    /// Checks a request and prepares its edit; computes nothing yet.
    pub fn edit(self: &Arc<Self>, _request: EditRequest) -> Result<Edit, EditError> {
        unimplemented!()
    }
}
