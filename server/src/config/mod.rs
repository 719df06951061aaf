//! The server's configuration: a TOML file, overridden by the environment, overridden by flags.

mod adapters;
mod admin;
mod auth;
mod check;
mod connections;
mod http;
mod load;
mod origin;
mod placement;
mod reload;
mod route;
mod telemetry;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use smartedit_core::engine::Precision;
use smartedit_core::stage::{GraphOptimization, StageKind, StageOptions};

pub use adapters::{AdapterConfig, AdaptersConfig, MAX_ADAPTER_SCALE, NO_ADAPTER};
pub(crate) use adapters::{check_adapter_name, check_adapter_scale};
pub use admin::AdminConfig;
pub use auth::{AuthConfig, CallerLimits, JwtAlgorithm, JwtConfig, KeyConfig, Open, Permission};
pub(crate) use check::check_deployment;
pub use connections::ConnectionsConfig;
pub use http::{ANY_ORIGIN, HttpConfig};
pub use load::{ConfigError, Loaded, Override, load};
pub use origin::{Origins, Problem, Problems};
pub use placement::{Alternative, Candidate, Placement, ProviderConfig};
pub use reload::{Source, SourceError};
pub use route::{DEFAULT_ROUTE, RouteConfig, ShadowConfig};
pub use telemetry::TelemetryConfig;
pub use tls::{ClientAuth, HttpTls, TlsConfig};

/// The deployment that a server has which is given a model directory instead of a configuration.
pub const DEFAULT_DEPLOYMENT: &str = "default";

/// Everything that can be configured. Every key has a default but the deployments.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port to serve on; port 0 is any free one.
    pub listen: SocketAddr,
    /// What is served over HTTP, beside gRPC.
    pub http: HttpConfig,
    /// What bounds connections.
    pub connections: ConnectionsConfig,
    /// Encryption; without it, connections are plain.
    pub tls: Option<TlsConfig>,
    /// Who may call; without it, everybody may do everything.
    pub auth: Option<AuthConfig>,
    /// The deployment of requests that name none. May be left out when there is one, or one called `default`, and must be
    /// where there is a route of that name.
    pub default_deployment: Option<String>,
    /// What a request may ask for, and how many may wait.
    pub limits: Limits,
    /// What is kept for requests to come.
    pub cache: CacheConfig,
    /// How the server logs.
    pub log: Log,
    /// Where traces go.
    pub telemetry: TelemetryConfig,
    /// How the server stops.
    pub drain: Drain,
    /// What may be changed over the network while the server runs.
    pub admin: AdminConfig,
    /// What engines need, whatever they compute.
    pub engines: EnginesConfig,
    /// What bounds the LoRA adapters of a deployment.
    pub adapters: AdaptersConfig,
    /// The deployments by name.
    pub deployments: BTreeMap<String, DeploymentConfig>,
    /// The routes by name.
    pub routes: BTreeMap<String, RouteConfig>,
}

/// What a request may ask for, and how many may wait.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Size of a gRPC message, either way, in bytes.
    pub max_message_bytes: usize,
    /// Size of a source file, in bytes.
    pub max_image_bytes: usize,
    /// Width times height of a source picture.
    pub max_image_pixels: u64,
    /// Width times height at which a picture is edited.
    pub max_edit_pixels: u64,
    /// Longer side at which a picture is edited, in pixels.
    pub max_edit_side: u32,
    /// Denoising steps.
    pub max_steps: u32,
    /// Characters of an instruction, and of a negative prompt.
    pub max_instruction_chars: usize,
    /// Requests that may be ahead of one that has to wait, those at work included, per deployment; 0 takes a request only
    /// when it can be begun at once.
    pub max_queue: usize,
    /// Bytes of all requests waiting, per deployment.
    pub max_queue_bytes: usize,
    /// Edits being received or waited for, over all deployments and connections.
    pub max_concurrent: usize,
    /// Deployments in a comparison.
    pub max_compared: usize,
    /// Bytes of latents and pictures that all comparisons together may hold on to.
    pub max_compare_bytes: usize,
}

/// What is kept for requests to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// Bytes of what stages made, over all deployments, in the host's memory; 0 keeps nothing.
    pub max_bytes: usize,
    /// Bytes of a language model's keys and values of prompts' beginnings, per deployment, on its device; 0 keeps
    /// nothing.
    pub max_prefix_bytes: usize,
}

/// What engines need, whatever they compute.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnginesConfig {
    /// ONNX Runtime.
    pub onnx: OnnxConfig,
}

/// What the engine `onnx` needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnnxConfig {
    /// The library of ONNX Runtime. Without it, the one that `ORT_DYLIB_PATH` names, that lies beside the program, or
    /// that was fetched into the repository.
    pub library: Option<PathBuf>,
}

/// How the server logs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// A level (`error`, `warn`, `info`, `debug`, `trace`), or directives such as `info,h2=warn`.
    pub level: String,
    /// Whether instructions and replies are logged. They are what users wrote: off by default.
    pub instructions: bool,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// How the server stops.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// How long the server goes on taking edits after SIGTERM while it tells probes that it is not ready, in seconds, so
    /// that load balancers learn of it before they find it refusing.
    pub delay_seconds: f64,
    /// How long running and waiting edits may take to finish after SIGTERM, in seconds.
    pub timeout_seconds: f64,
}

impl Drain {
    /// How long the server goes on taking edits while it tells probes that it is not ready.
    pub fn delay(&self) -> Duration {
        Duration::try_from_secs_f64(self.delay_seconds).unwrap_or_default()
    }

