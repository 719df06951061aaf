//! `smartedit edit`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use smartedit_client::{Client, EditRequest, Edited, Event};

use super::progress::Bar;
use super::settings::Settings;
use super::{CliError, print, runtime};
use crate::config::{Config, Override};
use crate::deployment::EngineLoader;
use crate::engines::Engines;
use crate::server::Server;
use crate::telemetry;

mod options;
mod output;

use options::Options;

#[derive(Debug, Args)]
pub(super) struct Edit {
    /// The picture: PNG, JPEG or WebP
    input: PathBuf,
    /// What to change, such as "Change the left cat to a fox"
    instruction: String,
    /// File to write the edited picture to; its extension chooses the format
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Address of a server; without it, the edit is made right here
    #[arg(long, short, value_name = "ADDRESS", conflicts_with_all = ["model", "set"])]
    server: Option<String>,
    /// Deployment that makes the edit [default: the server's]
    #[arg(long, short, value_name = "NAME")]
    deployment: Option<String>,
    /// Seconds that the edit may take
    #[arg(long, value_name = "SECONDS", value_parser = options::seconds)]
    timeout: Option<Duration>,
    /// Directory to write previews to
    #[arg(long, value_name = "DIR")]
    preview_dir: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    settings: Settings,
}

impl Edit {
    pub(super) fn run(self) -> Result<(), CliError> {
        let format = self.options.format(&self.output)?;
        output::check_directory(&self.output)?;
        let image =
            std::fs::read(&self.input).map_err(|error| file_error("cannot read", &self.input, error))?;
        let request = EditRequest {
            image: image.into(),
            instruction: self.instruction.clone(),
            deployment: self.deployment.clone(),
            options: self.options.to_client(format, self.preview_dir.is_some())?,
            timeout: self.timeout,
        };
        let local = match self.server {
            Some(_) => None,
            None => Some(self.local_config()?),
        };
        let runtime = runtime()?;
        let edited = runtime.block_on(self.edit(request, local));
        runtime.shutdown_background();
        let edited = edited?;
        output::write(&self.output, &edited.image)?;
        print(&summary(&self.output, &edited))
    }

    fn local_config(&self) -> Result<(Config, Engines), CliError> {
        let flags = vec![
            Override::flag("edit", "listen", "\"127.0.0.1:0\""),
            Override::flag("edit", "log.level", "warn"),
        ];
        let (loaded, engines, _) = self.settings.load(flags, std::env::vars())?;
        telemetry::init(&loaded.config.log);
        Ok((loaded.config, engines))
    }

    async fn edit(&self, request: EditRequest, local: Option<(Config, Engines)>) -> Result<Edited, CliError> {
        let bar = Bar::new();
        let address = match (&self.server, local) {
            (None, Some((config, engines))) => {
                bar.message("loading the model");
                self.start(config, engines).await?.to_string()
            }
            (server, _) => server.clone().unwrap_or_default(),
        };
        let client = Client::connect(address).await.map_err(CliError::failed)?;
        let mut events = client.edit_stream(request).await.map_err(CliError::failed)?;
        while let Some(event) = events.next().await {
            let event = event.map_err(CliError::failed)?;
            bar.show(&event);
            match (event, &self.preview_dir) {
                (Event::Finished(edited), _) => return Ok(*edited),
                (Event::Step { preview: Some(preview), .. }, Some(directory)) => {
                    std::fs::create_dir_all(directory)
                        .map_err(|error| file_error("cannot create", directory, error))?;
                    output::write(&directory.join(format!("step-{:04}.jpg", preview.step)), &preview.image)?;
                }
                _ => {}
            }
        }
        Err(CliError::failed("the server ended the stream without a result"))
    }

    /// Starts a server on a loopback port and waits until the deployment is ready.
    async fn start(&self, config: Config, engines: Engines) -> Result<SocketAddr, CliError> {
        let loader = Arc::new(EngineLoader::new(engines, &config.cache));
        let server = Server::bind_with(config, loader).await.map_err(CliError::failed)?;
        let address = server.local_addr();
        let ready = server.ready(self.deployment.as_deref().unwrap_or_default());
        tokio::spawn(server.serve());
        ready.await.map_err(CliError::failed)?;
        Ok(address)
    }
}

fn summary(output: &Path, edited: &Edited) -> String {
    let seconds = |duration: Duration| format!("{:.2} s", duration.as_secs_f64());
    let timings = &edited.timings;
    let stages: Vec<_> = timings
        .stages
        .iter()
        .map(|stage| {
            let cached = if stage.cached { " (cached)" } else { "" };
            format!("{} {}{cached}", stage.stage, seconds(stage.duration))
        })
        .collect();
    let mut text =
        format!("{}: {}×{}, seed {}\n", output.display(), edited.width, edited.height, edited.seed);
    if let Some(reply) = edited.reply.as_deref().filter(|reply| !reply.is_empty()) {
        text += &format!("reply: {reply}\n");
    }
    text += &format!(
        "time: {}, {} of it waiting; {}\n",
        seconds(timings.total),
        seconds(timings.queued),
        stages.join(", ")
    );
    text
}

fn file_error(what: &str, path: &Path, error: std::io::Error) -> CliError {
    CliError::failed(format!("{what} {}: {error}", path.display()))
}
