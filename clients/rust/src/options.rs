//! How an edit is made.

use bytes::Bytes;
use smartedit_proto::v1;

/// How an edit is made. What is `None` is the deployment's default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EditOptions {
    /// Seed of all noise and of sampling from the language model; `None` is a random one.
    pub seed: Option<u64>,
    /// Denoising steps.
    pub steps: Option<u32>,
    /// Guidance scale of the instruction.
    pub text_guidance: Option<f32>,
    /// Guidance scale of the source image.
    pub image_guidance: Option<f32>,
    /// How the picture comes to the size at which it is edited.
    pub resize: Resize,
    /// The sampler.
    pub scheduler: Option<Scheduler>,
    /// Temperature of the language model's reply; 0, the default, is greedy.
    pub temperature: Option<f32>,
    /// Index of the prompt template.
    pub template: Option<u32>,
    /// What counts as the image tokens of a reply.
    pub image_tokens: Option<ImageTokens>,
    /// The generator that makes noise of the seed.
    pub noise_source: Option<NoiseSource>,
    /// What the picture should not show; InstructPix2Pix models only.
    pub negative_prompt: Option<String>,
    /// After every how many steps a stream shows a preview; `None` or 0: never.
    pub preview_interval: Option<u32>,
    /// File format of the edited picture; PNG by default.
    pub output_format: Option<OutputFormat>,
    /// Quality of JPEG output, 1 to 100.
    pub output_quality: Option<u32>,
    /// Whether the work goes on when this client goes away.
    pub keep_on_disconnect: bool,
    /// What is made of the file's EXIF orientation; applied by default.
    pub exif_orientation: Option<ExifOrientation>,
    /// What is made of the file's transparency; laid over white by default.
    pub alpha_mode: Option<AlphaMode>,
    /// Whether control tokens spelled out in the instruction act as such.
    pub control_tokens: bool,
    /// Recorded noise to use instead of the seed's.
    pub replay: Option<Replay>,
    /// Whether every stage is computed, though its result be kept from an earlier request; for measurements.
    pub no_cache: bool,
    /// How urgent the edit is; interactive by default.
    pub priority: Option<Priority>,
    /// On whose account the edit is made; `None` is the host that it comes from.
    pub caller: Option<String>,
    /// The LoRA adapter; `None` is the deployment's default one, `"none"` no adapter.
    pub adapter: Option<String>,
    /// How strong the adapter is: 1 as it was trained; `None` as the deployment says.
    pub adapter_scale: Option<f32>,
    /// What keeps edits on one deployment of a route; `None` is any of them.
    pub route_key: Option<String>,
}

/// How urgent an edit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for it.
    Interactive,
    /// It is done with what interactive edits leave, a ninth at least.
    Batch,
}

/// How a picture comes to the size at which it is edited. Sides must be multiples of 8.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Resize {
    /// As the deployment does by default.
    #[default]
    Default,
    /// The picture's own size, sides rounded down to multiples of 8.
    Keep,
    /// Exactly this width and height; the aspect ratio is not kept.
    Stretch(u32, u32),
    /// The largest size within this width and height that keeps the aspect ratio.
    Fit(u32, u32),
    /// Exactly this width and height, of the largest centred part with its aspect ratio.
    Crop(u32, u32),
}

/// A sampler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// Euler with fresh noise in each step.
    EulerAncestral,
    /// Euler.
    Euler,
    /// Denoising diffusion implicit model.
    Ddim,
}

/// What counts as the image tokens of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageTokens {
    /// From the first image token on, all are fed in order.
    Forced,
    /// The language model must emit every one itself.
    Free,
}

/// A generator of Gaussian noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoiseSource {
    /// The server's own, documented generator.
    ChaCha,
    /// PyTorch's on CPU: a seed gives the noise that it gives in diffusers.
    Torch,
}

/// File format of an edited picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// Lossless WebP.
    WebP,
}

/// What is made of a file's EXIF orientation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExifOrientation {
    /// The picture is turned upright.
    Apply,
    /// The picture is taken as it is stored.
    Ignore,
}

/// What is made of a file's transparency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlphaMode {
    /// The picture is laid over white.
    White,
    /// Transparency is dropped.
    Drop,
}

