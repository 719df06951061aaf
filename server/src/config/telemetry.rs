//! What is configured of traces.

use http::Uri;
use serde::Deserialize;

use super::{Config, Problems};

/// Where traces go.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// An OpenTelemetry collector that takes OTLP over gRPC, such as `http://localhost:4317`; without it, traces go
    /// nowhere.
    pub otlp_endpoint: Option<String>,
    /// The share of traces that are sent, of those whose caller has not decided: 0 to 1.
    pub sample_ratio: f64,
    /// The name of the service in traces.
    pub service_name: String,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { otlp_endpoint: None, sample_ratio: 1.0, service_name: "smartedit".to_owned() }
    }
}

impl Config {
    pub(super) fn check_telemetry(&self, problems: &mut Problems) {
        let TelemetryConfig { otlp_endpoint, sample_ratio, service_name } = &self.telemetry;
        if let Some(endpoint) = otlp_endpoint.as_ref().filter(|endpoint| !is_endpoint(endpoint)) {
            let message = format!("`{endpoint}` is no address such as `http://localhost:4317`");
            problems.add("telemetry.otlp_endpoint", message);
        }
        if !(0.0..=1.0).contains(sample_ratio) {
            problems.add("telemetry.sample_ratio", format!("is {sample_ratio}, 0 to 1 are allowed"));
        }
        if service_name.is_empty() {
            problems.add("telemetry.service_name", "is empty");
        }
    }
}

fn is_endpoint(text: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.authority().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_named() {
        let complaints = |telemetry| {
            let mut problems = Problems::default();
            Config { telemetry, ..Config::default() }.check_telemetry(&mut problems);
            problems.iter().map(|problem| problem.key.clone()).collect::<Vec<_>>()
        };
        let default = TelemetryConfig::default;
        let at = |endpoint: &str| TelemetryConfig { otlp_endpoint: Some(endpoint.to_owned()), ..default() };
        assert!(complaints(default()).is_empty());
        assert!(complaints(at("http://collector:4317")).is_empty());
        for wrong in ["collector:4317", "https://collector:4317", "http://", "a b"] {
            assert_eq!(complaints(at(wrong)), ["telemetry.otlp_endpoint"], "{wrong}");
        }
        for sample_ratio in [-0.1, 1.1, f64::NAN] {
            assert_eq!(complaints(TelemetryConfig { sample_ratio, ..default() }), ["telemetry.sample_ratio"]);
        }
        let nameless = TelemetryConfig { service_name: String::new(), ..default() };
        assert_eq!(complaints(nameless), ["telemetry.service_name"]);
    }
}
