//! The `smartedit-train` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    smartedit_train::cli::run(std::env::args_os())
}
