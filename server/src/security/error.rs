//! Why encryption or access cannot be set up.

use std::path::PathBuf;

/// Encryption or access cannot be set up as configured.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A setting has a value that cannot be.
    #[error("{setting}: {message}")]
    Value {
        /// The setting.
        setting: String,
        /// What is wrong with it.
        message: String,
    },
    /// A file that a setting names cannot be read.
    #[error("{setting}: cannot read {}: {source}", path.display())]
    Read {
        /// The setting.
        setting: String,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file that a setting names does not hold what it should.
    #[error("{setting}: {}: {message}", path.display())]
    Content {
        /// The setting.
        setting: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

impl SecurityError {
    pub(super) fn value(setting: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Value { setting: setting.into(), message: message.into() }
    }

    /// The setting at fault.
    pub fn setting(&self) -> &str {
        let (Self::Value { setting, .. } | Self::Read { setting, .. } | Self::Content { setting, .. }) = self;
        setting
    }

    /// What is wrong, without the setting's name.
    pub fn reason(&self) -> String {
        let text = self.to_string();
        text.strip_prefix(&format!("{}: ", self.setting())).unwrap_or(&text).to_owned()
    }
}
