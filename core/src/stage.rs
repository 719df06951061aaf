//! A stage: one network behind named host tensors, the seam between pipelines and backends.
//!
//! | stage | inputs | outputs |
//! | --- | --- | --- |
//! | vision encoder | `pixel_values [1, 3, s, s]` | `image_features [1, p, e]` |
//! | language model | `input_ids [1, n]`; optional `image_features [1, p, e]` with `image_position [1]`; optional `cache_length [1]`; optional `logits_from [1]` | `hidden_states [1, m, h]`, `logits [1, l, v]` |
//! | connector | `image_states [1, 32, h]`, `image_features [1, p, e]` | `prompt_embeds [1, q, c]`; with BIM also `image_feature [1, c0, g, g]` |
//! | text encoder | `input_ids [b, 77]` | `hidden_states [b, 77, c]` |
//! | VAE encoder | `image [1, 3, h, w]` in −1…1 | `latents [1, 4, h/8, w/8]`, the mean, unscaled |
//! | denoiser | once: `prompt_embeds [b, q, c]`, optional `image_feature [1 or b, c0, g, g]`; each step: `sample [b, 8, h, w]`, `timestep [b]` | `noise_prediction [b, 4, h, w]` |
//! | VAE decoder | `latents [1, 4, h, w]`, unscaled | `image [1, 3, 8h, 8w]`, about −1…1 |
//!
//! The language model's session keeps the keys and values of everything it was fed; `cache_length` first cuts
//! that cache back to a length. The features stand in the sequence before the token `image_position`.
//! `logits_from` (default 0) is the first of the fed positions whose logits are wanted. The denoiser's session
//! keeps what depends on the conditioning alone; a call may give the conditioning, a step, or both.

mod remote;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::remote::{Remote, RemoteTls};
use crate::engine::{EngineError, Precision};
use crate::model::NetworkConfig;
use crate::tensor::{Tensors, TensorsError};
use crate::weights::{Update, WeightFile, WeightsError};

/// What a stage does in a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// CLIP vision tower.
    VisionEncoder,
    /// LLaMA with the vision projector.
    LanguageModel,
    /// QFormer and BIM, or one of the paper's ablations of BIM.
    Connector,
    /// CLIP text encoder.
    TextEncoder,
    /// Image to latents.
    VaeEncoder,
    /// UNet.
    Denoiser,
    /// Latents to image.
    VaeDecoder,
}

impl StageKind {
    /// Every stage, in the order in which a pipeline meets them.
    pub const ALL: [Self; 7] = [
        Self::VisionEncoder,
        Self::LanguageModel,
        Self::Connector,
        Self::TextEncoder,
        Self::VaeEncoder,
        Self::Denoiser,
        Self::VaeDecoder,
    ];

    /// The name used in configuration, files and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VisionEncoder => "vision_encoder",
            Self::LanguageModel => "language_model",
            Self::Connector => "connector",
            Self::TextEncoder => "text_encoder",
            Self::VaeEncoder => "vae_encoder",
            Self::Denoiser => "denoiser",
            Self::VaeDecoder => "vae_decoder",
        }
    }
}

impl fmt::Display for StageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where and how a stage is computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StageOptions {
    /// `cpu`, `cuda:N` or `metal:N`.
    pub device: String,
    /// Element type of weights and activations.
    pub precision: Precision,
    /// Threads that compute the stage; without it, as many as the engine takes by itself.
    pub threads: Option<NonZeroUsize>,
    /// The user's own program for the stage, in place of this crate's network.
    pub program: Option<Program>,
    /// Execution providers of ONNX Runtime, in order of preference; without any, the device's own.
    pub providers: Vec<Provider>,
    /// How far ONNX Runtime rewrites the graph.
    pub graph_optimization: GraphOptimization,
    /// The model of another server that computes the stage.
    pub remote: Option<Remote>,
}

impl Default for StageOptions {
    fn default() -> Self {
        Self {
            device: "cpu".to_owned(),
            precision: Precision::F32,
            threads: None,
            program: None,
            providers: Vec::new(),
            graph_optimization: GraphOptimization::default(),
            remote: None,
        }
    }
}

