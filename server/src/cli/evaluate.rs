//! `smartedit evaluate`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use smartedit_client::{EditOptions, OutputFormat};
use smartedit_core::picture::{Alpha, DecodeOptions};
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::local::Local;
use super::options::{self, Options};
use super::output;
use super::progress::Bar;
use super::settings::Settings;
use super::{CliError, print, runtime};

mod benchmark;
mod deployed;
mod edited;
mod human;
mod inline;
mod json;
mod networks;
mod outcomes;
mod page;
mod score;
mod summary;
mod table;

use benchmark::{Benchmark, Sample};
use deployed::Asking;
use edited::{Edit, Keeping, Made};
use human::Judgements;
use networks::{Networks, Weights};
use score::Scoring;
use summary::Evaluation;

#[derive(Debug, Args)]
pub(super) struct Evaluate {
    /// The benchmark, in the layout of Reason-Edit: directories 1-Left-Right to 6-Reasoning at any depth
    directory: PathBuf,
    /// Deployment to evaluate, once or more [default: the server's]. Without a server, the name of an engine (candle,
    /// torch, onnx) is the default model on that engine
    #[arg(long = "deployment", short, value_name = "NAME")]
    deployments: Vec<String>,
    /// Address of a server; without it, the edits are made right here
    #[arg(long, short, value_name = "ADDRESS", conflicts_with_all = ["model", "set"])]
    server: Option<String>,
    /// Directory of pictures that are edited already (LeftRight_metrics_1, …, at any depth), once or more; no edit is
    /// made. A --deployment for each names them [default: the directories' names]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["server", "model", "set", "save"])]
    edited: Vec<PathBuf>,
    /// Directory to keep edited pictures in, for --edited DIR/NAME
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// File to write all scores to, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// File to write the table to, as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// File to write a page to that shows every picture with its scores, as HTML
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// File to write a page to on which people judge the edits without knowing who made them, as HTML
    #[arg(long, value_name = "FILE")]
    human: Option<PathBuf>,
    /// Judgements that such a page saved, once for each judge
    #[arg(long, value_name = "FILE")]
    judgements: Vec<PathBuf>,
    /// Edits asked for at a time
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// Evaluate only the first pictures of each scenario
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Seconds that each edit may take
    #[arg(long, value_name = "SECONDS", value_parser = options::seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    weights: Weights,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    settings: Settings,
}

impl Evaluate {
    pub(super) fn run(self) -> Result<(), CliError> {
        self.check()?;
        let options = self.client_options()?;
        let benchmark =
            Benchmark::read(&self.directory, self.reading(), self.limit).map_err(CliError::failed)?;
        let stopped = CancellationToken::new();
        let scoring = Scoring {
            benchmark: &benchmark,
            networks: Networks::load(&self.weights)?,
            judgements: Judgements::read(&self.judgements)?,
        };
        let runtime = runtime()?;
        runtime.spawn(cancel_by_signal(stopped.clone()));
        let made = match self.edited.is_empty() {
            true => {
                let local = match self.server {
                    Some(_) => None,
                    None => Some(Local::configured("evaluate", &self.settings, &self.deployments)?),
                };
                runtime.block_on(async {
                    tokio::select! {
                        made = self.edit(&benchmark, options, local) => made,
                        () = stopped.cancelled() => Err(interrupted()),
                    }
                })
            }
            false => self.edited(&benchmark),
        };
        let outcome = made.and_then(|made| {
            let evaluations = scoring.score_all(&made, &stopped)?.ok_or_else(interrupted)?;
            self.report(&scoring, &made, &evaluations)
        });
        runtime.shutdown_background();
        outcome
    }

    /// Fails before any work is done if it would be in vain.
    fn check(&self) -> Result<(), CliError> {
        for path in [&self.json, &self.markdown, &self.html, &self.human].into_iter().flatten() {
            output::check_directory(path)?;
        }
        let (edited, deployments) = (self.edited.len(), self.deployments.len());
        if edited > 0 && deployments > 0 && edited != deployments {
            let message = format!("--edited is given {edited} times, --deployment {deployments} times");
            return Err(CliError::usage(message));
        }
        let names = self.names();
        match (1..names.len()).find(|&index| names[..index].contains(&names[index])) {
            Some(twice) => {
                let message = format!("`{}` names two: give each its own --deployment", names[twice]);
                Err(CliError::usage(message))
            }
            None => Ok(()),
        }
    }

    /// The names of what is evaluated; none, if it is the server's default deployment.
    fn names(&self) -> Vec<String> {
        match self.deployments.is_empty() {
            true => self.edited.iter().map(|directory| name_of(directory)).collect(),
            false => self.deployments.clone(),
        }
    }

