//! `smartedit serve`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::settings::Settings;
use super::{CliError, print, runtime};
use crate::config::{Config, Loaded, Override};
use crate::deployment::EngineLoader;
use crate::engines::Engines;
use crate::security::warn_of_openness;
use crate::server::Server;
use crate::service::Reloader;
use crate::telemetry;

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Settings,
    /// Address and port to serve on; port 0 is any free one [default: 127.0.0.1:50051]
    #[arg(long, short, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Address and port of HTTP: health, metrics, OpenAI's `images/edits`, gRPC-Web [default: the port after gRPC's]
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// Form of log lines: `text` or `json` [default: text]
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"])]
    log_format: Option<String>,
    /// Log level, or directives such as `info,h2=warn` [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Seconds that running and waiting edits may take to finish after SIGTERM [default: 30]
    #[arg(long, value_name = "SECONDS")]
    drain_timeout: Option<f64>,
    /// Check the configuration, say everything that is wrong with it or cannot be had here, and end
    #[arg(long)]
    check_config: bool,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), CliError> {
        let (loaded, engines, strangers) = self.read()?;
        if self.check_config {
            loaded.check_here(&engines).map_err(CliError::usage)?;
            return print("the configuration is valid\n");
        }
        let config = loaded.config;
        let runtime = runtime()?;
        let traces = {
            let _runtime = runtime.enter();
            telemetry::init_with_traces(&config.log, &config.telemetry).map_err(CliError::failed)?
        };
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "smartedit");
        for variable in strangers {
            tracing::warn!(variable, "is not a setting; ignored");
        }
        warn_of_openness(&config);
        let outcome = runtime.block_on(self.serve(config, engines));
        drop(traces);
        // A worker in the middle of a long step must not hold up the end.
        runtime.shutdown_background();
        outcome
    }

    /// The configuration, checked.
    fn read(&self) -> Result<(Loaded, Engines, Vec<String>), CliError> {
        self.settings.load(self.flags(), std::env::vars(), &[])
    }

    async fn serve(self, config: Config, engines: Engines) -> Result<(), CliError> {
        // Before the address is bound: whoever sees it can rely on signals being heard.
        let mut signals = Signals::listen()?;
        let loader = Arc::new(EngineLoader::new(engines, &config.cache).with_adapters(&config.adapters));
        let server = Server::bind_with(config, loader).await.map_err(CliError::failed)?;
        let server = server.with_source(move || Ok(self.read().map_err(|error| error.to_string())?.0.config));
        tracing::info!(address = %server.local_addr(), http = server.http_addr().map(tracing::field::display), "listening");
        let (shutdown, reloader) = (server.shutdown(), server.reloader());
        let mut serving = std::pin::pin!(server.serve());
        let signal = tokio::select! {
            outcome = &mut serving => return outcome.map(drop).map_err(CliError::failed),
            signal = signals.end.next() => signal,
            never = reload_at(signals.reload, &reloader) => match never {},
        };
        tracing::info!(signal, "asked to shut down; a second signal ends at once");
        shutdown.begin();
        tokio::select! {
            outcome = serving => outcome.map(drop).map_err(CliError::failed),
            signal = signals.end.next() => {
                Err(CliError::failed(format!("ended at once by a second signal, {signal}")))
            }
        }
    }

    fn flags(&self) -> Vec<Override> {
        let mut flags = Vec::new();
        let mut add = |flag: &str, key: &str, value: Option<String>| {
            flags.extend(value.map(|value| Override::flag(flag, key, value)));
        };
        add("--listen", "listen", self.listen.map(|address| format!("\"{address}\"")));
        add("--http", "http.address", self.http.map(|address| format!("\"{address}\"")));
        add("--log-format", "log.format", self.log_format.clone());
        add("--log-level", "log.level", self.log_level.clone());
        add(
            "--drain-timeout",
            "drain.timeout_seconds",
            self.drain_timeout.map(|seconds| format!("{seconds:?}")),
        );
        flags
    }
}

/// Reads the configuration again at every signal. One that comes while that is being done counts once it is.
async fn reload_at(mut signal: Signal, reloader: &Reloader) -> Infallible {
    loop {
        if signal.recv().await.is_none() {
            return std::future::pending().await;
        }
        tracing::info!("SIGHUP: reading the configuration again");
        // What is wrong has been logged.
        let _ = reloader.reload().await;
    }
}

struct Signals {
    end: Ends,
    reload: Signal,
}

/// The signals that end a server.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(CliError::failed);
        let end =
            Ends { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? };
        Ok(Self { end, reload: listen(SignalKind::hangup())? })
    }
}

impl Ends {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
