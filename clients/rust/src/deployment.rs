//! What a server deploys.

use smartedit_proto::v1;

use crate::{Scheduler, Stage};

/// A model and the engines that compute its stages, under a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// The name that requests choose it by.
    pub name: String,
    /// The version: 1 for the first that was loaded under the name, and so on.
    pub version: u64,
    /// Whether requests that name the deployment without a version get this one.
    pub is_current: bool,
    /// Whether requests that name no deployment get this one.
    pub is_default: bool,
    /// Whether it can be used.
    pub state: DeploymentState,
    /// Whether a request sent now would be taken.
    pub accepting: bool,
    /// Requests waiting.
    pub queued: u32,
    /// Requests being worked on.
    pub running: u32,
    /// The model's name; empty unless ready.
    pub model: String,
    /// How the model's stages are composed; `None` unless ready.
    pub pipeline: Option<Pipeline>,
    /// The stages and what computes them; empty unless ready.
    pub stages: Vec<DeployedStage>,
    /// What a request gets that does not say otherwise; `None` unless ready.
    pub defaults: Option<EditDefaults>,
    /// What a request may ask for.
    pub limits: EditLimits,
    /// Prompt templates to choose from.
    pub templates: u32,
    /// Edits that share a run of the denoiser, at most; 0 unless ready.
    pub max_batch: u32,
    /// LoRA adapters that requests may choose; empty unless ready.
    pub adapters: Vec<Adapter>,
}

/// A LoRA adapter of a deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// The name that requests choose it by.
    pub name: String,
    /// Whether it is merged into the weights: requests that choose none have it.
    pub is_default: bool,
    /// How strong it is where a request does not say: 1 as it was trained.
    pub scale: f32,
    /// The largest rank of its updates.
    pub rank: u32,
    /// Bytes of its factors.
    pub bytes: u64,
    /// The stages that it updates, and how many layers of each.
    pub stages: Vec<(Stage, u32)>,
}

/// Whether a deployment can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeploymentState {
    /// Its weights are being loaded.
    Loading,
    /// It takes requests.
    Ready,
    /// It could not be loaded, for this reason.
    Failed(String),
    /// A state that this client does not know.
    Unknown,
}

/// How a model's stages are composed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipeline {
    /// The instruction goes through the language model.
    SmartEdit,
    /// The instruction goes through the CLIP text encoder.
    InstructPix2Pix,
}

/// A stage and what computes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployedStage {
    /// The stage.
    pub stage: Stage,
    /// The engine's name.
    pub engine: String,
    /// The device.
    pub device: String,
    /// Element type of weights and activations.
    pub precision: String,
    /// Bytes of the stage's parameters in its weight file.
    pub weight_bytes: u64,
    /// The execution provider that really computes it; `None` on engines that have none.
    pub provider: Option<String>,
    /// Threads that compute it; `None`: as many as the engine takes by itself.
    pub threads: Option<u32>,
    /// What was to compute it and could not be had, in order of preference; empty: it is computed as configured.
    pub unavailable: Vec<UnavailablePlacement>,
}

/// What was to compute a stage and could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnavailablePlacement {
    /// The engine's name.
    pub engine: String,
    /// The device.
    pub device: String,
    /// Element type of weights and activations.
    pub precision: String,
    /// The execution providers asked for, in order of preference.
    pub providers: Vec<String>,
    /// Why it could not be had, and what to do.
    pub reason: String,
}

/// What a request gets that does not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EditDefaults {
    /// Denoising steps.
    pub steps: u32,
    /// Guidance scale of the instruction.
    pub text_guidance: f32,
    /// Guidance scale of the source image.
    pub image_guidance: f32,
    /// Width and height at which pictures are edited; `None`: their own.
    pub resolution: Option<(u32, u32)>,
    /// The sampler.
    pub scheduler: Option<Scheduler>,
}

