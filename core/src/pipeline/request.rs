//! What an edit is asked for.

use image::RgbImage;
use ndarray::Array4;

use super::model::{Family, Model, SmartEdit};
use crate::adapter::AdapterChoice;
use crate::decoding::{DecodingOptions, ImageTokens};
use crate::diffusion::{
    Denoising, DiffusionError, Guidance, NoiseSource, RecordedNoise, Schedule, SeededNoise, TorchNoise,
};
use crate::model::{SchedulerKind, VaeConfig};
use crate::picture::{self, PictureError, Resize};
use crate::stage::{LoadError, StageError, StageKind};
use crate::text::{Prompt, PromptTokens, TextError};

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
    /// The generator that makes noise of the seed.
    pub noise: NoiseKind,
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
    /// Whether every stage is computed, though its result be kept from before; what is computed is not kept.
    pub no_cache: bool,
    /// The adapter that is applied.
    pub adapter: AdapterChoice,
}

/// A generator of noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NoiseKind {
    /// [`SeededNoise`].
    #[default]
    ChaCha,
    /// [`TorchNoise`]: a seed gives the noise that it gives in PyTorch on a CPU.
    Torch,
}

impl NoiseKind {
    fn source(self, seed: u64) -> Box<dyn NoiseSource> {
        match self {
            Self::ChaCha => Box::new(SeededNoise::new(seed)),
            Self::Torch => Box::new(TorchNoise::new(seed)),
        }
    }
}

/// A request that has been checked, with the model's defaults filled in.
pub(super) struct Prepared {
    /// The source picture at its own size.
    pub(super) image: RgbImage,
    /// The source picture at the size at which it is edited.
    pub(super) source: RgbImage,
    /// Instruction and negative prompt for the CLIP text encoder; InstructPix2Pix only.
    pub(super) clip_ids: Vec<Vec<u32>>,
    instruction: String,
    options: EditOptions,
    schedule: Schedule,
    pub(super) guidance: Guidance,
}

impl Prepared {
    pub(super) fn new(model: &Model, request: EditRequest) -> Result<Self, EditError> {
        let EditRequest { image, instruction, options } = request;
        let defaults = &model.config().defaults;
        if instruction.trim().is_empty() {
            return Err(invalid("instruction", "must not be empty"));
        }
        if !(options.temperature >= 0.0 && options.temperature.is_finite()) {
            return Err(invalid("options.temperature", "must be a finite number that is not negative"));
        }
        let kind = options.scheduler.unwrap_or(model.config().scheduler.default);
        let schedule =
            Schedule::new(&model.config().scheduler, kind, options.steps.unwrap_or(defaults.steps))?;
        let guidance = Guidance::new(
            options.text_guidance.unwrap_or(defaults.text_guidance),
            options.image_guidance.unwrap_or(defaults.image_guidance),
        )?;
        let guidance = match model.required(StageKind::Denoiser).batches() {
            true => guidance,
            false => guidance.with_every_branch(),
        };
        let resize = options.resize.unwrap_or(match defaults.resolution {
            Some((width, height)) => Resize::Stretch { width: width as u32, height: height as u32 },
            None => Resize::Keep,
        });
        let source = picture::prepare(&image, resize)?;
        check_replay(&options, schedule.steps(), &source, &model.sizes.vae)?;

        let clip_ids = match &model.family {
            Family::SmartEdit(smartedit) => {
                if options.negative_prompt.is_some() {
                    return Err(invalid("options.negative_prompt", "is not supported by SmartEdit models"));
                }
                let templates = smartedit.prompt.templates.len();
                if options.template >= templates {
                    let message = format!("is {}; the model has {templates}", options.template);
                    return Err(EditError::Invalid { field: "options.template", message });
                }
                Vec::new()
            }
            Family::InstructPix2Pix => {
                let negative = options.negative_prompt.as_deref().unwrap_or("");
                let length = model.sizes.text.max_positions;
                let encode = |text: &str| model.clip_tokenizer.encode(text, length);
                vec![encode(&instruction)?, encode(negative)?]
            }
        };
        Ok(Self { image, source, clip_ids, instruction, options, schedule, guidance })
    }

