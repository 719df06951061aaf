//! What takes too long for every change: fuzzing, and tests of minutes.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::engines;
use crate::process::{lines, run, works};
use crate::python::Python;
use crate::workspace::{cache, cargo, root};

const CARGO_FUZZ_VERSION: &str = "0.13.2";

/// The directory of the fuzz targets.
const FUZZ: &str = "tests/fuzz";

/// What a target may have in memory, in MiB.
const MEMORY: u32 = 2048;

/// How long a target may take with one input, in seconds.
const PATIENCE: u32 = 20;

/// Tries every fuzz target for so many seconds, then runs the tests of minutes and measures what the server adds and
/// stands.
pub(crate) fn run_all(fuzz_seconds: u32) -> Result<()> {
    fuzz(fuzz_seconds)?;
    engines::fetch(&Python::prepare()?)?;
    run(cargo().args(["build", "--release", "--package", "smartedit-server", "--locked"]))?;
    let server = root().join("target/release/smartedit");
    let mut soak = cargo();
    soak.args(["test", "--package", "smartedit-tests", "--test", "server", "--locked", "--"]);
    soak.args(["memory", "--include-ignored", "--nocapture", "--test-threads", "1"]);
    run(soak.env("SMARTEDIT_BIN", server))?;
    run(cargo().args(["bench", "--package", "smartedit-bench", "--bench", "reliability", "--locked"]))
}

/// Tries every fuzz target for so many seconds, from its corpus on. What is found lies in `tests/fuzz/artifacts`.
pub(crate) fn fuzz(seconds: u32) -> Result<()> {
    for target in targets()? {
        let mut command = cargo_fuzz("run")?;
        // What is new goes to a place of its own: the corpus in the repository grows by hand.
        let found = cache("fuzz").join(&target);
        std::fs::create_dir_all(&found).context("cannot make a place for what is found")?;
        command.arg(&target).arg(found).arg(root().join(FUZZ).join("corpus").join(&target)).arg("--");
        command.args([
            format!("-max_total_time={seconds}"),
            format!("-rss_limit_mb={MEMORY}"),
            format!("-timeout={PATIENCE}"),
            "-print_final_stats=1".to_owned(),
        ]);
        run(&mut command)?;
    }
    Ok(())
}

fn targets() -> Result<Vec<String>> {
    let mut targets = Vec::new();
    let status = lines(&mut cargo_fuzz("list")?, |line| {
        targets.push(line.trim().to_owned());
        Ok(())
    })?;
    if !status.success() || targets.is_empty() {
        bail!("cannot list the fuzz targets");
    }
    Ok(targets)
}

/// `cargo fuzz` on a nightly compiler, which alone can instrument; fetched if it is not there.
fn cargo_fuzz(what: &str) -> Result<Command> {
    let directory = cache("cargo-fuzz");
    let program = directory.join("bin/cargo-fuzz");
    if !works(Command::new(&program).arg("--version")) {
        run(cargo()
            .args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ_VERSION, "--root"])
            .arg(&directory))?;
    }
    let mut command = Command::new("rustup");
    command.args(["run", "nightly"]).arg(program).args([what, "--fuzz-dir", FUZZ]).current_dir(root());
    // Compiler and flags are those of nightly, not of whoever runs this.
    command.env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
    Ok(command)
}
