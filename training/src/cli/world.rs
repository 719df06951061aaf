//! `smartedit-train world`: pictures of the world, its benchmark, its examples.

use std::path::PathBuf;

use crate::world::{Benchmark, write_benchmark, write_examples, write_sample};

/// Writes pictures of the emoji world into a new directory.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    output: Output,

    /// How many edits `--out` writes.
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u32).range(1..=9999))]
    count: u32,

    /// How many edits of each scenario `--reason-edit` writes.
    #[arg(
        long, value_name = "N", default_value_t = 40,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(Benchmark::MOST)),
    )]
    per_scenario: u32,

    /// Share of the reasoning scenario that `--reason-edit` phrases as training never does.
    #[arg(long, value_name = "F", default_value_t = 0.5, value_parser = parse_share)]
    unseen_phrasings: f32,

    /// Let all edits of `--reason-edit` name their object plainly, for comparison with those that take understanding.
    #[arg(long)]
    plain: bool,

    /// What the random choices follow from.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Output {
    /// Write edits to look at: a sheet, the pictures before and after, the instructions.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Write the Reason-Edit benchmark on held-out scenes, in its official layout, with its outcomes.
    #[arg(long, value_name = "DIR")]
    reason_edit: Option<PathBuf>,

    /// Write held-out scenes for the paper's own instructions.
    #[arg(long, value_name = "DIR")]
    examples: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(path) = &args.output.out {
        write_sample(path, args.count as usize, args.seed)?;
    }
    if let Some(path) = &args.output.reason_edit {
        let (per_scenario, seed, unseen_phrasings) = (args.per_scenario, args.seed, args.unseen_phrasings);
        write_benchmark(path, Benchmark { per_scenario, seed, unseen_phrasings, plain: args.plain })?;
    }
    if let Some(path) = &args.output.examples {
        write_examples(path, args.seed)?;
    }
    Ok(())
}

fn parse_share(text: &str) -> Result<f32, String> {
    let share: f32 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("it must be from 0 to 1".to_owned()) }
}
