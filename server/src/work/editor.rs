//! What a worker needs of a model.

use std::sync::Arc;

use image::RgbImage;
use ndarray::Array4;
use smartedit_core::model::ModelConfig;
use smartedit_core::pipeline::{Edit, EditError, EditRequest, Progress};
use smartedit_core::stage::{Stage, StageKind};

use crate::deployment::PlacedStage;

/// A loaded model, shared by the workers of a deployment.
pub trait Editor: Send + Sync {
    /// The content of `model.json`.
    fn config(&self) -> &ModelConfig;

    /// Its stages and what computes them.
    fn stages(&self) -> &[PlacedStage];

    /// A stage, if it has one of this kind.
    fn stage(&self, kind: StageKind) -> Option<Arc<dyn Stage>>;

    /// Checks a request and prepares its edit.
    fn edit(self: Arc<Self>, request: EditRequest) -> Result<Box<dyn Editing>, EditError>;
}

/// An edit in the making; see [`Edit`].
pub trait Editing {
    /// Does the next unit of work.
    fn advance(&mut self) -> Result<Progress, EditError>;

    /// The latents after the denoising steps done so far, `[1, c, h, w]`; `None` outside the denoising loop.
    fn latents(&self) -> Option<&Array4<f32>>;

    /// Decodes the picture as it is predicted so far; `None` outside the denoising loop.
    fn preview(&mut self) -> Result<Option<RgbImage>, EditError>;
}

impl Editing for Edit {
    fn advance(&mut self) -> Result<Progress, EditError> {
        Edit::advance(self)
    }

    fn latents(&self) -> Option<&Array4<f32>> {
        Edit::latents(self)
    }

    fn preview(&mut self) -> Result<Option<RgbImage>, EditError> {
        Edit::preview(self)
    }
}
