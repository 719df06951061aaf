//! The Python stubs generated from `proto/`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::run;
use crate::python::Python;
use crate::workspace::root;

/// Where the protocol's files lie, and the stubs below the Python package's sources.
const PACKAGE: &str = "smartedit/v1";
const SOURCES: &str = "clients/python/src";

/// Replaces the committed stubs.
pub(crate) fn regenerate() -> Result<()> {
    let committed = root().join(SOURCES).join(PACKAGE);
    let fresh = generate(&Python::prepare()?)?;
    for name in stubs(&committed)?.keys().filter(|name| !fresh.contains_key(*name)) {
        fs::remove_file(committed.join(name))?;
    }
    for (name, text) in fresh {
        fs::write(committed.join(name), text)?;
    }
    Ok(())
}

/// Fails if the committed stubs are not what `proto/` gives.
pub(crate) fn check(python: &Python) -> Result<()> {
    if generate(python)? != stubs(&root().join(SOURCES).join(PACKAGE))? {
        bail!("the Python stubs do not match proto/: run `cargo xtask regenerate`");
    }
    Ok(())
}

fn generate(python: &Python) -> Result<BTreeMap<OsString, String>> {
    let out = tempfile::tempdir()?;
    let to = |option: &str| format!("--{option}={}", out.path().display());
    let protocol = root().join("proto");
    let directory = protocol.join(PACKAGE);
    let mut messages = python.module("grpc_tools.protoc");
    messages.arg("--proto_path=proto").arg(to("python_out")).arg(to("pyi_out"));
    let mut services = python.module("grpc_tools.protoc");
    services.arg("--proto_path=proto").arg(to("grpc_python_out"));
    for path in files(&directory)? {
        let text = fs::read_to_string(&path)?;
        let file = path.strip_prefix(&protocol)?.to_owned();
        if text.lines().any(|line| line.starts_with("service ")) {
            services.arg(&file);
        }
        messages.arg(file);
    }
    run(&mut messages)?;
    run(&mut services)?;
    stubs(&out.path().join(PACKAGE))
}

/// The content of every generated file in a directory.
fn stubs(directory: &Path) -> Result<BTreeMap<OsString, String>> {
    let generated = |path: &PathBuf| {
        path.file_stem().is_some_and(|stem| stem.to_string_lossy().contains("_pb2")) && path.is_file()
    };
    let mut stubs = BTreeMap::new();
    for path in files(directory)?.into_iter().filter(generated) {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        stubs.insert(path.file_name().unwrap_or_default().to_owned(), text);
    }
    Ok(stubs)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
