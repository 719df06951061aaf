//! What an edit is asked for.

use image::RgbImage;
use ndarray::Array4;

use crate::model::SchedulerKind;
use crate::stage::StageError;
use crate::text::TextError;

/// A picture and what to change in it.
#[derive(Debug, Clone)]
pub struct EditRequest {
    /// The source picture, upright, without alpha.
    pub image: RgbImage,
    /// What to change.
    pub instruction: String,
    /// Everything else.
    pub options: EditOptions,
}

/// How an edit is made. What is `None` is the model's default.
#[derive(Debug, Clone, Default)]
pub struct EditOptions {
    /// Seed of all noise and of sampling from the language model.
    pub seed: u64,
    /// Denoising steps.
    pub steps: Option<usize>,
    /// Guidance scale of the instruction.
    pub text_guidance: Option<f32>,
    /// Guidance scale of the source image.
    pub image_guidance: Option<f32>,
    /// Size of the edited picture.
    pub resize: Option<Resize>,
    /// The sampler.
    pub scheduler: Option<SchedulerKind>,
    /// What the picture should not show; InstructPix2Pix only.
    pub negative_prompt: Option<String>,
    /// Temperature of the language model's reply; 0 is greedy.
    pub temperature: f32,
    /// Index of the prompt template; SmartEdit only.
    pub template: usize,
    /// What is accepted as the reply's image tokens; SmartEdit only.
    pub image_tokens: ImageTokens,
    /// Whether control tokens spelled out in the instruction act as such, as in the reference.
    pub control_tokens: bool,
    /// Noise of unit variance to start from, `[1, 4, height / 8, width / 8]`, instead of the seed's.
    pub initial_latents: Option<Array4<f32>>,
    /// Noise of unit variance for each step, instead of the seed's.
    pub step_noise: Option<Vec<Array4<f32>>>,
}

/// How a picture comes to the size at which it is edited. Sides must be multiples of 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// The picture's own size, each side floored to a multiple of 8.
    Keep,
    /// Exactly this size; the aspect ratio is not kept.
    Stretch {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// The largest size within this one that keeps the aspect ratio (sides floored to multiples of 8).
    Fit {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// Exactly this size, of the largest centred part with its aspect ratio.
    Crop {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
}

/// What is accepted as the image tokens of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImageTokens {
    /// From the first image token on, all 32 are fed in order: they carry no information but their states.
    #[default]
    Forced,
    /// The language model must emit all 32 itself, as in the reference.
    Free,
}

/// An edit failed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// A field of the request has a value that the model cannot take.
    #[error("{field}: {message}")]
    Invalid {
        /// The field, as it is called in requests.
        field: &'static str,
        /// What is wrong with it, and what is needed.
        message: String,
    },
    /// The language model's reply does not hold the image tokens.
    #[error("the model replied {reply:?} with {found} image tokens instead of {expected}")]
    ImageTokens {
        /// The reply.
        reply: String,
        /// Image tokens in it.
        found: usize,
        /// Image tokens needed.
        expected: usize,
    },
    /// A text cannot be tokenized.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A stage failed.
    #[error(transparent)]
    Stage(#[from] StageError),
}
