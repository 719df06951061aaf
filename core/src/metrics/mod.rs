//! How well an edit follows its instruction and keeps the rest.
//!
//! [`Background`] holds what the Reason-Edit benchmark measures outside the edited region (PSNR, SSIM, MSE), and
//! [`alignment()`] whether an edit is the one that was asked for, where the true outcome and wrong ones are known.

mod alignment;
mod background;
mod mask;

pub use alignment::{Alignment, KEPT_DECIBELS, Misalignment, Outcomes, SAME_LEVELS, alignment, differ};
pub use background::{Background, BackgroundDifference, SIDE};
pub use mask::{Bounds, Mask};

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
