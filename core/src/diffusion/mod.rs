//! Noise schedules, samplers, guidance and the denoising loop.
//!
//! Everything here is arithmetic on host arrays of `f32`, without I/O: [`Denoising`] says what the denoiser is to
//! be run on and takes what it predicts.

mod denoising;
mod guidance;
mod noise;
mod schedule;
mod torch_noise;

pub use denoising::{DenoiserInput, Denoising};
pub use guidance::{BRANCHES, Branch, Guidance};
pub use noise::{NoiseSource, RecordedNoise, SeededNoise};
pub use schedule::{Schedule, alphas_cumprod};
pub use torch_noise::TorchNoise;

/// The denoising loop cannot begin or go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DiffusionError {
    /// The number of steps is none the schedule can have.
    #[error("steps must be between 1 and {max}, not {steps}")]
    Steps {
        /// Steps asked for.
        steps: usize,
        /// Training steps, of which the steps are a choice.
        max: usize,
    },
    /// The training schedule of the model's configuration makes no sense.
    #[error("scheduler configuration: {0}")]
    Config(String),
    /// A guidance scale is not a number, or infinite.
    #[error("{scale} guidance must be a finite number, not {value}")]
    Guidance {
        /// `text` or `image`.
        scale: &'static str,
        /// The value given.
        value: f32,
    },
    /// An array has another shape than the loop needs.
    #[error("{array} have shape {found:?}, {expected:?} is needed")]
    Shape {
        /// What the array holds.
        array: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// The shape needed.
        expected: Vec<usize>,
    },
    /// A step that the schedule does not have.
    #[error("there is no step {index}: the schedule has {steps}, counted from 0")]
    NoStep {
        /// The step asked for.
        index: usize,
        /// Steps of the schedule.
        steps: usize,
    },
    /// The sampler adds noise in each step, and none was given.
    #[error("the sampler needs noise for step {index}")]
    NoNoise {
        /// The step.
        index: usize,
    },
    /// More noise is asked for than was recorded.
    #[error("only {recorded} arrays of noise are recorded, one more is needed")]
    NoiseExhausted {
        /// Arrays there were.
        recorded: usize,
    },
}

/// Checks a shape.
fn expect_shape(array: &'static str, found: &[usize], expected: &[usize]) -> Result<(), DiffusionError> {
    if found == expected {
        Ok(())
    } else {
        Err(DiffusionError::Shape { array, found: found.to_vec(), expected: expected.to_vec() })
    }
}
