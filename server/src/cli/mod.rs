//! The command line. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

mod admin;
mod bench;
mod columns;
mod compare;
mod connection;
mod convert;
mod deployments;
mod edit;
mod error;
mod evaluate;
#[cfg(feature = "onnx")]
mod export;
mod health;
mod inspect;
mod key;
mod local;
mod options;
mod output;
mod progress;
mod serve;
mod settings;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use error::CliError;

/// Edits images by instruction.
#[derive(Debug, Parser)]
#[command(name = "smartedit", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve edits over gRPC
    Serve(serve::Serve),
    /// Edit an image, on a server or right here
    Edit(Box<edit::Edit>),
    /// Make one edit on several deployments or engines and show how they differ
    Compare(Box<compare::Compare>),
    /// Score deployments, or pictures that were edited elsewhere, on a Reason-Edit benchmark
    Evaluate(Box<evaluate::Evaluate>),
    /// Turn official checkpoints into a model directory
    Convert(convert::Convert),
    /// Write a stage as an ONNX graph, for other runtimes
    #[cfg(feature = "onnx")]
    Export(export::Export),
    /// Tell what a model directory or a checkpoint holds
    Inspect(inspect::Inspect),
    /// List the deployments of a server
    Deployments(deployments::Deployments),
    /// Load and unload deployments of a running server
    Admin(admin::Admin),
    /// Make API keys
    #[command(subcommand)]
    Key(key::Key),
    /// Ask a server whether it is ready or alive, as probes do
    Health(health::Health),
    /// Measure stages and whole edits on pseudo-random weights; no checkpoint is needed
    Bench(bench::Bench),
}

/// Runs a command line; the first argument is the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    smartedit_allocator::share_arena();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    let outcome = match cli.command {
        Command::Serve(serve) => serve.run(),
        Command::Edit(edit) => edit.run(),
        Command::Compare(compare) => compare.run(),
        Command::Evaluate(evaluate) => evaluate.run(),
        Command::Convert(convert) => convert.run(),
        #[cfg(feature = "onnx")]
        Command::Export(export) => export.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Deployments(deployments) => deployments.run(),
        Command::Admin(admin) => admin.run(),
        Command::Key(key) => key.run(),
        Command::Health(health) => health.run(),
        Command::Bench(bench) => bench.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            error.exit_code()
        }
    }
}

/// Writes to standard output. That nobody reads it (`smartedit inspect … | head`) is no failure.
fn print(text: &str) -> Result<(), CliError> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CliError::failed(error)),
        _ => Ok(()),
    }
}

/// The runtime of commands that talk gRPC.
fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("async")
        .enable_all()
        .build()
        .map_err(CliError::failed)
}
