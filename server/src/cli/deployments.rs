//! `smartedit deployments`.

use clap::Args;
use smartedit_client::{Adapter, DeployedStage, Deployment, DeploymentState, UnavailablePlacement};

use super::connection::Connection;
use super::{CliError, print, runtime};

#[derive(Debug, Args)]
pub(super) struct Deployments {
    /// The server's address
    #[arg(long, short, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    server: String,
    #[command(flatten)]
    connection: Connection,
}

impl Deployments {
    pub(super) fn run(self) -> Result<(), CliError> {
        let deployments = runtime()?.block_on(async {
            let client = self.connection.connect(self.server).await?;
            client.deployments().await.map_err(CliError::failed)
        });
        let text: String = deployments?.iter().map(describe).collect();
        print(&text)
    }
}

pub(super) fn describe(deployment: &Deployment) -> String {
    let state = match &deployment.state {
        DeploymentState::Loading => "loading".to_owned(),
        DeploymentState::Ready => format!("ready, {}", deployment.model),
        DeploymentState::Failed(reason) => format!("failed: {reason}"),
        _ => "in a state unknown to this program".to_owned(),
    };
    let default = if deployment.is_default { " (default)" } else { "" };
    let load = format!("{} waiting, {} running", deployment.queued, deployment.running);
    let version = if deployment.is_current { String::new() } else { format!("@{}", deployment.version) };
    let mut text = format!("{}{version}{default}: {state}; {load}\n", deployment.name);
    deployment.stages.iter().for_each(|stage| text += &describe_stage(stage));
    deployment.adapters.iter().for_each(|adapter| text += &format!("  {}", describe_adapter(adapter)));
    text
}

/// What computes a stage, and what does not though it was wanted.
fn describe_stage(stage: &DeployedStage) -> String {
    let provider = stage.provider.as_ref().map(|provider| format!(" ({provider})")).unwrap_or_default();
    let threads = stage.threads.map(|threads| format!(", {threads} threads")).unwrap_or_default();
    let mut text = format!(
        "  {:<15} {} on {}{provider}, {}{threads}, {:.1} MiB\n",
        stage.stage.to_string(),
        stage.engine,
        stage.device,
        stage.precision,
        stage.weight_bytes as f64 / f64::from(1 << 20)
    );
    for UnavailablePlacement { engine, device, reason, .. } in &stage.unavailable {
        text += &format!("  {:<15} instead of {engine} on {device}: {reason}\n", "");
    }
    text
}

/// A LoRA adapter and what it updates.
pub(super) fn describe_adapter(adapter: &Adapter) -> String {
    let Adapter { name, is_default, scale, rank, bytes, stages } = adapter;
    let default = if *is_default { " (merged)" } else { "" };
    let stages: Vec<String> =
        stages.iter().map(|(stage, layers)| format!("{layers} layers of {stage}")).collect();
    let size = *bytes as f64 / f64::from(1 << 20);
    format!("adapter {name}{default}: scale {scale}, rank {rank}, {}, {size:.1} MiB\n", stages.join(", "))
}
