//! The `smartedit` program: results, exit codes and messages.

mod adapters;
mod compare;
mod convert;
mod edit;
mod evaluate;
mod health;
mod lifecycle;
mod locked;
mod memory;
mod placement;
mod remote;
mod secrets;
mod serve;
mod traces;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use smartedit_core::stage::{StageKind, StageOptions};
use smartedit_server::engines::Engines;

/// Where the program is: `SMARTEDIT_BIN`, or beside this test's own directory, where `cargo build` puts it.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SMARTEDIT_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let path = profile.join(format!("smartedit{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build -p smartedit-server` first, or name the program in SMARTEDIT_BIN",
        path.display()
    );
    path
}

/// The program, without settings from the environment of whoever runs the tests.
fn smartedit<A: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SMARTEDIT_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// What a run of the program comes to.
struct Ended {
    code: Option<i32>,
    out: String,
    error: String,
}

fn run<A: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ended {
    let Output { status, stdout, stderr } = smartedit(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: status.code(), out: text(stdout), error: text(stderr) }
}

impl Ended {
    /// Makes sure of the exit code and that every word stands in the message.
    #[track_caller]
    fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.error);
        for word in words {
            assert!(self.error.contains(word), "no {word:?} in: {}", self.error);
        }
        assert!(!self.error.contains("panicked"), "{}", self.error);
    }

    #[track_caller]
    fn succeeded(&self) {
        assert_eq!(self.code, Some(0), "{}", self.error);
    }
}

/// Whether this build has an engine, and the engine what it needs.
fn can_run(engine: &str) -> bool {
    let engine = Engines::built_in().get(engine).unwrap();
    engine.check(StageKind::Denoiser, &StageOptions::default()).is_ok()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Names of everything in a directory, hidden or not.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn wrong_usage_is_told_with_code_2() {
    run(["--no-such-flag"]).failed(2, &["--no-such-flag"]);
    run(["paint"]).failed(2, &["paint"]);
    run(["edit", "in.png"]).failed(2, &["INSTRUCTION", "--output"]);
    run(["edit", "in.png", "x", "--output", "out.png", "--steps", "many"]).failed(2, &["--steps", "many"]);
    run(["edit", "in.png", "x", "--output", "out.png", "--resolution", "64"]).failed(2, &["--resolution"]);
    run(["edit", "in.png", "x", "--output", "out.tiff"]).failed(2, &["out.tiff", "extension"]);
    run(["serve", "--listen", "here"]).failed(2, &["--listen", "here"]);
    run::<&str>([]).failed(2, &["Usage"]);
}

#[test]
fn help_and_version_are_no_failure() {
    let version = run(["--version"]);
    version.succeeded();
    assert!(version.out.starts_with("smartedit "), "{}", version.out);
    let help = run(["--help"]);
    help.succeeded();
    for command in ["serve", "edit", "compare", "evaluate", "convert", "inspect", "deployments", "health"] {
        assert!(help.out.contains(command), "{}", help.out);
    }
}
