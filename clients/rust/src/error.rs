//! Why a call failed.

use std::error::Error as _;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What every call returns.
pub type Result<T> = std::result::Result<T, Error>;

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is no URI.
    #[error("`{endpoint}` is not a server address")]
    Endpoint {
        /// The address.
        endpoint: String,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
    /// An API key has characters that no header can hold.
    #[error("the API key has characters that no header can hold")]
    Key,
    /// No connection to the server.
    #[error("cannot connect to {endpoint}")]
    Connect {
        /// The address.
        endpoint: String,
        /// The reason.
        source: tonic::transport::Error,
    },
    /// The server, or the way to it, refused the call or failed.
    #[error(transparent)]
    Rejected(Box<Rejection>),
    /// The server's answer lacks something it must hold.
    #[error("the server's answer lacks `{0}`")]
    Incomplete(&'static str),
}

impl Error {
    /// What the server said, if it is the server that failed the call.
    pub fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            _ => None,
        }
    }

    /// The gRPC code, if the call got as far as having one.
    pub fn code(&self) -> Option<Code> {
        self.rejection().map(|rejection| rejection.code)
    }

    /// An error for a deadline that passed on this side.
    pub(crate) fn deadline() -> Self {
        Status::deadline_exceeded("the deadline passed before the server answered").into()
    }
}

/// A gRPC status with its details.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code:?})")]
pub struct Rejection {
    /// The gRPC code.
    pub code: Code,
    /// The server's words.
    pub message: String,
    /// The fields at fault, for INVALID_ARGUMENT.
    pub violations: Vec<FieldViolation>,
    /// When to try again, if the server said.
    pub retry_delay: Option<Duration>,
    /// The error's stable name, such as `QUEUE_FULL`.
    pub reason: Option<String>,
}

/// A field at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Its path in the request, such as `options.steps`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// Whether it is the connection that ended, and not the server that answered: the server is shutting down or gone, which
/// reads as INTERNAL, CANCELLED or UNKNOWN otherwise.
fn is_cut_off(status: &Status) -> bool {
    let mut next = status.source();
    while let Some(cause) = next {
        let http2 = cause.downcast_ref::<h2::Error>().is_some_and(|error| {
            let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            refused || error.is_go_away() || error.is_io()
        });
        let http = cause
            .downcast_ref::<hyper::Error>()
            .is_some_and(|error| error.is_canceled() || error.is_closed() || error.is_incomplete_message());
        if http2 || http {
            return true;
        }
        next = cause.source();
    }
    false
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let violations = details.bad_request().map(|bad_request| &bad_request.field_violations);
        let violations = violations
            .into_iter()
            .flatten()
            .map(|violation| FieldViolation {
                field: violation.field.clone(),
                description: violation.description.clone(),
            })
            .collect();
        Self::Rejected(Box::new(Rejection {
            code: if is_cut_off(&status) { Code::Unavailable } else { status.code() },
            message: status.message().to_owned(),
            violations,
            retry_delay: details.retry_info().and_then(|info| info.retry_delay),
            reason: details.error_info().map(|info| info.reason.clone()),
        }))
    }
}
