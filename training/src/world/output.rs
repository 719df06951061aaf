//! Directories of pictures and texts, which appear whole or not at all.

use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use image::{ImageFormat, RgbImage};
use serde::Serialize;
use smartedit_core::directory::{NewDirectory, WriteError};

/// An output directory in the making; paths are relative to it, and their directories are made as needed.
pub(crate) struct Output(NewDirectory);

impl Output {
    /// Begins a directory where nothing or an empty directory may be.
    pub(crate) fn create(path: &Path) -> Result<Self, WriteError> {
        NewDirectory::create(path).map(Self)
    }

    /// Writes a file.
    pub(crate) fn write(&self, path: &str, contents: &[u8]) -> Result<(), WriteError> {
        let path = self.0.path().join(path);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::write(&path, contents)).map_err(|source| WriteError::Io { path, source })
    }

    /// Writes a file of JSON, for people to read too.
    pub(crate) fn write_json(&self, path: &str, value: &impl Serialize) -> Result<(), WriteError> {
        let json = serde_json::to_string_pretty(value).map_err(|error| encoding(path, error))?;
        self.write(path, (json + "\n").as_bytes())
    }

    /// Writes a picture as PNG.
    pub(crate) fn write_png(&self, path: &str, picture: &RgbImage) -> Result<(), WriteError> {
        let mut png = Cursor::new(Vec::new());
        picture.write_to(&mut png, ImageFormat::Png).map_err(|error| encoding(path, error))?;
        self.write(path, png.get_ref())
    }

    /// Makes it visible.
    pub(crate) fn finish(self) -> Result<(), WriteError> {
        self.0.finish().map(drop)
    }
}

/// The contents of a file cannot be made.
pub(crate) fn encoding(path: &str, error: impl std::error::Error + Send + Sync + 'static) -> WriteError {
    WriteError::Io { path: PathBuf::from(path), source: io::Error::other(error) }
}
