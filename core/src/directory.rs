//! Directories that appear whole or not at all: written beside their final place, renamed when whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A directory cannot be written.
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
        source: io::Error,
    },
}

/// A directory in the making: a hidden directory `.NAME.partial-XXXXXX` beside its final place. It is removed
/// when dropped unfinished; after the death of the process it may be removed by hand.
#[derive(Debug)]
pub struct NewDirectory {
    out: PathBuf,
    partial: TempDir,
}

impl NewDirectory {
    /// Begins the directory `out`, whose parents are created.
    ///
    /// # Errors
    /// `out` exists and is not an empty directory, or nothing can be written beside it.
    pub fn create(out: &Path) -> Result<Self, WriteError> {
        Self::check(out)?;
        // `..` and links in the path must mean the same directory at the end as now.
        let out =
            std::path::absolute(out).map_err(|source| WriteError::Io { path: out.to_owned(), source })?;
        let Some((parent, name)) = out.parent().zip(out.file_name()) else {
            return Err(WriteError::Exists(out));
        };
        fs::create_dir_all(parent).map_err(|source| WriteError::Io { path: parent.to_owned(), source })?;
        let prefix = format!(".{}.partial-", name.to_string_lossy());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let partial = builder
            .tempdir_in(parent)
            .map_err(|source| WriteError::Io { path: parent.to_owned(), source })?;
        Ok(Self { out, partial })
    }

    /// Whether a directory may be written to `out`.
    ///
    /// # Errors
    /// `out` exists and is not an empty directory.
    pub fn check(out: &Path) -> Result<(), WriteError> {
        let io = |source| WriteError::Io { path: out.to_owned(), source };
        match fs::symlink_metadata(out) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(io(e)),
            Ok(found) if found.is_dir() && fs::read_dir(out).map_err(io)?.next().is_none() => Ok(()),
            Ok(_) => Err(WriteError::Exists(out.to_owned())),
        }
    }

    /// Where its files are while it is in the making.
    pub fn path(&self) -> &Path {
        self.partial.path()
    }

    /// Makes it visible and returns its final path.
    ///
    /// # Errors
    /// The operating system refuses, or the place was taken in the meantime.
    pub fn finish(self) -> Result<PathBuf, WriteError> {
        Self::check(&self.out)?;
        let io = |source| WriteError::Io { path: self.out.clone(), source };
        if self.out.is_dir() {
            fs::remove_dir(&self.out).map_err(io)?;
        }
        fs::rename(self.partial.path(), &self.out).map_err(io)?;
        // It now has another name and is no longer ours to remove.
        let _ = self.partial.keep();
        Ok(self.out)
    }
}
