//! The denoising loop as a state machine without I/O.

use ndarray::{Array4, Axis, Ix4, concatenate};

use super::{Branch, DiffusionError, Guidance, NoiseSource, Schedule, expect_shape};

/// What the denoiser is to be run on.
#[derive(Debug, Clone, PartialEq)]
pub struct DenoiserInput {
    /// `[branches, 2c, h, w]`: for each of [`Denoising::branches`] the noisy latents, scaled, then the latents of the
    /// source image, unscaled; zeros in the unconditional branch.
    pub sample: Array4<f32>,
    /// The timestep, the same for all branches.
    pub timestep: f32,
}

/// Latents on their way from noise to a picture.
///
/// [`Denoising::next_input`] says what the denoiser is to be run on, [`Denoising::advance`] takes what it predicts,
/// until there is no next input.
pub struct Denoising {
    schedule: Schedule,
    guidance: Guidance,
    image_latents: Array4<f32>,
    noise: Box<dyn NoiseSource>,
    latents: Array4<f32>,
    predicted_original: Option<Array4<f32>>,
    done: usize,
}

impl Denoising {
    /// Begins with noise.
    ///
    /// Noise of unit variance is drawn first for the beginning, then, where the sampler needs it, for each step, the
    /// last one included. With `initial` that is the beginning instead, and what is drawn for it is dropped: the
    /// steps' noise stays the source's.
    ///
    /// # Shapes
    /// `image_latents` and `initial`: `[1, c, h, w]`.
    pub fn new(
        schedule: Schedule,
        guidance: Guidance,
        image_latents: Array4<f32>,
        mut noise: Box<dyn NoiseSource>,
        initial: Option<Array4<f32>>,
    ) -> Result<Self, DiffusionError> {
        let (batch, channels, height, width) = image_latents.dim();
        expect_shape("image latents", &[batch, channels, height, width], &[1, channels, height, width])?;
        let drawn = draw(noise.as_mut(), image_latents.shape())?;
        let initial = initial.unwrap_or(drawn);
        expect_shape("initial latents", initial.shape(), image_latents.shape())?;
        let latents = initial * schedule.init_noise_sigma();
        Ok(Self { schedule, guidance, image_latents, noise, latents, predicted_original: None, done: 0 })
    }

    /// The branches that the denoiser is run on in each step.
    pub fn branches(&self) -> Vec<Branch> {
        self.guidance.branches()
    }

    /// What the denoiser is to be run on next; `None` when all steps are done.
    pub fn next_input(&self) -> Option<DenoiserInput> {
        let timestep = self.schedule.timestep(self.done).ok()?;
        let scaled = self.schedule.scale_input(&self.latents, self.done).ok()?;
        let zeros = Array4::zeros(self.image_latents.raw_dim());
        let with_image = concatenate(Axis(1), &[scaled.view(), self.image_latents.view()]).ok()?;
        let without = concatenate(Axis(1), &[scaled.view(), zeros.view()]).ok()?;
        let row = |branch: Branch| if branch.has_image() { with_image.view() } else { without.view() };
        let rows: Vec<_> = self.branches().into_iter().map(row).collect();
        let sample = concatenate(Axis(0), &rows).ok()?;
        Some(DenoiserInput { sample, timestep })
    }

    /// Takes what the denoiser predicts for the last [`Denoising::next_input`], and does the step. After an error
    /// the step is not done.
    ///
    /// # Shapes
    /// `prediction`: `[branches, c, h, w]`, the noise predicted for each of [`Denoising::branches`].
    pub fn advance(&mut self, prediction: &Array4<f32>) -> Result<(), DiffusionError> {
        let (_, channels, height, width) = self.latents.dim();
        expect_shape("predictions", prediction.shape(), &[self.branches().len(), channels, height, width])?;
        self.schedule.timestep(self.done)?;
        let guided = self.guidance.apply(prediction)?;
        let noise = match self.schedule.needs_noise() {
            true => Some(draw(self.noise.as_mut(), self.latents.shape())?),
            false => None,
        };
        let original = self.schedule.predicted_original(&self.latents, &guided, self.done)?;
        self.latents = self.schedule.step(&self.latents, &guided, self.done, noise.as_ref())?;
        self.predicted_original = Some(original);
        self.done += 1;
        Ok(())
    }

    /// The latents after the steps done so far, `[1, c, h, w]`.
    pub fn latents(&self) -> &Array4<f32> {
        &self.latents
    }

    /// The noise-free latents as the last step predicted them, `[1, c, h, w]`; `None` before the first.
    pub fn predicted_original(&self) -> Option<&Array4<f32>> {
        self.predicted_original.as_ref()
    }

    /// Steps done.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Steps in all.
    pub fn total(&self) -> usize {
        self.schedule.steps()
    }
}

fn draw(noise: &mut dyn NoiseSource, shape: &[usize]) -> Result<Array4<f32>, DiffusionError> {
    let drawn = noise.draw(shape)?;
    expect_shape("noise values", drawn.shape(), shape)?;
    let found = drawn.shape().to_vec();
    drawn.into_dimensionality::<Ix4>().map_err(|_| DiffusionError::Shape {
        array: "noise values",
        found,
        expected: shape.to_vec(),
    })
}
