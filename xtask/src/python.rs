//! The Python environments of tests and linters.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{run, works};
use crate::workspace::{cache, root};

/// A Python environment that holds what a list says.
pub(crate) struct Python {
    directory: PathBuf,
}

impl Python {
    /// The environment of `cargo xtask test` and `lint`.
    pub(crate) fn prepare() -> Result<Self> {
        Self::environment("python", "tests/requirements.txt")
    }

    /// The environment of `cargo xtask interop`.
    pub(crate) fn prepare_interop() -> Result<Self> {
        Self::environment("interop", "tests/interop/requirements.txt")
    }

    /// An environment, made or renewed if it does not match its list.
    fn environment(name: &str, requirements: &str) -> Result<Self> {
        let python = Self { directory: cache(name) };
        let wanted = fs::read_to_string(root().join(requirements))
            .with_context(|| format!("cannot read {requirements}"))?;
        let installed = python.directory.join("installed.txt");
        let current = fs::read_to_string(&installed).is_ok_and(|found| found == wanted);
        if current && works(python.command().arg("--version")) {
            return Ok(python);
        }
        if python.directory.exists() {
            fs::remove_dir_all(&python.directory).context("cannot remove the old Python environment")?;
        }
        create(&python.directory)?;
        run(python.pip().args(["--requirement", requirements]))?;
        fs::write(&installed, wanted).context("cannot finish the Python environment")?;
        Ok(python)
    }

    /// The environment's interpreter, in the repository's root.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.directory.join("bin/python"));
        command.current_dir(root());
        command
    }

    /// The interpreter running a module.
    pub(crate) fn module(&self, name: &str) -> Command {
        let mut command = self.command();
        command.args(["-m", name]);
        command
    }

    /// `pip install`.
    pub(crate) fn pip(&self) -> Command {
        let mut command = self.module("pip");
        command.args(["install", "--quiet", "--disable-pip-version-check"]);
        command
    }
}

fn create(directory: &Path) -> Result<()> {
    let name = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let recent = "import sys; sys.exit(sys.version_info < (3, 11))";
    if !works(Command::new(&name).args(["-c", recent])) {
        bail!("Python 3.11 or newer is needed, and `{name}` is not one; set PYTHON to one");
    }
    run(Command::new(&name).args(["-m", "venv"]).arg(directory))
        .context("cannot make a Python environment (Debian and Ubuntu: apt-get install python3-venv)")
}
