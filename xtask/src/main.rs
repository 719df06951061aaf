//! Developer chores, run as `cargo xtask CHORE`.

mod comparison;
mod debian;
mod engines;
mod interop;
mod lint;
mod nightly;
mod process;
mod python;
mod stubs;
mod tally;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::comparison::Comparison;
use crate::python::Python;

/// Developer chores. What a chore needs is fetched into `.cache/`.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Run all tests: the Rust workspace's, the Python client's and the deployment's, against the real server.
    Test {
        /// Run only the tests whose names contain this.
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
    },
    /// Check formatting, protocol, dependencies, generated files and code, cheapest check first.
    Lint,
    /// Everything that must pass before a change lands: `lint`, then `test`.
    Ci,
    /// What takes too long for every change: fuzzing, soaking, and measuring the server against its bars.
    Nightly {
        /// How long each fuzz target is tried.
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        fuzz_seconds: u32,
    },
    /// Try the fuzz targets. Needs a nightly compiler.
    Fuzz {
        /// How long each is tried.
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        seconds: u32,
    },
    /// Fetch libtorch and ONNX Runtime, for builds with the features `torch` and `onnx`.
    Engines,
    /// Test against NVIDIA's Triton and Seldon's MLServer, which are fetched (0.6 GB).
    Interop {
        /// Run only the tests whose names contain this.
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
    },
    /// Train and score the models of one of the paper's comparisons.
    Compare {
        /// Which.
        comparison: Comparison,
    },
    /// Write the Python stubs anew from `proto/`.
    Regenerate,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Test { filter } => test::run(filter.as_deref()),
        Chore::Lint => lint::run(),
        Chore::Ci => lint::run().and_then(|()| test::run(None)),
        Chore::Nightly { fuzz_seconds } => nightly::run_all(fuzz_seconds),
        Chore::Fuzz { seconds } => nightly::fuzz(seconds),
        Chore::Engines => Python::prepare().and_then(|python| engines::fetch(&python)),
        Chore::Interop { filter } => interop::run_tests(filter.as_deref()),
        Chore::Compare { comparison } => comparison::compare(comparison),
        Chore::Regenerate => stubs::regenerate(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
