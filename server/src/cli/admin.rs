//! `smartedit admin`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use smartedit_client::{Client, LoadAdapterRequest, LoadRequest, OtherVersions, Reloaded};

use super::connection::Connection;
use super::deployments::{describe, describe_adapter};
use super::{CliError, print, runtime};

/// Changes what a running server serves, where its configuration allows that (`admin.enabled`).
#[derive(Debug, Args)]
pub(super) struct Admin {
    /// The server's address
    #[arg(long, short, value_name = "ADDRESS", default_value = "127.0.0.1:50051", global = true)]
    server: String,
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    change: Change,
}

#[derive(Debug, Subcommand)]
enum Change {
    /// Load a version of a deployment and, when it is ready, put it in the place of the one that serves
    Load(Load),
    /// Unload a deployment: let it finish what it has, then give its memory back
    Unload(Unload),
    /// Read the server's configuration again, as SIGHUP does
    Reload,
    /// Load, unload or list a deployment's LoRA adapters
    #[command(subcommand)]
    Adapter(AdapterChange),
}

#[derive(Debug, Subcommand)]
enum AdapterChange {
    /// Load an adapter, for requests that choose it
    Load {
        /// The deployment, NAME or NAME@VERSION
        deployment: String,
        /// The name that requests are to choose it by
        name: String,
        /// Safetensors file, or directory of PEFT or diffusers, relative to the server's `adapters.directory`
        path: String,
        /// How strong it is where a request does not say [default: 1, as it was trained]
        #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
        scale: Option<f32>,
    },
    /// Unload an adapter; edits that have chosen it go on with it
    Unload {
        /// The deployment, NAME or NAME@VERSION
        deployment: String,
        /// The adapter's name
        name: String,
    },
    /// List a deployment's adapters
    List {
        /// The deployment, NAME or NAME@VERSION
        deployment: String,
    },
}

#[derive(Debug, Args)]
struct Load {
    /// The deployment's name
    name: String,
    /// File with its settings, the content of a table `[deployments.NAME]` [default: what is configured under the name]
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// The version's number, above that of every version so far [default: the next one]
    #[arg(long, value_name = "NUMBER")]
    version: Option<u64>,
    /// What becomes of the versions before
    #[arg(long, value_enum, default_value_t = Others::Replace)]
    others: Others,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Others {
    /// The new one takes their place
    Replace,
    /// They stay for requests that name them, `NAME@VERSION`
    Keep,
    /// The current one stays the current one; the new one is for requests that name it
    KeepCurrent,
}

#[derive(Debug, Args)]
struct Unload {
    /// The deployment's name
    name: String,
    /// The version [default: all]
    #[arg(long, value_name = "NUMBER")]
    version: Option<u64>,
}

impl Admin {
    pub(super) fn run(self) -> Result<(), CliError> {
        let Self { server, connection, change } = self;
        let request = match &change {
            Change::Load(load) => Some(load.request()?),
            _ => None,
        };
        let done = runtime()?.block_on(async {
            let client = connection.connect(server).await?;
            let done = match (change, request) {
                (_, Some(request)) => client.load_deployment(request).await.map(|loaded| describe(&loaded)),
                (Change::Unload(Unload { name, version }), _) => {
                    client.unload_deployment(&name, version).await.map(|()| String::new())
                }
                (Change::Adapter(change), _) => change.make(&client).await,
                _ => client.reload_configuration().await.map(|reloaded| told(&reloaded)),
            };
            done.map_err(CliError::failed)
        });
        print(&done?)
    }
}

impl AdapterChange {
    async fn make(self, client: &Client) -> smartedit_client::Result<String> {
        match self {
            Self::Load { deployment, name, path, scale } => {
                let request = LoadAdapterRequest { deployment: Some(deployment), name, path, scale };
                client.load_adapter(request).await.map(|loaded| describe_adapter(&loaded))
            }
            Self::Unload { deployment, name } => {
                client.unload_adapter(&deployment, &name).await.map(|()| String::new())
            }
            Self::List { deployment } => {
                let adapters = client.adapters(&deployment).await?;
                Ok(adapters.iter().map(describe_adapter).collect())
            }
        }
    }
}

impl Load {
    fn request(&self) -> Result<LoadRequest, CliError> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path)
                .map_err(|error| CliError::usage(format!("{}: {error}", path.display())))
        };
        let settings = self.settings.as_ref().map(read).transpose()?;
        let others = match self.others {
            Others::Replace => OtherVersions::Replace,
            Others::Keep => OtherVersions::Keep,
            Others::KeepCurrent => OtherVersions::KeepCurrent,
        };
        Ok(LoadRequest { name: self.name.clone(), settings, version: self.version, others })
    }
}

fn told(reloaded: &Reloaded) -> String {
    let lines = |what: &str, names: &[String]| {
        names.iter().map(|name| format!("{what}: {name}\n")).collect::<String>()
    };
    let failed = reloaded.failed.iter().map(|(name, reason)| format!("failed: {name}: {reason}\n"));
    lines("loaded", &reloaded.loaded)
        + &lines("unloaded", &reloaded.unloaded)
        + &failed.collect::<String>()
        + &lines("needs a restart", &reloaded.needs_restart)
}
