//! Running other programs.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// Shows a command, runs it, and fails if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Shows a command and runs it; every line of its standard output is shown and also given to `line`.
pub(crate) fn run_with_lines(command: &mut Command, mut line: impl FnMut(&str)) -> Result<ExitStatus> {
    announce(command);
    lines(command, |text| {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{text}")?;
        line(text);
        Ok(())
    })
}

/// Runs a command; every line of its standard output is given to `line` instead of being shown.
pub(crate) fn lines(
    command: &mut Command,
    mut line: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<ExitStatus> {
    let failed = format!("cannot run {}", shown(command));
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| failed.clone())?;
    let stdout = child.stdout.take().with_context(|| failed.clone())?;
    for text in BufReader::new(stdout).split(b'\n') {
        line(&String::from_utf8_lossy(&text.with_context(|| failed.clone())?))?;
    }
    child.wait().context(failed)
}

/// Whether a program can be started and succeeds; its output is dropped.
pub(crate) fn works(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn announce(command: &Command) {
    eprintln!("$ {}", shown(command));
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let shown = words.join(" ");
    shown.replace(&format!("{}/", crate::workspace::root().display()), "")
}
