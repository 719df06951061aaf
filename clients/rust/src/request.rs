//! What is to be edited.

use std::time::Duration;

use bytes::Bytes;
use smartedit_proto::v1;

use crate::EditOptions;

/// A picture and what to change in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EditRequest {
    /// A whole PNG, JPEG or WebP file.
    pub image: Bytes,
    /// What to change.
    pub instruction: String,
    /// The deployment, or a route that chooses one; `None` is the server's default.
    pub deployment: Option<String>,
    /// How to make the edit.
    pub options: EditOptions,
    /// How long the call may take, retries included; `None` is the client's default.
    pub timeout: Option<Duration>,
}

impl EditRequest {
    /// An edit with all defaults.
    pub fn new(image: impl Into<Bytes>, instruction: impl Into<String>) -> Self {
        Self { image: image.into(), instruction: instruction.into(), ..Self::default() }
    }

    pub(crate) fn into_unary(self) -> v1::EditRequest {
        v1::EditRequest {
            image: self.image,
            instruction: self.instruction,
            deployment: self.deployment.unwrap_or_default(),
            options: Some(self.options.into()),
        }
    }

    pub(crate) fn into_stream(self) -> v1::EditStreamRequest {
        let v1::EditRequest { image, instruction, deployment, options } = self.into_unary();
        v1::EditStreamRequest { image, instruction, deployment, options }
    }
}
