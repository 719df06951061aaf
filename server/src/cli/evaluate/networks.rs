//! Scores that need networks.

use image::RgbImage;
use smartedit_core::metrics::{Background, Mask};

/// The networks of scores, as far as their weights were given.
#[derive(Default)]
pub(super) struct Networks;

impl Networks {
    /// Perceptual distance of the backgrounds.
    pub(super) fn lpips(&self, _: &Background) -> Result<Option<f64>, String> {
        Ok(None)
    }

    /// How well the edited region fits its caption.
    pub(super) fn clip_score(&self, _: &RgbImage, _: &Mask, _: &str) -> Result<Option<f64>, String> {
        Ok(None)
    }
}