/// A file in the engine's own format (TorchScript, ONNX) that computes a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The file.
    pub file: PathBuf,
    /// The program's name of each of the stage's inputs, where it differs.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// The program's name of each of the stage's outputs, where it differs.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
}

impl Program {
    /// The size of the file in bytes.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not a file.
    pub fn file_bytes(&self, stage: StageKind) -> Result<u64, LoadError> {
        let metadata = self.file.metadata().map_err(|e| self.unfit(stage, format!("cannot be read: {e}")))?;
        if metadata.is_file() {
            Ok(metadata.len())
        } else {
            Err(self.unfit(stage, "is not a file".to_owned()))
        }
    }

    /// The error that it cannot compute a stage.
    pub fn unfit(&self, stage: StageKind, message: String) -> LoadError {
        LoadError::Program { stage, file: self.file.clone(), message }
    }
}

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// `cuda`, `tensorrt`, `openvino` or `cpu`.
    pub name: String,
    /// The provider's own options, in ONNX Runtime's spelling.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// How far ONNX Runtime rewrites a graph before it runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GraphOptimization {
    /// Not at all.
    Disabled,
    /// Removal of what is redundant, folding of constants.
    Basic,
    /// Also fusion of nodes.
    Extended,
    /// Also changes of memory layout.
    #[default]
    All,
}

/// What computes a stage, as reported to users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageInfo {
    /// The stage.
    pub kind: StageKind,
    /// The engine's name in configuration.
    pub engine: &'static str,
    /// The device that really computes it.
    pub device: String,
    /// Element type of weights and activations.
    pub precision: Precision,
    /// The execution provider that really computes it, on engines that have several.
    pub provider: Option<String>,
    /// Bytes of the stage's parameters in its weight file.
    pub weight_bytes: u64,
}

/// A stage failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StageError {
    /// The inputs do not fit the stage.
    #[error("{stage}: {source}")]
    Tensors {
        /// The stage.
        stage: StageKind,
        /// What is missing or of the wrong type.
        source: TensorsError,
    },
    /// An input has a shape or value that the stage cannot take.
    #[error("{stage}: input `{input}` {message}")]
    Input {
        /// The stage.
        stage: StageKind,
        /// The input's name.
        input: &'static str,
        /// What is wrong with it, and what is needed.
        message: String,
    },
    /// A session was given to another stage than its own.
    #[error("{stage}: a session of another stage cannot take part in a run")]
    Foreign {
        /// The stage.
        stage: StageKind,
    },
    /// An operation failed on the engine.
    #[error("{stage}: {source}")]
    Engine {
        /// The stage.
        stage: StageKind,
        /// The operation and the reason.
        source: EngineError,
    },
    /// What computes the stage cannot be had at the moment; it is not the inputs' fault.
    #[error("{stage}: {message}")]
    Unavailable {
        /// The stage.
        stage: StageKind,
        /// What cannot be had, and why.
        message: String,
        /// When to try again, if that is known.
        retry_after: Option<Duration>,
    },
    /// The output holds NaN or infinite values.
    #[error("{stage}: output `{output}` holds {count} values that are not finite")]
    NotFinite {
        /// The stage.
        stage: StageKind,
        /// The output's name.
        output: String,
        /// How many.
        count: usize,
    },
}

