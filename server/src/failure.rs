//! Why a request cannot be served.

use std::fmt;
use std::time::Duration;

use smartedit_core::diffusion::DiffusionError;
use smartedit_core::picture::PictureError;
use smartedit_core::pipeline::EditError;
use smartedit_core::stage::StageError;
use smartedit_core::text::TextError;

use crate::deployment::AdapterNotLoaded;
use crate::security::Denial;
use crate::work::StopReason;

/// Why a request cannot be served. [`crate::status`] turns it into what the caller is told.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Fields of the request have values that cannot be.
    #[error("{0}")]
    Invalid(Violations),
    /// There is no such deployment.
    #[error("there is no deployment `{name}`; there are {known}")]
    UnknownDeployment {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// There is no such model, or not in this version.
    #[error("Request for unknown model: '{name}'{version} is not found")]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// Empty, or a space and the version asked for.
        version: String,
    },
    /// The server does not offer this.
    #[error("{0}")]
    Unsupported(String),
    /// The deployment is still being loaded.
    #[error("deployment `{0}` is still being loaded")]
    Loading(String),
    /// The deployment could not be loaded.
    #[error("deployment `{name}` could not be loaded: {reason}")]
    NotLoaded {
        /// The deployment.
        name: String,
        /// Why not, in words that a caller may read.
        reason: String,
    },
    /// The deployment has been unloaded.
    #[error("deployment `{0}` has been unloaded")]
    Unloaded(String),
    /// Deployments may not be changed over the network.
    #[error(
        "deployments are not changed on request: `admin.enabled` is not set in the server's configuration"
    )]
    AdminDisabled,
    /// The server has no configuration that it could read again, or that one cannot be used.
    #[error("{0}")]
    Configuration(String),
    /// No adapter can be chosen for a request, for this reason.
    #[error("{0}")]
    Fixed(String),
    /// The deployment has no such adapter.
    #[error("adapter {message}")]
    UnknownAdapter {
        /// The name asked for.
        name: String,
        /// The names there are.
        message: String,
    },
    /// The deployment has an adapter of this name.
    #[error("adapter `{0}` is loaded; unload it first")]
    AdapterExists(String),
    /// The deployment has as many adapters as it may.
    #[error("the deployment has {limit} adapters, as many as it may; unload one first")]
    AdaptersFull {
        /// How many it may have.
        limit: usize,
    },
    /// As many calls wait to change the deployment's adapters as may.
    #[error("the deployment's adapters are being changed, and as many calls wait to change them as may")]
    AdaptersBusy,
    /// The adapter is part of the weights.
    #[error("adapter `{0}` is the deployment's default one, merged into its weights")]
    MergedAdapter(String),
    /// There is no directory to load adapters from.
    #[error("no directory for adapters is configured: set `adapters.directory`")]
    NoAdapterDirectory,
    /// The adapter cannot be used.
    #[error(transparent)]
    AdapterNotLoaded(#[from] AdapterNotLoaded),
    /// None of the route's deployments can be used.
    #[error("no deployment of the route `{0}` is ready")]
    RouteUnavailable(String),
    /// The deployment's queue has no room.
    #[error("the queue of deployment `{deployment}` is full")]
    QueueFull {
        /// The deployment.
        deployment: String,
        /// When there should be room.
        retry_after: Duration,
    },
    /// The server receives as many edits as it may.
    #[error("the server is receiving as many edits as it may")]
    Overloaded,
    /// Comparisons hold as much memory as they may.
    #[error("other comparisons hold the memory that comparisons may")]
    ComparisonsFull,
    /// The caller is not known.
    #[error("{0}")]
    Unauthenticated(Denial),
    /// The caller may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// The caller asks for more in a time than it may.
    #[error("{}", rate_limited(.retry_after))]
    RateLimited {
        /// When it may again; `None` if never so much at once.
        retry_after: Option<Duration>,
    },
    /// As many of the caller's requests go on as may.
    #[error("as many of your requests as may are being served; wait for one of them")]
    CallerBusy,
    /// The request's message is larger than may be received.
    #[error("the request has more than {limit} bytes; the image is too large")]
    MessageTooLarge {
        /// Bytes that a message may have.
        limit: usize,
    },
    /// The answer's message is larger than may be sent.
    #[error(
        "the answer has {bytes} bytes of outputs, a message of at most {limit} is sent; ask for fewer outputs or less of them"
    )]
    AnswerTooLarge {
        /// Bytes of the outputs.
        bytes: usize,
        /// Bytes that a message may have.
        limit: usize,
    },
    /// The request took too long to arrive.
    #[error("the request took more than {} s to arrive", timeout.as_secs_f64())]
    UploadTooSlow {
        /// How long it may take.
        timeout: Duration,
    },
    /// The answer was not read.
    #[error("the answer was not read in time")]
    NotRead,
    /// A call that streams requests went without one for too long.
    #[error("no request came for {} s", timeout.as_secs_f64())]
    StreamIdle {
        /// How long it may go without one.
        timeout: Duration,
    },
    /// The server shuts down.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The caller went away.
    #[error("the caller went away")]
    Abandoned,
    /// The caller's deadline passed.
    #[error("the deadline passed before the edit was done")]
    DeadlineExceeded,
    /// The caller's deadline will pass before the edit can be done.
    #[error("the edit takes {} s or more from now, the deadline is in {} s", seconds(.needed), seconds(.allowed))]
    DeadlineTooShort {
        /// How long the edit should take at least.
        needed: Duration,
        /// How long it may take.
        allowed: Duration,
    },
    /// The source file is no picture that can be edited.
    #[error("image: {0}")]
    Picture(PictureError),
    /// The result cannot be encoded.
    #[error("cannot encode the edited picture: {0}")]
    Encoding(PictureError),
    /// The edit failed.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The worker panicked.
    #[error("the worker panicked: {0}")]
    Panicked(String),
    /// The worker ended without a word.
    #[error("the worker is gone")]
    Lost,
}

