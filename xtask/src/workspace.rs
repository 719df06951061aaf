//! Where things lie.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask lies in the workspace. This is a bug.")
}

/// A place for fetched tools that neither Git nor `cargo clean` touches.
pub(crate) fn cache(name: &str) -> PathBuf {
    root().join(".cache").join(name)
}

/// A cargo command in the repository's root, of the toolchain that runs this.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}
