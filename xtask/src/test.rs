//! All tests.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::debian::{HAPROXY, SYSTEMD_ANALYZE};
use crate::engines;
use crate::process::{self, lines, run_with_lines};
use crate::python::Python;
use crate::tally::Tally;
use crate::workspace::{cargo, root};

/// pytest's exit status when the filter left no test.
const NO_TESTS: i32 = 5;

/// What tests start, where it is.
struct Built {
    server: PathBuf,
    /// The Rust client's example `many`.
    many: PathBuf,
}

/// Runs the Rust workspace's tests, then the Python client's and the deployment's, and fails if any of them fails.
pub(crate) fn run(filter: Option<&str>) -> Result<()> {
    let python = Python::prepare()?;
    engines::fetch(&python)?;
    let built = build()?;
    let rust = rust(filter, &built)?;
    let client = client(&python, filter, &built)?;
    let deployment = deployment(&python, filter, &built)?;
    let mut total = rust;
    total += client;
    total += deployment;
    writeln!(std::io::stdout(), "\nRust: {rust}\nPython: {client}\nDeployment: {deployment}\n{total}")?;
    if total.failed > 0 {
        bail!("tests failed");
    }
    if total.passed == 0 {
        bail!("no test was run");
    }
    Ok(())
}

/// Builds everything that tests need.
fn build() -> Result<Built> {
    let (mut server, mut many) = (None, None);
    let mut command = cargo();
    command.args(["build", "--workspace", "--features", engines::FEATURES, "--locked"]);
    command.args(["--bins", "--examples", "--tests", "--message-format=json-render-diagnostics"]);
    eprintln!("$ cargo build --workspace --bins --examples --tests");
    let status = lines(&mut command, |line| {
        let message: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let target = &message["target"];
        let executable = message["executable"].as_str().map(PathBuf::from);
        if target["name"] == "smartedit" && message["profile"]["test"] == false {
            server = executable.or(server.take());
        } else if target["name"] == "many" && target["kind"] == serde_json::json!(["example"]) {
            many = executable.or(many.take());
        }
        Ok(())
    })?;
    if !status.success() {
        bail!("the build failed");
    }
    Ok(Built {
        server: server.context("cargo built no `smartedit` binary")?,
        many: many.context("cargo built no example `many`")?,
    })
}

fn rust(filter: Option<&str>, built: &Built) -> Result<Tally> {
    let mut command = cargo();
    command.args(["test", "--workspace", "--features", engines::FEATURES, "--locked", "--no-fail-fast"]);
    command.args(filter);
    command.env("SMARTEDIT_BIN", &built.server);
    let mut tally = Tally::default();
    let status = run_with_lines(&mut command, |line| tally.add_cargo(line))?;
    // A test binary that was killed has no result line.
    if !status.success() && tally.failed == 0 {
        tally.failed += 1;
    }
    Ok(tally)
}

fn client(python: &Python, filter: Option<&str>, built: &Built) -> Result<Tally> {
    let directory = root().join("clients/python");
    process::run(
        python.pip().args(["--no-deps", "--no-build-isolation", "--force-reinstall"]).arg(&directory),
    )?;
    let mut command = python.module("pytest");
    pytest(command.current_dir(&directory).env("SMARTEDIT_BIN", &built.server), filter)
}

/// Tests of `deploy/`; they use the Python client that is installed.
fn deployment(python: &Python, filter: Option<&str>, built: &Built) -> Result<Tally> {
    let mut command = python.module("pytest");
    command.current_dir(root().join("deploy"));
    command.env("SMARTEDIT_BIN", &built.server).env("SMARTEDIT_EXAMPLE_MANY", &built.many);
    command.env("HAPROXY", HAPROXY.find()?).env("SYSTEMD_ANALYZE", SYSTEMD_ANALYZE.find()?);
    pytest(&mut command, filter)
}

fn pytest(command: &mut Command, filter: Option<&str>) -> Result<Tally> {
    command.args(filter.map(|text| format!("-k={text}")));
    let mut tally = Tally::default();
    let status = run_with_lines(command, |line| tally.add_pytest(line))?;
    let empty = filter.is_some() && status.code() == Some(NO_TESTS);
    if !status.success() && !empty && tally.failed == 0 {
        tally.failed += 1;
    }
    Ok(tally)
}