/// A stage cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The engine, its device or its precision cannot be had here.
    #[error("engine `{engine}` cannot run {stage}: {reason}; {remedy}")]
    Unavailable {
        /// The engine's name.
        engine: &'static str,
        /// The stage that was to run on it.
        stage: StageKind,
        /// Why not.
        reason: String,
        /// What to install or change.
        remedy: String,
    },
    /// An option has a value that the engine cannot take on any machine.
    #[error("engine `{engine}` cannot take `{option}` of {stage}: {message}")]
    Option {
        /// The engine's name.
        engine: &'static str,
        /// The stage that was to run on it.
        stage: StageKind,
        /// The option, as it is called in [`StageOptions`] and [`Program`].
        option: &'static str,
        /// What is wrong with it, and what to do.
        message: String,
    },
    /// The parameters do not fit.
    #[error("{stage}: {source}")]
    Weights {
        /// The stage.
        stage: StageKind,
        /// The tensor and the reason.
        source: WeightsError,
    },
    /// The stage's layers cannot be updated once it is loaded.
    #[error(
        "engine `{engine}` computes {stage} as a fixed graph or program: no adapter can be chosen for a request; make it the deployment's `default_adapter`, or compute the stage on `candle` or `torch`"
    )]
    Fixed {
        /// The engine's name.
        engine: &'static str,
        /// The stage.
        stage: StageKind,
    },
    /// The user's program cannot compute the stage.
    #[error("{stage}: {}: {message}", file.display())]
    Program {
        /// The stage.
        stage: StageKind,
        /// The program's file.
        file: PathBuf,
        /// What does not fit, and what is needed.
        message: String,
    },
    /// A model of another server cannot compute the stage.
    #[error("{stage}: model `{model}` of {url}: {message}")]
    Remote {
        /// The stage.
        stage: StageKind,
        /// The server.
        url: String,
        /// The model's name there.
        model: String,
        /// What does not fit, and what is needed.
        message: String,
    },
}

/// A loaded network: immutable, shared by all requests.
pub trait Stage: Send + Sync {
    /// What computes the stage.
    fn info(&self) -> &StageInfo;

    /// Opens a session: the mutable state of one request.
    fn session(&self) -> Box<dyn Session>;

    /// Whether a run may have any number of rows, be they of one request or of several that [`Stage::run_together`].
    fn batches(&self) -> bool {
        false
    }

    /// Runs sessions of this stage, each on inputs of its own: the outputs of each, in their order. A stage that
    /// [batches](Stage::batches) does so in one run; another one after the other.
    ///
    /// # Errors
    ///
    /// The run failed as a whole, and none of the sessions can be told to be at fault. Each may be run by itself.
    fn run_together(
        &self,
        sessions: &mut [&mut dyn Session],
        inputs: &[Tensors],
    ) -> Result<Vec<Result<Tensors, StageError>>, StageError> {
        Ok(sessions.iter_mut().zip(inputs).map(|(session, inputs)| session.run(inputs)).collect())
    }

    /// Whether it can be had with updates of its layers.
    fn updates(&self) -> bool {
        false
    }

    /// The same stage with low-rank updates of its layers, which shares its weights. Its sessions are none of this
    /// stage's.
    ///
    /// # Errors
    ///
    /// [`LoadError::Fixed`] if it cannot be had, [`LoadError::Weights`] if the engine refuses a factor.
    fn updated(&self, _updates: &[Update]) -> Result<Arc<dyn Stage>, LoadError> {
        let &StageInfo { kind: stage, engine, .. } = self.info();
        Err(LoadError::Fixed { engine, stage })
    }
}

/// The state of one request in a stage.
pub trait Session: Any + Send {
    /// Runs the stage once.
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, StageError>;

    /// A second session in the same state, which goes its own way from here. What both hold is shared, not copied.
    /// `None` if the stage cannot; a language model on an engine of this workspace can.
    fn fork(&self) -> Option<Box<dyn Session>> {
        None
    }
}

/// An engine as the server sees it: it turns weights into stages.
pub trait Backend: Send + Sync {
    /// The name used in configuration.
    fn name(&self) -> &'static str;

    /// Whether the engine can take the options ([`LoadError::Option`] if not), and whether device and providers can be
    /// had here ([`LoadError::Unavailable`]).
    fn check(&self, stage: StageKind, options: &StageOptions) -> Result<(), LoadError>;

    /// Loads the network that `config` describes from `weights`.
    fn load(
        &self,
        config: &NetworkConfig,
        weights: &WeightFile,
        options: &StageOptions,
    ) -> Result<Arc<dyn Stage>, LoadError>;

    /// Frees memory that no stage uses any more, if the engine holds on to some.
    fn release_memory(&self) {}
}