impl Failure {
    /// One field that has a value that cannot be.
    pub fn invalid(field: impl Into<String>, description: impl fmt::Display) -> Self {
        Self::Invalid(Violations::one(field, description))
    }

    /// The field of the request that is at fault, and what is wrong with it, where an edit failed for that.
    pub fn violation(&self) -> Option<(String, String)> {
        let (field, message) = match self {
            Self::Picture(error) => ("image", error.to_string()),
            Self::Edit(EditError::Invalid { field, message }) => (*field, message.clone()),
            Self::Edit(EditError::Text(TextError::Encode(message))) => ("instruction", message.clone()),
            Self::Edit(EditError::Picture(error @ PictureError::Size { .. })) => {
                ("options.resolution", error.to_string())
            }
            Self::Edit(EditError::Picture(error)) => ("image", error.to_string()),
            Self::Edit(EditError::Diffusion(error @ DiffusionError::Steps { .. })) => {
                ("options.steps", error.to_string())
            }
            Self::Edit(EditError::Diffusion(error @ DiffusionError::Guidance { scale, .. })) => {
                return Some((format!("options.{scale}_guidance"), error.to_string()));
            }
            _ => return None,
        };
        Some((field.to_owned(), message))
    }

    /// The failure's stable name, for callers' programs and for logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Picture(_) => "INVALID_IMAGE",
            _ if self.violation().is_some() => "INVALID_REQUEST",
            Self::Invalid(_) => "INVALID_REQUEST",
            Self::UnknownDeployment { .. } => "UNKNOWN_DEPLOYMENT",
            Self::UnknownModel { .. } => "UNKNOWN_MODEL",
            Self::Unsupported(_) => "UNSUPPORTED",
            Self::Loading(_) => "DEPLOYMENT_LOADING",
            Self::NotLoaded { .. } => "DEPLOYMENT_FAILED",
            Self::Unloaded(_) => "DEPLOYMENT_UNLOADED",
            Self::AdminDisabled => "ADMIN_DISABLED",
            Self::Configuration(_) => "INVALID_CONFIGURATION",
            Self::Fixed(_) => "ADAPTERS_FIXED",
            Self::UnknownAdapter { .. } => "UNKNOWN_ADAPTER",
            Self::AdapterExists(_) => "ADAPTER_EXISTS",
            Self::AdaptersFull { .. } => "ADAPTERS_FULL",
            Self::MergedAdapter(_) => "ADAPTER_MERGED",
            Self::NoAdapterDirectory => "NO_ADAPTER_DIRECTORY",
            Self::AdapterNotLoaded(_) => "INVALID_ADAPTER",
            Self::RouteUnavailable(_) => "ROUTE_UNAVAILABLE",
            Self::QueueFull { .. } => "QUEUE_FULL",
            Self::Overloaded | Self::ComparisonsFull | Self::AdaptersBusy => "OVERLOADED",
            Self::Unauthenticated(denial) => denial.reason(),
            Self::Forbidden(_) => "PERMISSION_DENIED",
            Self::RateLimited { .. } => "RATE_LIMITED",
            Self::CallerBusy => "CALLER_BUSY",
            Self::MessageTooLarge { .. } => "MESSAGE_TOO_LARGE",
            Self::AnswerTooLarge { .. } => "ANSWER_TOO_LARGE",
            Self::UploadTooSlow { .. } => "UPLOAD_TOO_SLOW",
            Self::NotRead => "NOT_READ",
            Self::StreamIdle { .. } => "STREAM_IDLE",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Abandoned => "ABANDONED",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::DeadlineTooShort { .. } => "DEADLINE_TOO_SHORT",
            Self::Edit(EditError::ImageTokens { .. }) => "NO_IMAGE_TOKENS",
            Self::Edit(EditError::Stage(StageError::NotFinite { .. })) => "NOT_FINITE",
            Self::Edit(EditError::Stage(StageError::Unavailable { .. })) => "STAGE_UNAVAILABLE",
            Self::Edit(_) | Self::Encoding(_) | Self::Panicked(_) | Self::Lost => "INTERNAL",
        }
    }

    /// Whether it ends everything that is done for the caller, not just one edit.
    pub fn ends_the_call(&self) -> bool {
        matches!(self, Self::Abandoned | Self::DeadlineExceeded | Self::ShuttingDown)
    }

    /// Whether it is the server's own fault, so that the log must hold all of it.
    pub fn is_internal(&self) -> bool {
        matches!(self.reason(), "INTERNAL" | "NOT_FINITE")
    }
}

