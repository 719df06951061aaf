//! How well an edit follows its instruction and keeps the rest.
//!
//! [`Background`] holds what the Reason-Edit benchmark measures outside the edited region (PSNR, SSIM, MSE, and by a
//! network [`Lpips`]), [`ClipScore`] measures how well the edited region fits a caption, and [`alignment()`] whether an
//! edit is the one that was asked for, where the true outcome and wrong ones are known.

mod alignment;
mod background;
mod clip_score;
mod lpips;
mod mask;
mod scenario;

pub use alignment::{Alignment, KEPT_DECIBELS, Misalignment, Outcomes, SAME_LEVELS, alignment, differ};
pub use background::{Background, BackgroundDifference, SIDE};
pub use clip_score::{ClipScore, edited_part};
pub use lpips::Lpips;
pub use mask::{Bounds, Mask};
pub use scenario::Scenario;

use crate::engine::EngineError;
use crate::model::checkpoint::CheckpointError;
use crate::model::convert::Problem;
use crate::text::TextError;
use crate::weights::WeightsError;

/// A network that measures cannot be loaded, or fails.
#[derive(Debug, thiserror::Error)]
pub enum MetricError {
    /// Its checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Its configuration or a file of it cannot be used.
    #[error(transparent)]
    Config(#[from] Problem),
    /// A parameter cannot be had.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A text cannot be tokenized.
    #[error(transparent)]
    Text(#[from] TextError),
    /// An operation failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Pictures cannot be compared: their sizes differ.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {}×{} pixels, the source {}×{}", size.0, size.1, source_size.0, source_size.1)]
pub struct SizeMismatch {
    /// Which picture.
    pub what: String,
    /// Its width and height.
    pub size: (u32, u32),
    /// The source's width and height.
    pub source_size: (u32, u32),
}