/// What a request may ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EditLimits {
    /// Size of the source file, in bytes.
    pub max_image_bytes: u64,
    /// Width times height of the source picture.
    pub max_image_pixels: u64,
    /// Width times height at which a picture is edited.
    pub max_edit_pixels: u64,
    /// Longer side at which a picture is edited, in pixels.
    pub max_edit_side: u32,
    /// Denoising steps.
    pub max_steps: u32,
    /// Characters of an instruction.
    pub max_instruction_chars: u32,
    /// Requests that may be ahead of one that has to wait, those at work included.
    pub max_queue: u32,
    /// Deployments in a comparison.
    pub max_compared: u32,
}

impl From<v1::Deployment> for Deployment {
    fn from(wire: v1::Deployment) -> Self {
        let state = match wire.state() {
            v1::DeploymentState::Unspecified => DeploymentState::Unknown,
            v1::DeploymentState::Loading => DeploymentState::Loading,
            v1::DeploymentState::Ready => DeploymentState::Ready,
            v1::DeploymentState::Failed => DeploymentState::Failed(wire.message.clone()),
        };
        let pipeline = match wire.pipeline() {
            v1::Pipeline::Unspecified => None,
            v1::Pipeline::SmartEdit => Some(Pipeline::SmartEdit),
            v1::Pipeline::InstructPix2pix => Some(Pipeline::InstructPix2Pix),
        };
        Self {
            name: wire.name,
            version: wire.version,
            is_current: wire.is_current,
            is_default: wire.is_default,
            state,
            accepting: wire.accepting,
            queued: wire.queued,
            running: wire.running,
            model: wire.model,
            pipeline,
            stages: wire.stages.into_iter().map(DeployedStage::from).collect(),
            defaults: wire.defaults.map(EditDefaults::from),
            limits: wire.limits.map(EditLimits::from).unwrap_or_default(),
            templates: wire.templates,
            max_batch: wire.max_batch,
            adapters: wire.adapters.into_iter().map(Adapter::from).collect(),
        }
    }
}

impl From<v1::Adapter> for Adapter {
    fn from(wire: v1::Adapter) -> Self {
        let v1::Adapter { name, is_default, scale, rank, bytes, stages } = wire;
        let stages = stages.into_iter().map(|adapted| (adapted.stage().into(), adapted.layers)).collect();
        Self { name, is_default, scale, rank, bytes, stages }
    }
}

impl From<v1::DeployedStage> for DeployedStage {
    fn from(wire: v1::DeployedStage) -> Self {
        Self {
            stage: wire.stage().into(),
            engine: wire.engine,
            device: wire.device,
            precision: wire.precision,
            weight_bytes: wire.weight_bytes,
            provider: Some(wire.provider).filter(|provider| !provider.is_empty()),
            threads: wire.threads,
            unavailable: wire.unavailable.into_iter().map(UnavailablePlacement::from).collect(),
        }
    }
}

impl From<v1::UnavailablePlacement> for UnavailablePlacement {
    fn from(wire: v1::UnavailablePlacement) -> Self {
        let v1::UnavailablePlacement { engine, device, precision, providers, reason } = wire;
        Self { engine, device, precision, providers, reason }
    }
}

impl From<v1::EditDefaults> for EditDefaults {
    fn from(wire: v1::EditDefaults) -> Self {
        Self {
            scheduler: match wire.scheduler() {
                v1::Scheduler::Unspecified => None,
                v1::Scheduler::EulerAncestral => Some(Scheduler::EulerAncestral),
                v1::Scheduler::Euler => Some(Scheduler::Euler),
                v1::Scheduler::Ddim => Some(Scheduler::Ddim),
            },
            steps: wire.steps,
            text_guidance: wire.text_guidance,
            image_guidance: wire.image_guidance,
            resolution: wire.resolution.map(|size| (size.width, size.height)),
        }
    }
}

impl From<v1::EditLimits> for EditLimits {
    fn from(wire: v1::EditLimits) -> Self {
        Self {
            max_image_bytes: wire.max_image_bytes,
            max_image_pixels: wire.max_image_pixels,
            max_edit_pixels: wire.max_edit_pixels,
            max_edit_side: wire.max_edit_side,
            max_steps: wire.max_steps,
            max_instruction_chars: wire.max_instruction_chars,
            max_queue: wire.max_queue,
            max_compared: wire.max_compared,
        }
    }
}