fn rate_limited(retry_after: &Option<Duration>) -> String {
    match retry_after {
        Some(wait) => format!("you ask for more in a time than you may; try again in {} s", seconds(wait)),
        None => "you ask for more at once than you ever may".to_owned(),
    }
}

/// Seconds, to the millisecond.
fn seconds(duration: &Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

impl From<StopReason> for Failure {
    fn from(reason: StopReason) -> Self {
        match reason {
            StopReason::Abandoned => Self::Abandoned,
            StopReason::DeadlineExceeded => Self::DeadlineExceeded,
            StopReason::ShuttingDown => Self::ShuttingDown,
        }
    }
}

/// Fields that have values that cannot be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations(Vec<(String, String)>);

impl Violations {
    /// One field, and what is wrong with it.
    pub fn one(field: impl Into<String>, description: impl fmt::Display) -> Self {
        let mut violations = Self::default();
        violations.add(field, description);
        violations
    }

    /// Adds a field and what is wrong with it.
    pub fn add(&mut self, field: impl Into<String>, description: impl fmt::Display) {
        self.0.push((field.into(), description.to_string()));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same of fields with other names.
    #[must_use]
    pub fn renamed(self, name: impl Fn(&str) -> String) -> Self {
        Self(self.0.into_iter().map(|(field, description)| (name(&field), description)).collect())
    }

    /// Fields, and what is wrong with each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(field, description)| (field.as_str(), description.as_str()))
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (field, description)) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{field}: {description}")?;
        }
        Ok(())
    }
}

/// A caller's words, short enough to be repeated.
pub(crate) fn shortened(words: &str) -> String {
    words.chars().take(64).collect()
}
