//! An edit in the making.

use image::RgbImage;

use crate::pipeline::EditError;
use crate::stage::StageKind;

/// What one [`Edit::advance`] did.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// The next unit of work belongs to this stage, which has not begun yet.
    StageStarted(StageKind),
    /// A stage has done all it had to.
    StageFinished(StageKind),
    /// The language model has been run; its reply has this many tokens so far.
    Tokens(usize),
    /// The assistant's reply, image tokens left out.
    Reply(String),
    /// A denoising step is done.
    Step {
        /// Steps done.
        done: usize,
        /// Steps in all.
        total: usize,
    },
    /// The edit is whole.
    Finished(EditOutput),
}

/// An edited picture.
#[derive(Debug, Clone, PartialEq)]
pub struct EditOutput {
    /// The picture.
    pub image: RgbImage,
    /// The assistant's reply; `None` where no language model takes part.
    pub reply: Option<String>,
}

/// An edit in the making.
pub struct Edit {}

impl Edit {
    /// Does the next unit of work. After [`Progress::Finished`] or an error there is none.
    pub fn advance(&mut self) -> Result<Progress, EditError> {
        unimplemented!()
    }

    /// Decodes the picture as it is predicted so far; `None` outside the denoising loop.
    pub fn preview(&self) -> Result<Option<RgbImage>, EditError> {
        unimplemented!()
    }
}
