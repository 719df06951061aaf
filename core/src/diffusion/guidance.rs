//! Three-way guidance.

use ndarray::{Array4, Axis, Zip};

use super::{DiffusionError, expect_shape};

/// Branches of one guided step: with text and image, with the image alone, with neither.
pub const BRANCHES: usize = 3;

/// How much the text and the source image steer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    text: f32,
    image: f32,
}

impl Guidance {
    /// Both scales must be finite.
    pub fn new(text: f32, image: f32) -> Result<Self, DiffusionError> {
        for (scale, value) in [("text", text), ("image", image)] {
            if !value.is_finite() {
                return Err(DiffusionError::Guidance { scale, value });
            }
        }
        Ok(Self { text, image })
    }

    /// The scale of the text.
    pub fn text(&self) -> f32 {
        self.text
    }

    /// The scale of the source image.
    pub fn image(&self) -> f32 {
        self.image
    }

    /// `u + s_T (t − i) + s_I (i − u)` of the branches text `t`, image `i`, unconditional `u`.
    ///
    /// # Shapes
    /// `prediction`: `[3, c, h, w]`; the result: `[1, c, h, w]`.
    pub fn apply(&self, prediction: &Array4<f32>) -> Result<Array4<f32>, DiffusionError> {
        let (branches, channels, height, width) = prediction.dim();
        expect_shape(
            "predictions",
            &[branches, channels, height, width],
            &[BRANCHES, channels, height, width],
        )?;
        let branch = |index| prediction.index_axis(Axis(0), index);
        let guided = Zip::from(branch(0))
            .and(branch(1))
            .and(branch(2))
            .map_collect(|&t, &i, &u| u + self.text * (t - i) + self.image * (i - u));
        Ok(guided.insert_axis(Axis(0)))
    }
}
