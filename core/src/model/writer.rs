//! Writing a model directory: beside its final place, renamed when whole.

use std::path::PathBuf;

/// A model directory cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The place is taken.
    #[error("{} exists and is not an empty directory; choose another place or remove it", .0.display())]
    Exists(PathBuf),
    /// A file cannot be written or copied.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

/// A model directory in the making.
#[derive(Debug)]
pub struct ModelWriter {
    out: PathBuf,
}