    /// Whether results may come from before and be kept.
    pub(super) fn may_reuse(&self) -> bool {
        !self.options.no_cache
    }

    /// What the language model is asked.
    pub(super) fn prompt(&self, smartedit: &SmartEdit) -> Result<PromptTokens, EditError> {
        let template = &smartedit.prompt.templates[self.options.template];
        let prompt = Prompt::new(&smartedit.prompt.system, template, &self.instruction);
        Ok(prompt.encode(&smartedit.tokenizer, self.options.control_tokens)?)
    }

    /// How the language model's reply is chosen.
    pub(super) fn decoding(&self, smartedit: &SmartEdit) -> DecodingOptions {
        DecodingOptions {
            image_tokens: self.options.image_tokens,
            temperature: self.options.temperature,
            seed: self.options.seed,
            drafts: smartedit.drafts(self.options.template),
            max_positions: smartedit.max_positions,
            ..DecodingOptions::default()
        }
    }

    /// The denoising loop, to be run.
    pub(super) fn denoising(&mut self, image_latents: Array4<f32>) -> Result<Denoising, EditError> {
        let initial = self.options.initial_latents.take();
        let mut seeded = self.options.noise.source(self.options.seed);
        let noise: Box<dyn NoiseSource> = match self.options.step_noise.take() {
            Some(steps) => {
                let shape = image_latents.raw_dim();
                let first = match &initial {
                    Some(initial) => initial.clone(),
                    None => {
                        seeded.draw(image_latents.shape())?.into_shape_with_order(shape).map_err(|e| {
                            EditError::Output { stage: StageKind::VaeEncoder, message: e.to_string() }
                        })?
                    }
                };
                Box::new(RecordedNoise::new(std::iter::once(first).chain(steps)))
            }
            None => seeded,
        };
        Ok(Denoising::new(self.schedule.clone(), self.guidance, image_latents, noise, initial)?)
    }
}

fn check_replay(
    options: &EditOptions,
    steps: usize,
    source: &RgbImage,
    vae: &VaeConfig,
) -> Result<(), EditError> {
    let factor = vae.downsampling();
    let (width, height) = (source.width() as usize / factor, source.height() as usize / factor);
    let expected = [1, vae.latent_channels, height, width];
    let check = |field, latents: &Array4<f32>| {
        if latents.shape() != expected {
            let message = format!("has shape {:?}; {expected:?} is needed", latents.shape());
            return Err(EditError::Invalid { field, message });
        }
        if latents.iter().any(|value| !value.is_finite()) {
            return Err(invalid(field, "holds values that are not finite"));
        }
        Ok(())
    };
    if let Some(initial) = &options.initial_latents {
        check("options.replay.initial_latents", initial)?;
    }
    let Some(noise) = &options.step_noise else { return Ok(()) };
    let field = "options.replay.step_noise";
    if noise.len() != steps {
        let message = format!("has {} entries for {steps} steps", noise.len());
        return Err(EditError::Invalid { field, message });
    }
    noise.iter().try_for_each(|noise| check(field, noise))
}

fn invalid(field: &'static str, message: &str) -> EditError {
    EditError::Invalid { field, message: message.to_owned() }
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
    /// The picture cannot be brought to the size asked for.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The denoising loop cannot begin or go on.
    #[error(transparent)]
    Diffusion(#[from] DiffusionError),
    /// The model cannot be had with the adapter.
    #[error("options.adapter: {0}")]
    Adapter(#[source] Box<LoadError>),
    /// A stage failed.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// There is nothing left to do.
    #[error("the edit is over")]
    Over,
    /// A stage's output does not fit the next one: the model directory is inconsistent.
    #[error("{stage}: {message}")]
    Output {
        /// The stage.
        stage: StageKind,
        /// What does not fit.
        message: String,
    },
}
