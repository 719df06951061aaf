//! Three-way guidance.

use ndarray::{Array4, Axis, Zip};

use super::{DiffusionError, expect_shape};

/// Branches of one guided step: with text and image, with the image alone, with neither.
pub const BRANCHES: usize = 3;

/// A branch of one guided step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Branch {
    /// With text and image.
    Text,
    /// With the image alone.
    Image,
    /// With neither.
    Unconditional,
}

impl Branch {
    /// Every branch, in the order of the rows of a step.
    pub const ALL: [Self; BRANCHES] = [Self::Text, Self::Image, Self::Unconditional];

    /// Whether the denoiser sees the source image.
    pub const fn has_image(self) -> bool {
        matches!(self, Self::Text | Self::Image)
    }
}

/// How much the text and the source image steer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    text: f32,
    image: f32,
    every_branch: bool,
}

impl Guidance {
    /// Both scales must be finite.
    pub fn new(text: f32, image: f32) -> Result<Self, DiffusionError> {
        for (scale, value) in [("text", text), ("image", image)] {
            if !value.is_finite() {
                return Err(DiffusionError::Guidance { scale, value });
            }
        }
        Ok(Self { text, image, every_branch: false })
    }

    /// The same with all branches, also those that do not count: for denoisers that take no other number of rows.
    #[must_use]
    pub fn with_every_branch(self) -> Self {
        Self { every_branch: true, ..self }
    }

    /// The scale of the text.
    pub fn text(&self) -> f32 {
        self.text
    }

    /// The scale of the source image.
    pub fn image(&self) -> f32 {
        self.image
    }

    /// The branches that a step needs, in the order of [`Branch::ALL`]: those whose predictions have a weight that is
    /// not zero in [`Guidance::apply`]. There is always one.
    pub fn branches(&self) -> Vec<Branch> {
        let counts = |branch: &Branch| match branch {
            Branch::Text => self.text != 0.0,
            Branch::Image => self.image != self.text,
            Branch::Unconditional => self.image != 1.0,
        };
        Branch::ALL.into_iter().filter(|branch| self.every_branch || counts(branch)).collect()
    }

    /// `u + s_T (t − i) + s_I (i − u)` of the branches text `t`, image `i`, unconditional `u`. A branch that does not
    /// count is left out of the sum, which is then one of fewer terms: `u + s (t − u)` without the image branch, `t`
    /// alone where both scales are 1.
    ///
    /// # Shapes
    /// `prediction`: `[branches, c, h, w]`, the rows of [`Guidance::branches`]; the result: `[1, c, h, w]`.
    pub fn apply(&self, prediction: &Array4<f32>) -> Result<Array4<f32>, DiffusionError> {
        let branches = self.branches();
        let (_, channels, height, width) = prediction.dim();
        expect_shape("predictions", prediction.shape(), &[branches.len(), channels, height, width])?;
        let row = |index| prediction.index_axis(Axis(0), index);
        let mut guided = row(branches.len() - 1).to_owned();
        for (index, branch) in branches.iter().enumerate().take(branches.len() - 1) {
            let scale = if *branch == Branch::Text { self.text } else { self.image };
            Zip::from(&mut guided)
                .and(row(index))
                .and(row(index + 1))
                .for_each(|sum, &with, &without| *sum += scale * (with - without));
        }
        Ok(guided.insert_axis(Axis(0)))
    }
}
