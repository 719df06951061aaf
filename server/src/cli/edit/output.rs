//! Files that appear whole or not at all.

use std::io::Write;
use std::path::Path;

use super::file_error;
use crate::cli::CliError;

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
    let failed = |error| file_error("cannot write", path, error);
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
