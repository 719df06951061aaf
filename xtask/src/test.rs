//! All tests.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::engines;
use crate::process::{self, lines, run_with_lines};
use crate::python::Python;
use crate::tally::Tally;
use crate::workspace::{cargo, root};

/// pytest's exit status when the filter left no test.
const NO_TESTS: i32 = 5;

/// Runs the Rust workspace's tests, then the Python client's, and fails if any of them fails.
pub(crate) fn run(filter: Option<&str>) -> Result<()> {
    let python = Python::prepare()?;
    engines::fetch(&python)?;
    let server = build()?;
    let rust = rust(filter, &server)?;
    let client = client(&python, filter, &server)?;
    let mut total = rust;
    total += client;
    writeln!(std::io::stdout(), "\nRust: {rust}\nPython: {client}\n{total}")?;
    if total.failed > 0 {
        bail!("tests failed");
    }
    if total.passed == 0 {
        bail!("no test was run");
    }
    Ok(())
}

/// Builds everything that tests need and tells where the server's binary is.
fn build() -> Result<PathBuf> {
    let mut server = None;
    let mut command = cargo();
    command.args(["build", "--workspace", "--features", engines::FEATURES, "--bins", "--tests", "--locked"]);
    command.arg("--message-format=json-render-diagnostics");
    eprintln!("$ cargo build --workspace --bins --tests");
    let status = lines(&mut command, |line| {
        let message: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        if message["target"]["name"] == "smartedit" && message["profile"]["test"] == false {
            server = message["executable"].as_str().map(PathBuf::from).or(server.take());
        }
        Ok(())
    })?;
    if !status.success() {
        bail!("the build failed");
    }
    server.context("cargo built no `smartedit` binary")
}

fn rust(filter: Option<&str>, server: &Path) -> Result<Tally> {
    let mut command = cargo();
    command.args(["test", "--workspace", "--features", engines::FEATURES, "--locked", "--no-fail-fast"]);
    command.args(filter);
    command.env("SMARTEDIT_BIN", server);
    let mut tally = Tally::default();
    let status = run_with_lines(&mut command, |line| tally.add_cargo(line))?;
    // A test binary that was killed has no result line.
    if !status.success() && tally.failed == 0 {
        tally.failed += 1;
    }
    Ok(tally)
}

fn client(python: &Python, filter: Option<&str>, server: &Path) -> Result<Tally> {
    let directory = root().join("clients/python");
    process::run(
        python.pip().args(["--no-deps", "--no-build-isolation", "--force-reinstall"]).arg(&directory),
    )?;
    let mut command = python.module("pytest");
    command.current_dir(&directory).env("SMARTEDIT_BIN", server);
    command.args(filter.map(|text| format!("-k={text}")));
    let mut tally = Tally::default();
    let status = run_with_lines(&mut command, |line| tally.add_pytest(line))?;
    let empty = filter.is_some() && status.code() == Some(NO_TESTS);
    if !status.success() && !empty && tally.failed == 0 {
        tally.failed += 1;
    }
    Ok(tally)
}
