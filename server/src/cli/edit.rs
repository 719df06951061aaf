//! `smartedit edit`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use smartedit_client::{EditOptions, EditRequest, Edited, Event, OutputFormat};

use super::connection::Connection;
use super::local::Local;
use super::options::{self, Options};
use super::output::{self, Format, file_error};
use super::progress::Bar;
use super::settings::Settings;
use super::{CliError, print, runtime};

/// Steps between previews where a directory for them is given but no interval.
const PREVIEW_INTERVAL: u32 = 5;

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
    /// Steps between previews [default: 5 with --preview-dir]
    #[arg(long, value_name = "STEPS", requires = "preview_dir")]
    preview_interval: Option<u32>,
    /// File format [default: by the extension of the output]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Quality of JPEG, 1 to 100 [default: 90]
    #[arg(long)]
    quality: Option<u32>,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    settings: Settings,
}

impl Edit {
    pub(super) fn run(self) -> Result<(), CliError> {
        let options = self.client_options()?;
        output::check_directory(&self.output)?;
        let request = EditRequest {
            image: output::read(&self.input)?.into(),
            instruction: self.instruction.clone(),
            deployment: self.deployment.clone(),
            options,
            timeout: self.timeout,
        };
        let local = match self.server {
            Some(_) => None,
            None => Some(Local::configured("edit", &self.settings, &[])?),
        };
        let runtime = runtime()?;
        let edited = runtime.block_on(self.edit(request, local));
        runtime.shutdown_background();
        let edited = edited?;
        output::write(&self.output, &edited.image)?;
        print(&summary(&self.output, &edited))
    }

    fn client_options(&self) -> Result<EditOptions, CliError> {
        let format = self.format.or_else(|| Format::by_extension(&self.output)).ok_or_else(|| {
            let output = self.output.display();
            CliError::usage(format!("{output}: the extension is none of png, jpg, webp; give --format"))
        })?;
        let previews = self.preview_dir.is_some();
        Ok(EditOptions {
            preview_interval: previews.then(|| self.preview_interval.unwrap_or(PREVIEW_INTERVAL)),
            output_format: Some(match format {
                Format::Png => OutputFormat::Png,
                Format::Jpeg => OutputFormat::Jpeg,
                Format::WebP => OutputFormat::WebP,
            }),
            output_quality: self.quality,
            ..self.options.to_client()?
        })
    }

    async fn edit(&self, request: EditRequest, local: Option<Local>) -> Result<Edited, CliError> {
        let bar = Bar::new();
        let address = match (&self.server, local) {
            (None, Some(local)) => {
                bar.message("loading the model");
                let deployment = self.deployment.clone().unwrap_or_default();
                local.start(&[deployment]).await?.to_string()
            }
            (server, _) => server.clone().unwrap_or_default(),
        };
        let client = self.connection.connect(address).await?;
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
