//! Files of pictures: read whole, and written whole or not at all.

use std::io::Write;
use std::path::Path;

use clap::ValueEnum;
use smartedit_core::picture;

use super::CliError;

/// A file format of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Png,
    #[value(alias = "jpg")]
    Jpeg,
    #[value(name = "webp")]
    WebP,
}

impl Format {
    /// The format of a file's extension.
    pub(super) fn by_extension(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_string_lossy().to_lowercase();
        Self::from_str(&extension, true).ok()
    }

    pub(super) const fn core(self) -> picture::Format {
        match self {
            Self::Png => picture::Format::Png,
            Self::Jpeg => picture::Format::Jpeg,
            Self::WebP => picture::Format::WebP,
        }
    }
}

/// What a file that cannot be used is told with.
pub(super) fn file_error(what: &str, path: &Path, error: impl std::fmt::Display) -> CliError {
    CliError::failed(format!("{what} {}: {error}", path.display()))
}

/// Reads a whole file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|error| file_error("cannot read", path, error))
}

/// Fails before any work is done if the file's directory does not exist.
pub(super) fn check_directory(path: &Path) -> Result<(), CliError> {
    let directory = directory(path);
    match directory.is_dir() {
        true => Ok(()),
        false => Err(CliError::failed(format!("there is no directory {}", directory.display()))),
    }
}

/// Writes a file beside its place and then moves it there.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let failed = |error: std::io::Error| file_error("cannot write", path, error);
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What the user's umask leaves of it, as for any new file.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.prefix(".smartedit-").tempfile_in(directory(path)).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
