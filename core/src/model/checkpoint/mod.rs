//! Read-only, memory-mapped access to the tensors of checkpoints.
//!
//! Reads PyTorch zip files (`.bin`, `.pth`), safetensors files and the sharded indexes of both. A PyTorch
//! checkpoint names its tensors in a pickle, a program for a stack machine; [`pickle`] interprets the few
//! instructions that describe tensors and refuses everything else, so that nothing is ever executed.

use std::path::PathBuf;

/// A checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file is not what it should be, is damaged, or exceeds a limit.
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what helps.
        message: String,
    },
    /// One tensor of the file cannot be read.
    #[error("{}: tensor `{tensor}` {message}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What is wrong with it.
        message: String,
    },
}

/// What reading a checkpoint returns.
pub type Result<T> = std::result::Result<T, CheckpointError>;