/// Recorded noise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replay {
    /// Noise to start from, `[1, 4, height / 8, width / 8]`.
    pub initial_latents: Option<Tensor>,
    /// Noise for each step, or nothing.
    pub step_noise: Vec<Tensor>,
}

/// A dense array of floats.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tensor {
    /// The size of every dimension, outermost first.
    pub shape: Vec<u32>,
    /// The elements in row-major order.
    pub data: Vec<f32>,
}

impl From<Tensor> for v1::Tensor {
    fn from(tensor: Tensor) -> Self {
        let data: Vec<u8> = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { shape: tensor.shape, data: Bytes::from(data) }
    }
}

impl From<EditOptions> for v1::EditOptions {
    fn from(options: EditOptions) -> Self {
        let (resize_mode, resolution) = resize(options.resize);
        Self {
            seed: options.seed,
            steps: options.steps,
            text_guidance: options.text_guidance,
            image_guidance: options.image_guidance,
            resolution,
            resize_mode: resize_mode.into(),
            scheduler: match options.scheduler {
                None => v1::Scheduler::Unspecified,
                Some(Scheduler::EulerAncestral) => v1::Scheduler::EulerAncestral,
                Some(Scheduler::Euler) => v1::Scheduler::Euler,
                Some(Scheduler::Ddim) => v1::Scheduler::Ddim,
            }
            .into(),
            temperature: options.temperature,
            template: options.template,
            image_tokens: match options.image_tokens {
                None => v1::ImageTokens::Unspecified,
                Some(ImageTokens::Forced) => v1::ImageTokens::Forced,
                Some(ImageTokens::Free) => v1::ImageTokens::Free,
            }
            .into(),
            noise_source: match options.noise_source {
                None => v1::NoiseSource::Unspecified,
                Some(NoiseSource::ChaCha) => v1::NoiseSource::Chacha,
                Some(NoiseSource::Torch) => v1::NoiseSource::Torch,
            }
            .into(),
            negative_prompt: options.negative_prompt,
            preview_interval: options.preview_interval,
            output_format: match options.output_format {
                None => v1::OutputFormat::Unspecified,
                Some(OutputFormat::Png) => v1::OutputFormat::Png,
                Some(OutputFormat::Jpeg) => v1::OutputFormat::Jpeg,
                Some(OutputFormat::WebP) => v1::OutputFormat::Webp,
            }
            .into(),
            output_quality: options.output_quality,
            keep_on_disconnect: options.keep_on_disconnect,
            exif_orientation: match options.exif_orientation {
                None => v1::ExifOrientation::Unspecified,
                Some(ExifOrientation::Apply) => v1::ExifOrientation::Apply,
                Some(ExifOrientation::Ignore) => v1::ExifOrientation::Ignore,
            }
            .into(),
            alpha_mode: match options.alpha_mode {
                None => v1::AlphaMode::Unspecified,
                Some(AlphaMode::White) => v1::AlphaMode::White,
                Some(AlphaMode::Drop) => v1::AlphaMode::Drop,
            }
            .into(),
            control_tokens: options.control_tokens,
            no_cache: options.no_cache,
            priority: match options.priority {
                None => v1::Priority::Unspecified,
                Some(Priority::Interactive) => v1::Priority::Interactive,
                Some(Priority::Batch) => v1::Priority::Batch,
            }
            .into(),
            caller: options.caller.unwrap_or_default(),
            adapter: options.adapter,
            adapter_scale: options.adapter_scale,
            route_key: options.route_key.unwrap_or_default(),
            replay: options.replay.map(|replay| v1::Replay {
                initial_latents: replay.initial_latents.map(Into::into),
                step_noise: replay.step_noise.into_iter().map(Into::into).collect(),
            }),
        }
    }
}

fn resize(resize: Resize) -> (v1::ResizeMode, Option<v1::Resolution>) {
    let size = |width, height| Some(v1::Resolution { width, height });
    match resize {
        Resize::Default => (v1::ResizeMode::Unspecified, None),
        Resize::Keep => (v1::ResizeMode::Keep, None),
        Resize::Stretch(width, height) => (v1::ResizeMode::Stretch, size(width, height)),
        Resize::Fit(width, height) => (v1::ResizeMode::Fit, size(width, height)),
        Resize::Crop(width, height) => (v1::ResizeMode::Crop, size(width, height)),
    }
}
