//! Why a call failed, and whether it is worth another one.

use std::error::Error;
use std::time::Duration;

use smartedit_core::engine::EngineError;
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt;

/// What a call is called in errors.
const CALL: &str = "remote call";

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The server cannot be reached, or has no time or no room; the next attempt may succeed.
    #[error("{message}")]
    Busy {
        /// What happened.
        message: String,
        /// When the server wants to be asked again, if it said so.
        retry_after: Option<Duration>,
    },
    /// The server is there and does not answer in time, or lacks the model; another attempt at once is no better.
    #[error("{0}")]
    Unavailable(String),
    /// The server is wrong, or thinks that this end is.
    #[error("{0}")]
    Failed(String),
    /// Nobody waits for the answer any more.
    #[error("nobody waits for the answer any more")]
    Unwanted,
}

impl CallError {
    /// What a status says, whether it is the server's or this end's of a connection that failed.
    pub(crate) fn of(status: &Status) -> Self {
        let message = explained(status);
        // What the library finds out about the connection has a source; what the server says has none.
        if causes(status).any(|cause| cause.is::<TimeoutExpired>()) {
            return Self::Unavailable("no answer in time".to_owned());
        }
        if status.source().is_some() {
            return Self::Busy { message, retry_after: None };
        }
        let details = status.get_error_details();
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        match status.code() {
            Code::Unavailable => Self::Busy { message, retry_after },
            // A server that explains itself and asks for no other attempt will not change its mind: a message is too large.
            Code::ResourceExhausted if retry_after.is_none() && details.error_info().is_some() => {
                Self::Failed(message)
            }
            Code::ResourceExhausted => Self::Busy { message, retry_after },
            Code::NotFound | Code::FailedPrecondition | Code::DeadlineExceeded | Code::Cancelled => {
                Self::Unavailable(message)
            }
            _ => Self::Failed(message),
        }
    }

    /// The failure of an engine's operation that this is, by a server and model of this name.
    pub(crate) fn of_engine(self, who: &str) -> EngineError {
        let message = format!("{who}: {self}");
        match self {
            Self::Busy { retry_after, .. } => EngineError::unavailable(CALL, message, retry_after),
            Self::Unavailable(_) => EngineError::unavailable(CALL, message, None),
            Self::Failed(_) | Self::Unwanted => EngineError::new(CALL, message),
        }
    }
}

/// Code and message of a status, and what lies behind it.
fn explained(status: &Status) -> String {
    let mut words = format!("{:?}: {}", status.code(), status.message());
    for cause in causes(status).map(ToString::to_string) {
        if !words.contains(&cause) {
            words.push_str(&format!(": {cause}"));
        }
    }
    words
}

/// What lies behind a status, nearest first.
fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use smartedit_core::engine::Prospect;
    use tonic_types::ErrorDetails;

    use super::*;

    fn detailed(reason: Option<&str>, retry_after: Option<Duration>) -> Status {
        let mut details = ErrorDetails::new();
        if let Some(reason) = reason {
            details.set_error_info(reason, "test", HashMap::new());
        }
        if retry_after.is_some() {
            details.set_retry_info(retry_after);
        }
        Status::with_error_details(Code::ResourceExhausted, "full", details)
    }

    #[test]
    fn only_what_passes_is_worth_another_attempt() {
        let second = Some(Duration::from_secs(1));
        let is_busy = |status: &Status, wanted: Option<Duration>| matches!(CallError::of(status), CallError::Busy { retry_after, .. } if retry_after == wanted);
        assert!(is_busy(&Status::unavailable("down"), None));
        assert!(is_busy(&Status::resource_exhausted("full"), None));
        assert!(is_busy(&detailed(Some("QUEUE_FULL"), second), second));
        assert!(!is_busy(&detailed(Some("MESSAGE_TOO_LARGE"), None), None));
        assert!(is_busy(&Status::from_error(Box::new(std::io::Error::other("reset"))), None));
        for code in [Code::NotFound, Code::FailedPrecondition, Code::DeadlineExceeded, Code::Cancelled] {
            assert!(matches!(CallError::of(&Status::new(code, "x")), CallError::Unavailable(_)), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::Internal, Code::Unimplemented, Code::Unauthenticated] {
            assert!(matches!(CallError::of(&Status::new(code, "x")), CallError::Failed(_)), "{code:?}");
        }
    }

    #[test]
    fn what_lies_behind_a_broken_connection_is_told() {
        let status = Status::from_error(Box::new(std::io::Error::other("reset by peer")));
        assert!(CallError::of(&status).to_string().contains("reset by peer"), "{status}");
    }

    #[test]
    fn an_engine_error_keeps_the_prospect() {
        let busy = CallError::Busy { message: "full".to_owned(), retry_after: Some(Duration::from_secs(2)) };
        let error = busy.of_engine("model `m`");
        assert_eq!(error.prospect, Prospect::Unavailable { retry_after: Some(Duration::from_secs(2)) });
        assert!(error.message.contains("model `m`"), "{error}");
        let failed = CallError::Failed("no".to_owned()).of_engine("model `m`");
        assert_eq!(failed.prospect, Prospect::Hopeless);
    }
}
