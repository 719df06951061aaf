//! Tests with servers that nobody here wrote: NVIDIA's Triton, out of the wheel of `nvidia-pytriton`, and Seldon's MLServer.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::process::run;
use crate::python::Python;
use crate::workspace::{cargo, root};

/// The platform of Triton's wheel.
const PLATFORM: (&str, &str) = ("linux", "x86_64");

/// The program of a `cargo build` of the workspace.
const PROGRAM: &str = "target/debug/smartedit";

/// Runs the tests against the program that `SMARTEDIT_BIN` names, or else the one that is built from here.
pub(crate) fn run_tests(filter: Option<&str>) -> Result<()> {
    let here = (std::env::consts::OS, std::env::consts::ARCH);
    ensure!(here == PLATFORM, "Triton's wheel is for {PLATFORM:?}, this is {here:?}");
    let python = Python::prepare_interop()?;
    let server = match std::env::var_os("SMARTEDIT_BIN") {
        Some(server) => PathBuf::from(server),
        None => build()?,
    };
    let mut command = python.module("pytest");
    command.current_dir(root().join("tests/interop")).env("SMARTEDIT_BIN", server);
    command.args(filter.map(|text| format!("-k={text}")));
    run(&mut command)
}

/// The server, with the engine that exports stages.
fn build() -> Result<PathBuf> {
    run(cargo().args([
        "build",
        "-p",
        "smartedit-server",
        "--bin",
        "smartedit",
        "--features",
        "onnx",
        "--locked",
    ]))?;
    Ok(root().join(PROGRAM))
}
