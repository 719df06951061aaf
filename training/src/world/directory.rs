//! Directories that appear whole or not at all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use image::DynamicImage;
use serde::Serialize;
use tempfile::TempDir;

/// Why a directory was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is something in its place that must not be lost.
    #[error("{0} is there already and not an empty directory: name another place, or empty it")]
    NotEmpty(PathBuf),
    /// The file system refused.
    #[error("cannot write {path}: {source}")]
    Io {
        /// The file or directory that could not be written.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A picture could not be encoded or stored.
    #[error("cannot write {path}: {source}")]
    Picture {
        /// The picture's file.
        path: PathBuf,
        /// What the encoder said.
        source: image::ImageError,
    },
}

/// A directory that is made inside a temporary one and takes its place with [`NewDirectory::finish`].
pub(crate) struct NewDirectory {
    temporary: TempDir,
    path: PathBuf,
}

impl NewDirectory {
    /// Begins a directory at `path`, where nothing or an empty directory may be.
    pub(crate) fn begin(path: &Path) -> Result<Self, WriteError> {
        let io = |source| WriteError::Io { path: path.to_owned(), source };
        match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => return Err(WriteError::NotEmpty(path.to_owned())),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => {}
                io::ErrorKind::NotADirectory => return Err(WriteError::NotEmpty(path.to_owned())),
                _ => return Err(io(error)),
            },
        }
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(io)?;
        let temporary = tempfile::Builder::new().prefix(".smartedit-").tempdir_in(parent).map_err(io)?;
        let directory = Self { temporary, path: path.to_owned() };
        directory.create_dir("")?;
        Ok(directory)
    }

    /// Makes a directory in it.
    pub(crate) fn create_dir(&self, path: impl AsRef<Path>) -> Result<(), WriteError> {
        let path = self.content().join(path);
        fs::create_dir_all(&path).map_err(|source| WriteError::Io { path, source })
    }

    /// Writes a file in it.
    pub(crate) fn write(&self, path: impl AsRef<Path>, contents: &[u8]) -> Result<(), WriteError> {
        let path = self.content().join(path);
        fs::write(&path, contents).map_err(|source| WriteError::Io { path, source })
    }

    /// Writes a file of JSON in it, for people to read too.
    pub(crate) fn write_json(&self, path: &str, value: &impl Serialize) -> Result<(), WriteError> {
        let json = serde_json::to_string_pretty(value);
        let json = json.map_err(|error| WriteError::Io { path: path.into(), source: error.into() })?;
        self.write(path, (json + "\n").as_bytes())
    }

    /// Writes a picture in it, in the format that its name asks for.
    pub(crate) fn write_picture(
        &self,
        path: impl AsRef<Path>,
        picture: impl Into<DynamicImage>,
    ) -> Result<(), WriteError> {
        let path = self.content().join(path);
        picture.into().save(&path).map_err(|source| WriteError::Picture { path, source })
    }

    /// Puts it in its place.
    pub(crate) fn finish(self) -> Result<(), WriteError> {
        let renamed = fs::rename(self.content(), &self.path);
        renamed.map_err(|source| WriteError::Io { path: self.path.clone(), source })
    }

    /// A temporary directory is for its owner alone, so it holds one with the usual permissions.
    fn content(&self) -> PathBuf {
        self.temporary.path().join("content")
    }
}