    fn client_options(&self) -> Result<EditOptions, CliError> {
        Ok(EditOptions {
            seed: Some(self.seed()),
            output_format: Some(OutputFormat::Png),
            ..self.options.to_client()?
        })
    }

    /// How pictures are read: as the server reads them.
    fn reading(&self) -> DecodeOptions {
        DecodeOptions {
            alpha: if self.options.drops_alpha() { Alpha::Drop } else { Alpha::OverWhite },
            ignore_orientation: self.options.ignores_orientation(),
            ..DecodeOptions::default()
        }
    }

    /// Reads the edits.
    fn edited(&self, benchmark: &Benchmark) -> Result<Made, CliError> {
        let read = |directory: &PathBuf| edited::read(directory, benchmark).map_err(CliError::failed);
        Ok(Made { names: self.names(), edits: self.edited.iter().map(read).collect::<Result<_, _>>()? })
    }

    /// Has a server make the edits, one of its own or another.
    async fn edit(
        &self,
        benchmark: &Benchmark,
        options: EditOptions,
        local: Option<Local>,
    ) -> Result<Made, CliError> {
        let bar = Bar::new();
        let mut names = self.names();
        let address = match (&self.server, local) {
            (None, Some(mut local)) => {
                if names.is_empty() {
                    names.extend(local.config.default_deployment().map(str::to_owned));
                }
                local.keep_only(&names)?;
                bar.message("loading the models");
                local.start(&names).await?.to_string()
            }
            (server, _) => server.clone().unwrap_or_default(),
        };
        let client = self.connection.connect(address).await?;
        if names.is_empty() {
            names.push(client.deployment("").await.map_err(CliError::failed)?.name);
        }
        deployed::wait_until_ready(&client, &names, &bar).await?;
        let keeping = match &self.save {
            Some(directory) => Some(Keeping::new(directory, &names, benchmark)?),
            None => None,
        };
        let asking = Asking {
            deployments: names.clone(),
            options,
            timeout: self.timeout,
            concurrency: self.concurrency.into(),
        };
        let keep = |deployment: usize, sample: usize, edit: &Edit| match (&keeping, edit) {
            (Some(keeping), Ok(file)) => keeping.keep(&names[deployment], &benchmark.samples[sample], file),
            _ => Ok(()),
        };
        let edits = deployed::edit_all(&client, benchmark, &asking, keep, &bar).await?;
        Ok(Made { names, edits })
    }

    /// The seed of every edit: scores must not depend on chance.
    fn seed(&self) -> u64 {
        self.options.seed().unwrap_or(0)
    }

    /// Prints and writes the scores.
    fn report(
        &self,
        scoring: &Scoring<'_>,
        made: &Made,
        evaluations: &[Evaluation<'_>],
    ) -> Result<(), CliError> {
        let absent = scoring.absent();
        let failures: Vec<String> = evaluations.iter().flat_map(failures).collect();
        let mut remarks: Vec<String> = absent.iter().map(|(score, why)| format!("{score}: {why}")).collect();
        remarks.extend(scoring.strangers(made)?);
        remarks.extend(failures.iter().cloned());
        if let Some(path) = &self.json {
            let seed = self.edited.is_empty().then(|| self.seed());
            let json = json::json(&self.directory.to_string_lossy(), seed, evaluations, &absent);
            output::write(path, format!("{json:#}\n").as_bytes())?;
        }
        if let Some(path) = &self.markdown {
            output::write(path, table::markdown(evaluations, &remarks).as_bytes())?;
        }
        if let Some(path) = &self.html {
            let page = page::page(scoring.benchmark, evaluations, &made.edits, &remarks);
            output::write(path, page.as_bytes())?;
        }
        if let Some(path) = &self.human {
            let page = human::page(scoring.benchmark, &made.edits, self.seed())?;
            output::write(path, page.as_bytes())?;
        }
        print(&table::text(evaluations, &remarks))?;
        let total: usize = evaluations.iter().map(|evaluation| evaluation.edits.len()).sum();
        match failures.len() {
            0 => Ok(()),
            failed => Err(CliError::failed(format!("{failed} of {total} edits failed"))),
        }
    }
}

/// What became of the edits that failed.
fn failures(evaluation: &Evaluation<'_>) -> Vec<String> {
    let of = |(sample, why): (&Sample, &str)| format!("{}: {sample} failed: {why}", evaluation.name);
    evaluation.failures().map(of).collect()
}

/// The name of pictures that are edited already.
fn name_of(directory: &Path) -> String {
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    directory.file_name().map_or_else(|| "edited".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Cancels when the user presses Ctrl-C.
async fn cancel_by_signal(stopped: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stopped.cancel();
    }
}

fn interrupted() -> CliError {
    CliError::failed("interrupted; no report was written")
}