    /// How long running and waiting edits may take to finish.
    pub fn timeout(&self) -> Duration {
        Duration::try_from_secs_f64(self.timeout_seconds).unwrap_or_default()
    }
}

/// A model directory and what computes it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentConfig {
    /// The model directory; in a file, relative to the file.
    pub model: PathBuf,
    /// The engine of all stages.
    #[serde(default = "default_engine")]
    pub engine: String,
    /// The device of all stages: `cpu`, `cuda:N` or `metal:N`.
    #[serde(default = "default_device")]
    pub device: String,
    /// Element type of weights and activations of all stages.
    #[serde(default)]
    pub precision: Precision,
    /// Threads that compute a stage; without it, as many as its engine takes.
    #[serde(default)]
    pub threads: Option<usize>,
    /// Execution providers of ONNX Runtime, in order of preference.
    #[serde(default)]
    pub providers: Vec<ProviderConfig>,
    /// How far ONNX Runtime rewrites the graphs.
    #[serde(default)]
    pub graph_optimization: GraphOptimization,
    /// What computes a stage instead, in order of preference, where engine, device or providers cannot be had.
    #[serde(default)]
    pub fallback: Vec<Alternative>,
    /// Units of work computed at the same time: a run of the denoiser, and stages of other edits. They share the
    /// weights.
    #[serde(default = "default_instances")]
    pub instances: usize,
    /// Edits that share a run of the denoiser, at most.
    #[serde(default = "default_max_batch")]
    pub max_batch: usize,
    /// Width times height of all edits that share a run; without it, by the denoiser's device.
    #[serde(default)]
    pub max_batch_pixels: Option<usize>,
    /// How long a step may wait for other edits to share its run, in milliseconds.
    #[serde(default)]
    pub max_wait_ms: u64,
    /// Edits begun and not done; without it, as many as share a run, for each instance.
    #[serde(default)]
    pub concurrency: Option<usize>,
    /// Whether an edit is made before it is served, so that the first request is as fast as the next, and so that a model
    /// that loads but cannot edit is noticed.
    #[serde(default = "default_warm_up")]
    pub warm_up: bool,
    /// What single stages have different.
    #[serde(default)]
    pub stages: BTreeMap<StageKind, Placement>,
    /// LoRA adapters by the name that requests choose them by.
    #[serde(default)]
    pub adapters: BTreeMap<String, AdapterConfig>,
    /// The adapter that is merged into the weights, for requests that choose none.
    #[serde(default)]
    pub default_adapter: Option<String>,
}

fn default_engine() -> String {
    "candle".to_owned()
}

fn default_device() -> String {
    StageOptions::default().device
}

/// One for the denoiser and one for everything else, where there are cores for both.
fn default_instances() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(2)
}

fn default_warm_up() -> bool {
    true
}

fn default_max_batch() -> usize {
    8
}

impl DeploymentConfig {
    /// A model directory with all defaults.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            engine: default_engine(),
            device: default_device(),
            precision: Precision::default(),
            threads: None,
            providers: Vec::new(),
            graph_optimization: GraphOptimization::default(),
            fallback: Vec::new(),
            instances: default_instances(),
            max_batch: default_max_batch(),
            max_batch_pixels: None,
            max_wait_ms: 0,
            concurrency: None,
            warm_up: default_warm_up(),
            stages: BTreeMap::new(),
            adapters: BTreeMap::new(),
            default_adapter: None,
        }
    }

    /// Whether a deployment, or a route, can be called so.
    pub fn is_name(name: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !name.is_empty() && name.len() <= 64 && name.chars().all(plain)
    }

    /// How long a step may wait for other edits to share its run.
    pub fn max_wait(&self) -> Duration {
        Duration::from_millis(self.max_wait_ms)
    }
}

impl Config {
    /// One deployment of a model directory, all else by default.
    pub fn single(model: impl Into<PathBuf>) -> Self {
        let deployment = DeploymentConfig::new(model);
        Self { deployments: BTreeMap::from([(DEFAULT_DEPLOYMENT.to_owned(), deployment)]), ..Self::default() }
    }

    /// The name of the deployment of requests that name none.
    pub fn default_deployment(&self) -> Option<&str> {
        let mut names = self.deployments.keys().map(String::as_str);
        match (&self.default_deployment, self.deployments.len()) {
            (Some(name), _) => Some(name),
            (None, 1) => names.next(),
            (None, _) => names.find(|name| *name == DEFAULT_DEPLOYMENT),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
            http: HttpConfig::default(),
            connections: ConnectionsConfig::default(),
            tls: None,
            auth: None,
            default_deployment: None,
            limits: Limits::default(),
            cache: CacheConfig::default(),
            log: Log::default(),
            telemetry: TelemetryConfig::default(),
            drain: Drain::default(),
            admin: AdminConfig::default(),
            engines: EnginesConfig::default(),
            adapters: AdaptersConfig::default(),
            deployments: BTreeMap::new(),
            routes: BTreeMap::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 64 << 20,
            max_image_bytes: 32 << 20,
            max_image_pixels: 64_000_000,
            max_edit_pixels: 1 << 20,
            max_edit_side: 2048,
            max_steps: 500,
            max_instruction_chars: 2000,
            max_queue: 32,
            max_queue_bytes: 256 << 20,
            max_concurrent: 128,
            max_compared: 8,
            max_compare_bytes: 256 << 20,
        }
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { max_bytes: 256 << 20, max_prefix_bytes: 256 << 20 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned(), instructions: false }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay_seconds: 0.0, timeout_seconds: 30.0 }
    }
}
