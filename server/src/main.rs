//! The `smartedit` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    smartedit_server::cli::run(std::env::args_os())
}
