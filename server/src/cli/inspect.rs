//! `smartedit inspect`.

use std::path::PathBuf;

use clap::Args;
use smartedit_core::model::inspect::inspect;

use super::{CliError, print};

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// Model directory, checkpoint file, index of a sharded checkpoint, or directory of checkpoints
    path: PathBuf,
    /// Print JSON, with every tensor
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(super) fn run(self) -> Result<(), CliError> {
        let report = inspect(&self.path).map_err(CliError::failed)?;
        let text = match self.json {
            true => serde_json::to_string_pretty(&report).map_err(CliError::failed)? + "\n",
            false => report.to_string(),
        };
        print(&text)
    }
}
