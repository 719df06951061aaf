//! Logging, and traces sent to a collector.

use std::io::IsTerminal;

use opentelemetry::global::set_text_map_propagator;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::{Log, LogFormat, TelemetryConfig};

/// Whose spans are sent: this crate's.
const TRACED: &str = env!("CARGO_CRATE_NAME");

/// Sends what is traced to standard error, as configured. Does nothing if that was set up before.
pub fn init(log: &Log) {
    install(log, None);
}

/// Traces on their way to a collector. Dropped, those that are left are sent.
#[must_use = "dropping it ends the sending of traces"]
#[derive(Debug)]
pub struct Traces(Option<SdkTracerProvider>);

/// As [`init`], and sends the spans of requests and their stages to a collector, if one is configured. Must be called
/// in the runtime that is to do that, which must outlive what is returned.
///
/// # Errors
///
/// The collector's address cannot be used. One that does not answer is only logged.
pub fn init_with_traces(log: &Log, config: &TelemetryConfig) -> Result<Traces, ExporterBuildError> {
    let provider = config.otlp_endpoint.as_deref().map(|endpoint| provider(endpoint, config)).transpose()?;
    if provider.is_some() {
        // For those who call other servers.
        set_text_map_propagator(TraceContextPropagator::new());
    }
    install(log, provider.as_ref());
    Ok(Traces(provider))
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(|provider| provider.shutdown()) {
            tracing::warn!(error = error.to_string(), "the last traces could not be sent");
        }
    }
}

fn provider(endpoint: &str, config: &TelemetryConfig) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio)));
    let resource = Resource::builder().with_service_name(config.service_name.clone()).build();
    let provider = SdkTracerProvider::builder();
    Ok(provider.with_batch_exporter(exporter).with_sampler(sampler).with_resource(resource).build())
}

fn install(log: &Log, provider: Option<&SdkTracerProvider>) {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let spans = provider.map(|provider| {
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(TRACED));
        layer.with_filter(Targets::new().with_target(TRACED, LevelFilter::INFO))
    });
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).try_init();
}

/// Whether a text is a level, or directives with a level each.
pub fn is_level(text: &str) -> bool {
    let level = |part: &str| match part.rsplit_once('=') {
        Some((_, level)) => level.trim().parse::<LevelFilter>().is_ok(),
        None => part.trim().parse::<LevelFilter>().is_ok(),
    };
    !text.trim().is_empty() && text.split(',').all(level) && EnvFilter::try_new(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        for text in ["info", "warn,smartedit_server=debug", "off"] {
            assert!(is_level(text), "{text}");
        }
        for text in ["", "loud", "info,h2=loud", "info,h2"] {
            assert!(!is_level(text), "{text}");
        }
    }
}
