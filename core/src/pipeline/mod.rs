//! Pipelines: stages and loops composed into an edit.
//!
//! An [`Edit`] is a state machine: every [`Edit::advance`] does one bounded unit of work (one stage, one token,
//! one denoising step) and says what it did. Whoever drives it decides between any two units whether to go on,
//! which is how cancellation, deadlines and scheduling across requests work without this module knowing them. Denoising
//! steps of several edits may be one unit: [`Edit::step_together`].
//!
//! A [`Model`] may be given a [`StageCache`](crate::cache::StageCache): what comes before the denoising loop is then
//! computed once for all edits that need the same.

mod adapted;
mod caching;
mod edit;
mod language;
mod model;
mod prefix;
mod request;

pub use edit::{Edit, EditOutput, NextStep, Progress};
pub use model::{Model, ModelError, Tokenizers};
pub use request::{EditError, EditOptions, EditRequest, NoiseKind};

pub use crate::decoding::ImageTokens;
pub use crate::picture::Resize;
