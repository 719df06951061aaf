//! What a worker needs of a model.

use std::any::Any;
use std::sync::Arc;

use image::RgbImage;
use ndarray::Array4;
use smartedit_core::model::ModelConfig;
use smartedit_core::pipeline::{Edit, EditError, EditRequest, NextStep, Progress};
use smartedit_core::stage::{Stage, StageError, StageKind};

use crate::deployment::{Adapters, PlacedStage};

/// A loaded model, shared by the workers of a deployment.
pub trait Editor: Send + Sync {
    /// The content of `model.json`.
    fn config(&self) -> &ModelConfig;

    /// Its stages and what computes them.
    fn stages(&self) -> &[PlacedStage];

    /// A stage, if it has one of this kind.
    fn stage(&self, kind: StageKind) -> Option<Arc<dyn Stage>>;

    /// The adapters that requests may choose; `None` if it can have none.
    fn adapters(&self) -> Option<&Adapters> {
        None
    }

    /// Checks a request and prepares its edit.
    fn edit(self: Arc<Self>, request: EditRequest) -> Result<Box<dyn Editing>, EditError>;

    /// Does the next step of several edits of this model in one run: what each of them did, in their order. Only edits
    /// whose steps are [shareable](NextStep::shareable), and of one size and adapter, are given.
    ///
    /// # Errors
    ///
    /// The run failed as a whole. No step is done, and each edit can be advanced by itself.
    fn step_together(&self, edits: &mut [&mut dyn Editing]) -> Result<StepsDone, StageError>;
}

/// What became of each edit of a run.
pub type StepsDone = Vec<Result<Progress, EditError>>;

/// An edit in the making; see [`Edit`].
pub trait Editing: Any + Send {
    /// Does the next unit of work.
    fn advance(&mut self) -> Result<Progress, EditError>;

    /// The denoising step that is the next unit of work, if it is one.
    fn next_step(&self) -> Option<NextStep>;

    /// The latents after the denoising steps done so far, `[1, c, h, w]`; `None` outside the denoising loop.
    fn latents(&self) -> Option<&Array4<f32>>;

    /// Decodes the picture as it is predicted so far; `None` outside the denoising loop.
    fn preview(&mut self) -> Result<Option<RgbImage>, EditError>;
}

impl Editing for Edit {
    fn advance(&mut self) -> Result<Progress, EditError> {
        Edit::advance(self)
    }

    fn next_step(&self) -> Option<NextStep> {
        Edit::next_step(self)
    }

    fn latents(&self) -> Option<&Array4<f32>> {
        Edit::latents(self)
    }

    fn preview(&mut self) -> Result<Option<RgbImage>, EditError> {
        Edit::preview(self)
    }
}

/// Does the next step of several edits of the core's own in one run.
///
/// # Errors
///
/// As [`Editor::step_together`]; one of them is another kind of edit.
pub fn step_together(edits: &mut [&mut dyn Editing]) -> Result<StepsDone, StageError> {
    let own = edits.iter_mut().map(|edit| {
        let edit: &mut dyn Any = *edit;
        edit.downcast_mut::<Edit>()
    });
    let own: Option<Vec<&mut Edit>> = own.collect();
    let stage = smartedit_core::stage::StageKind::Denoiser;
    Edit::step_together(&mut own.ok_or(StageError::Foreign { stage })?)
}
