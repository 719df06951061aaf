//! What the server counts and measures, for Prometheus.
//!
//! - `grpc_server_*`: calls, by the names and labels that ready-made dashboards of gRPC servers expect.
//! - `http_server_*`: HTTP requests, by OpenTelemetry's names.
//! - `process_*`: the process, by the names of Prometheus' own client libraries.
//! - `smartedit_*`: edits, stages, queues and what is kept.
//!
//! Every label has few values: names of deployments, stages, engines, methods, codes, reasons and configured keys, never a caller's
//! words.

mod callers;
mod calls;
mod connections;
mod edits;
mod process;
mod requests;
mod routes;
mod stage_runs;
mod state;

use std::sync::Arc;

use axum::http::HeaderValue;
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::deployment::Deployments;

pub use calls::{CallsLayer, Methods};
pub(crate) use connections::PortMetrics;
pub(crate) use requests::observe;
pub use routes::{By, ShadowEnd, ShadowOf};
pub(crate) use stage_runs::StageRun;

/// Upper bounds of durations' histograms, in seconds: from a cached stage to hundreds of steps on a CPU.
const SECONDS: [f64; 16] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0];

/// The outcome of what went to its end.
const OK: &str = "OK";

/// An empty histogram of durations.
fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// Everything a server counts. Cloning shares it.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    calls: calls::Calls,
    requests: requests::Requests,
    edits: edits::Edits,
    connections: connections::Connections,
    callers: callers::Callers,
    routes: routes::Routes,
    stage_runs: stage_runs::StageRuns,
}

/// Metrics as text, and the media type of the format.
pub struct Exposition {
    /// The metrics.
    pub text: String,
    /// What goes into `Content-Type`.
    pub media_type: &'static str,
}

impl Metrics {
    /// The metrics of a server of these deployments.
    pub fn new(deployments: Deployments) -> Self {
        let mut registry = Registry::default();
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("smartedit_build", "The program", version);
        registry.register_collector(Box::new(process::Process::begun_now()));
        registry.register_collector(Box::new(state::State::of(deployments)));
        let calls = calls::Calls::registered(&mut registry);
        let requests = requests::Requests::registered(&mut registry);
        let edits = edits::Edits::registered(&mut registry);
        let connections = connections::Connections::registered(&mut registry);
        let callers = callers::Callers::registered(&mut registry);
        let routes = routes::Routes::registered(&mut registry);
        let stage_runs = stage_runs::StageRuns::registered(&mut registry);
        let inner = Inner { registry, calls, requests, edits, connections, callers, routes, stage_runs };
        Self(Arc::new(inner))
    }

    /// All metrics, in the format of OpenMetrics if the value of `Accept` names it, else in that of Prometheus 0.0.4.
    pub fn expose(&self, accept: Option<&HeaderValue>) -> Exposition {
        let names =
            |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("openmetrics-text"));
        let mut exposition = Exposition { text: String::new(), media_type: prometheus_text::CONTENT_TYPE };
        let written = if accept.is_some_and(names) {
            exposition.media_type = OPEN_METRICS;
            text::encode(&mut exposition.text, &self.0.registry)
        } else {
            prometheus_text::encode(&mut exposition.text, &self.0.registry)
        };
        written.expect("a string takes whatever is written");
        exposition
    }
}

#[cfg(test)]
impl Metrics {
    /// The metrics of a server without deployments.
    pub(crate) fn of_nothing() -> Self {
        let config = crate::config::Config::default();
        let loader = crate::deployment::EngineLoader::new(crate::engines::Engines::default(), &config.cache);
        let loader: Arc<dyn crate::deployment::Loader> = Arc::new(loader);
        Self::new(Deployments::start(&config, &loader))
    }
}

/// The media type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
pub(crate) mod tests;
