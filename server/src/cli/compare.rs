//! `smartedit compare`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use image::RgbImage;
use smartedit_client::{CompareEntry, CompareEvent, CompareRequest, Compared, OutputFormat};
use smartedit_core::picture::{Alpha, DecodeOptions, decode, encode};

use super::connection::Connection;
use super::local::Local;
use super::options::{self, Options};
use super::output::{self, Format, file_error};
use super::progress::Bar;
use super::settings::Settings;
use super::{CliError, print, runtime};

mod sheet;
mod table;

use sheet::Column;

#[derive(Debug, Args)]
pub(super) struct Compare {
    /// The picture: PNG, JPEG or WebP
    input: PathBuf,
    /// What to change, such as "Change the left cat to a fox"
    instruction: String,
    /// Deployment to compare, twice or more; the first is what the others are measured against. Without a server, the
    /// name of an engine (candle, torch, onnx) is the default model on that engine
    #[arg(long = "deployment", short, value_name = "NAME", required = true)]
    deployments: Vec<String>,
    /// File to draw the pictures into, side by side; its extension chooses the format
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How many times differences are enlarged in the picture
    #[arg(long, value_name = "TIMES", default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..))]
    gain: u8,
    /// Difference above which latents part [default: 0.01]
    #[arg(long, value_name = "DIFFERENCE", allow_negative_numbers = true)]
    threshold: Option<f32>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Address of a server; without it, the edits are made right here
    #[arg(long, short, value_name = "ADDRESS", conflicts_with_all = ["model", "set"])]
    server: Option<String>,
    /// Seconds that the comparison may take
    #[arg(long, value_name = "SECONDS", value_parser = options::seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    settings: Settings,
}

/// What a comparison comes to.
struct Comparison {
    seed: u64,
    entries: Vec<CompareEntry>,
}

impl Compare {
    pub(super) fn run(self) -> Result<(), CliError> {
        let format = self.sheet_format()?;
        let mut request = CompareRequest::new(
            output::read(&self.input)?,
            self.instruction.clone(),
            self.deployments.clone(),
        );
        request.options = self.options.to_client()?;
        // Lossless, whatever the sheet's format.
        request.options.output_format = Some(OutputFormat::Png);
        request.latent_threshold = self.threshold;
        request.timeout = self.timeout;
        let source = self.source(&request.image)?;
        let local = match self.server {
            Some(_) => None,
            None => Some(self.local()?),
        };
        let runtime = runtime()?;
        let comparison = runtime.block_on(self.compare(request, local));
        runtime.shutdown_background();
        let Comparison { seed, entries } = comparison?;
        if let (Some(path), Some(format)) = (&self.output, format) {
            let sheet = sheet::draw(&source, &columns(&entries, self.gain)?, self.gain);
            let file = encode(&sheet, format.core(), None).map_err(CliError::failed)?;
            output::write(path, &file)?;
        }
        print(&match self.json {
            true => format!("{:#}\n", table::json(seed, &entries)),
            false => format!("seed {seed}\n{}", table::table(&entries)),
        })?;
        let failed = entries.iter().filter(|entry| entry.outcome.is_err()).count();
        match failed {
            0 => Ok(()),
            failed => Err(CliError::failed(format!("{failed} of {} deployments failed", entries.len()))),
        }
    }

    fn sheet_format(&self) -> Result<Option<Format>, CliError> {
        let Some(path) = &self.output else { return Ok(None) };
        output::check_directory(path)?;
        let format = Format::by_extension(path).ok_or_else(|| {
            CliError::usage(format!("{}: the extension is none of png, jpg, webp", path.display()))
        })?;
        Ok(Some(format))
    }

    /// The source as the server reads it.
    fn source(&self, file: &[u8]) -> Result<RgbImage, CliError> {
        let reading = DecodeOptions {
            alpha: if self.options.drops_alpha() { Alpha::Drop } else { Alpha::OverWhite },
            ignore_orientation: self.options.ignores_orientation(),
            ..DecodeOptions::default()
        };
        decode(file, &reading).map_err(|error| file_error("cannot read", &self.input, error))
    }

    /// A server of the deployments that are compared and no others.
    fn local(&self) -> Result<Local, CliError> {
        let mut local = Local::configured("compare", &self.settings, &self.deployments)?;
        local.keep_only(&self.deployments)?;
        Ok(local)
    }

    async fn compare(&self, request: CompareRequest, local: Option<Local>) -> Result<Comparison, CliError> {
        let bar = Bar::new();
        let address = match (&self.server, local) {
            (None, Some(local)) => {
                bar.message("loading the models");
                local.start(&self.deployments).await?.to_string()
            }
            (server, _) => server.clone().unwrap_or_default(),
        };
        let client = self.connection.connect(address).await?;
        let mut events = client.compare_stream(request).await.map_err(CliError::failed)?;
        let mut comparison = Comparison { seed: 0, entries: Vec::new() };
        while let Some(event) = events.next().await {
            match event.map_err(CliError::failed)? {
                CompareEvent::Started { seed, .. } => comparison.seed = seed,
                CompareEvent::Progress { deployment, event } => {
                    bar.deployment(&deployment);
                    bar.show(&event);
                }
                CompareEvent::Entry(entry) => comparison.entries.push(*entry),
                _ => {}
            }
        }
        Ok(comparison)
    }
}

fn columns(entries: &[CompareEntry], gain: u8) -> Result<Vec<Column>, CliError> {
    entries.iter().map(|entry| column(entry, gain)).collect()
}

fn column(entry: &CompareEntry, gain: u8) -> Result<Column, CliError> {
    let name = &entry.deployment;
    let Ok(Compared { edited, difference, .. }) = &entry.outcome else {
        let label = format!("{name}: failed");
        return Ok(Column { label, picture: None, difference_label: String::new() });
    };
    let picture = decode(&edited.image, &DecodeOptions::default()).map_err(CliError::failed)?;
    let difference_label = match difference.as_ref().map(|difference| &difference.pixels) {
        Some(Ok(pixels)) => format!("difference ×{gain}, {}", table::decibels(pixels.psnr)),
        Some(Err(_)) => "cannot be compared".to_owned(),
        None => String::new(),
    };
    Ok(Column { label: name.clone(), picture: Some(picture), difference_label })
}
