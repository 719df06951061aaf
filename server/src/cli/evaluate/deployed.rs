//! Edits that a server makes.

use std::sync::Arc;
use std::time::Duration;

use smartedit_client::{Client, Code, DeploymentState, EditOptions, EditRequest, Rejection};
use tokio::task::JoinSet;

use super::benchmark::Benchmark;
use super::edited::{Edit, Edits};
use crate::cli::CliError;
use crate::cli::progress::Bar;

/// How often a deployment is asked whether it is loaded.
const LOADING_INTERVAL: Duration = Duration::from_millis(500);

/// How a server is asked for edits.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    pub(super) deployments: Vec<String>,
    pub(super) options: EditOptions,
    /// How long each edit may take once there is room for it.
    pub(super) timeout: Option<Duration>,
    /// Edits asked for at a time.
    pub(super) concurrency: usize,
}

/// Waits until every deployment is loaded.
pub(super) async fn wait_until_ready(
    client: &Client,
    deployments: &[String],
    bar: &Bar,
) -> Result<(), CliError> {
    for name in deployments {
        loop {
            match client.deployment(name).await.map_err(CliError::failed)?.state {
                DeploymentState::Loading => bar.message("waiting for a model to be loaded"),
                DeploymentState::Failed(reason) => {
                    return Err(CliError::failed(format!(
                        "the deployment `{name}` cannot be used: {reason}"
                    )));
                }
                _ => break,
            }
            tokio::time::sleep(LOADING_INTERVAL).await;
        }
    }
    Ok(())
}

/// Has every deployment edit every picture; hands each edit to `each` as it comes.
///
/// An edit that fails is one of the answers. Dropping the future cancels the edits under way.
pub(super) async fn edit_all(
    client: &Client,
    benchmark: &Benchmark,
    asking: &Asking,
    mut each: impl FnMut(usize, usize, &Edit) -> Result<(), CliError>,
    bar: &Bar,
) -> Result<Edits, CliError> {
    let total = benchmark.samples.len() * asking.deployments.len();
    // All deployments edit a picture before the next one is sent, so that those that share stages share their results.
    let mut waiting = (0..benchmark.samples.len())
        .flat_map(|sample| (0..asking.deployments.len()).map(move |deployment| (deployment, sample)));
    let mut edits: Vec<Vec<Option<Edit>>> =
        vec![vec![None; benchmark.samples.len()]; asking.deployments.len()];
    let mut running = JoinSet::new();
    let asking = Arc::new(asking.clone());
    let mut done = 0;
    loop {
        bar.count("editing", done, total);
        while running.len() < asking.concurrency {
            let Some((deployment, sample)) = waiting.next() else { break };
            let (client, asking) = (client.clone(), asking.clone());
            let chosen = &benchmark.samples[sample];
            let (picture, instruction) = (chosen.picture.clone(), chosen.instruction.clone());
            running.spawn(async move {
                let edit = match std::fs::read(&picture) {
                    Ok(file) => edit(&client, &asking, deployment, file, instruction).await,
                    Err(error) => Err(format!("cannot read {}: {error}", picture.display())),
                };
                (deployment, sample, edit)
            });
        }
        let Some(joined) = running.join_next().await else { break };
        let (deployment, sample, edit) = joined.map_err(CliError::failed)?;
        each(deployment, sample, &edit)?;
        edits[deployment][sample] = Some(edit);
        done += 1;
    }
    Ok(edits.into_iter().map(|edits| edits.into_iter().flatten().collect()).collect())
}

/// Makes an edit, as soon as the deployment has room for it.
async fn edit(
    client: &Client,
    asking: &Asking,
    deployment: usize,
    file: Vec<u8>,
    instruction: String,
) -> Edit {
    let request = EditRequest {
        image: file.into(),
        instruction,
        deployment: Some(asking.deployments[deployment].clone()),
        options: asking.options.clone(),
        timeout: asking.timeout,
    };
    loop {
        let error = match client.edit(request.clone()).await {
            Ok(edited) => return Ok(edited.image),
            Err(error) => error,
        };
        match error.rejection().and_then(later) {
            Some(delay) => tokio::time::sleep(delay).await,
            None => return Err(error.to_string()),
        }
    }
}

/// When to try again what a server had no room for; `None` for any other failure.
fn later(rejection: &Rejection) -> Option<Duration> {
    rejection.retry_delay.filter(|_| rejection.code == Code::ResourceExhausted)
}
