//! A model whose stages are placed: what computes each, and what was wanted before that.

use std::num::NonZeroUsize;
use std::sync::Arc;

use smartedit_core::engine::Precision;
use smartedit_core::model::ModelConfig;
use smartedit_core::pipeline::{EditError, EditRequest, Model};
use smartedit_core::stage::{Stage, StageError, StageInfo, StageKind};

use super::Adapters;
use crate::config::Candidate;
use crate::work::{Editing, Editor, StepsDone, step_together};

/// A stage and what computes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedStage {
    /// What really computes it.
    pub info: StageInfo,
    /// Threads that compute it; `None`: as many as the engine takes.
    pub threads: Option<NonZeroUsize>,
    /// Whether requests can share its runs.
    pub batches: bool,
    /// What was to compute it and could not be had, in order of preference; empty: it is computed as configured.
    pub unavailable: Vec<Unavailable>,
}

/// What was to compute a stage and could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// The engine.
    pub engine: String,
    /// The device.
    pub device: String,
    /// Element type of weights and activations.
    pub precision: Precision,
    /// Names of the execution providers asked for.
    pub providers: Vec<String>,
    /// Why it could not be had, and what to do.
    pub reason: String,
}

impl Unavailable {
    pub(super) fn new(candidate: &Candidate, reason: String) -> Self {
        let options = &candidate.options;
        Self {
            engine: candidate.engine.clone(),
            device: options.device.clone(),
            precision: options.precision,
            providers: options.providers.iter().map(|provider| provider.name.clone()).collect(),
            reason,
        }
    }
}

/// A loaded model and how its stages came to be placed.
pub(super) struct PlacedModel {
    pub(super) model: Arc<Model>,
    pub(super) stages: Vec<PlacedStage>,
    pub(super) adapters: Adapters,
}

impl Editor for PlacedModel {
    fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    fn stages(&self) -> &[PlacedStage] {
        &self.stages
    }

    fn stage(&self, kind: StageKind) -> Option<Arc<dyn Stage>> {
        self.model.stage(kind).cloned()
    }

    fn adapters(&self) -> Option<&Adapters> {
        Some(&self.adapters)
    }

    fn edit(self: Arc<Self>, request: EditRequest) -> Result<Box<dyn Editing>, EditError> {
        Ok(Box::new(self.model.edit(request)?))
    }

    fn step_together(&self, edits: &mut [&mut dyn Editing]) -> Result<StepsDone, StageError> {
        step_together(edits)
    }
}
