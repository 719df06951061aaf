//! Edits a picture with many seeds, several at a time, in so many steps each, and prints a line for each as it ends.
//!
//! ```sh
//! cargo run -p smartedit-client --example many -- localhost:50051 cats.png "Change the left cat to a fox" 20 50
//! ```

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use smartedit_client::{Client, EditRequest, Edited};
use tokio::task::JoinSet;

/// Edits under way at a time.
const AT_A_TIME: u64 = 4;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address, picture, instruction, count, steps] = &arguments[..] else {
        return Err("usage: many ADDRESS PICTURE INSTRUCTION COUNT STEPS".into());
    };
    let client = Client::builder(address).timeout(Duration::from_secs(300)).connect_lazy()?;
    let mut request = EditRequest::new(std::fs::read(picture)?, instruction);
    request.options.steps = Some(steps.parse()?);
    let mut edits = JoinSet::new();
    let mut failed = 0_u64;
    for seed in 0..count.parse()? {
        if seed >= AT_A_TIME {
            failed += end(&mut edits).await?;
        }
        let (client, mut request) = (client.clone(), request.clone());
        request.options.seed = Some(seed);
        edits.spawn(async move { (seed, client.edit(request).await) });
    }
    while !edits.is_empty() {
        failed += end(&mut edits).await?;
    }
    if failed > 0 { Err(format!("{failed} edits failed").into()) } else { Ok(()) }
}

/// Waits for the end of any edit; returns how many failed, 0 or 1.
async fn end(
    edits: &mut JoinSet<(u64, Result<Edited, smartedit_client::Error>)>,
) -> Result<u64, Box<dyn Error>> {
    let Some(edit) = edits.join_next().await else { return Ok(0) };
    let (seed, outcome) = edit?;
    let mut out = std::io::stdout();
    match outcome {
        Ok(Edited { width, height, timings, .. }) => {
            writeln!(out, "seed {seed}: {width}×{height}, {:?}", timings.total)?;
            Ok(0)
        }
        Err(error) => {
            writeln!(out, "seed {seed}: {error}")?;
            Ok(1)
        }
    }
}
