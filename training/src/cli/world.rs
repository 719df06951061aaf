//! `smartedit-train world`: pictures of the world, its benchmark, its examples.

use std::path::PathBuf;

use crate::world::write_sample;

/// Writes pictures of the emoji world: some edits to look at.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Write some edits to look at: a sheet, the pictures and their instructions.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// How many edits to write with `--out`.
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,

    /// What the random choices follow from.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    Ok(write_sample(&args.out, args.count as usize, args.seed)?)
}
