//! How a command fails.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// How a command fails; shown as one line (or, where there is a list of problems, one line each).
#[derive(Debug)]
pub(super) enum CliError {
    /// The command or the configuration is wrong: exit code 2.
    Usage(Box<dyn Error + Send + Sync>),
    /// The command failed: exit code 1.
    Failed(Box<dyn Error + Send + Sync>),
}

impl CliError {
    pub(super) fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Usage(error.into())
    }

    pub(super) fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::from(1),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(error) | Self::Failed(error)) = self;
        f.write_str(&chain(error.as_ref()))
    }
}

/// An error and its causes, without causes that an error already tells itself.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open it: {source}")]
    struct Telling {
        source: std::io::Error,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("no model")]
    struct Silent(#[source] Telling);

    #[test]
    fn every_cause_is_told_once() {
        let error = Silent(Telling { source: std::io::Error::other("no disk") });
        assert_eq!(CliError::failed(error).to_string(), "no model: cannot open it: no disk");
    }
}
