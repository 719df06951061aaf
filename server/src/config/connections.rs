//! What is configured of connections.

use std::time::Duration;

use serde::Deserialize;

use super::{Config, Problems};

/// What a connection may cost, and how long whoever is at its other end may keep the server waiting.
///
/// These bound callers who are slow, gone or malicious; what edits may cost is in [`Limits`](super::Limits).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionsConfig {
    /// Connections open at the same time, on each port; further ones are closed at once.
    pub max: usize,
    /// Calls at the same time on a connection; further ones wait at the client. As many may be cancelled before the server has
    /// come to them; a caller who does more of that is not served any more.
    pub max_streams: u32,
    /// How long a new connection may say nothing, in seconds.
    pub opening_timeout_seconds: f64,
    /// How long an HTTP/1 connection may take until it has sent the head of its first or next request, in seconds.
    pub idle_timeout_seconds: f64,
    /// How long a request may take to arrive, in seconds, but for those of calls that stream requests.
    pub upload_timeout_seconds: f64,
    /// How long a part of an answer may wait to be taken, in seconds.
    pub download_timeout_seconds: f64,
    /// How long a call that streams requests may go without one while none is being answered, in seconds.
    pub stream_idle_timeout_seconds: f64,
    /// How long an HTTP/2 connection may be silent before it is asked for a sign of life, and how long that may take, in
    /// seconds.
    pub keepalive_seconds: f64,
    /// After how long an HTTP/2 connection is told to go away, in seconds, so that load balancers spread callers anew;
    /// without it, never. What has begun on it goes on.
    pub max_age_seconds: Option<f64>,
}

impl Default for ConnectionsConfig {
    fn default() -> Self {
        Self {
            max: 512,
            max_streams: 256,
            opening_timeout_seconds: 10.0,
            idle_timeout_seconds: 75.0,
            upload_timeout_seconds: 120.0,
            download_timeout_seconds: 60.0,
            stream_idle_timeout_seconds: 600.0,
            keepalive_seconds: 20.0,
            max_age_seconds: None,
        }
    }
}

impl ConnectionsConfig {
    /// How long a new connection may say nothing.
    pub fn opening_timeout(&self) -> Duration {
        seconds(self.opening_timeout_seconds)
    }

    /// How long an HTTP/1 connection may take until it has sent the head of a request.
    pub fn idle_timeout(&self) -> Duration {
        seconds(self.idle_timeout_seconds)
    }

    /// How long a request may take to arrive.
    pub fn upload_timeout(&self) -> Duration {
        seconds(self.upload_timeout_seconds)
    }

    /// How long a part of an answer may wait to be taken.
    pub fn download_timeout(&self) -> Duration {
        seconds(self.download_timeout_seconds)
    }

    /// How long a call that streams requests may go without one.
    pub fn stream_idle_timeout(&self) -> Duration {
        seconds(self.stream_idle_timeout_seconds)
    }

    /// How long an HTTP/2 connection may be silent, and how long a sign of life may take.
    pub fn keepalive(&self) -> Duration {
        seconds(self.keepalive_seconds)
    }

    /// After how long an HTTP/2 connection is told to go away.
    pub fn max_age(&self) -> Option<Duration> {
        self.max_age_seconds.map(seconds)
    }
}

/// A duration that [`Config::check_connections`] has passed.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// The longest time that can be configured: a week.
const MAX_SECONDS: f64 = 7.0 * 24.0 * 3600.0;

impl Config {
    pub(super) fn check_connections(&self, problems: &mut Problems) {
        let connections = &self.connections;
        let key = |name: &str| format!("connections.{name}");
        for (name, zero) in [("max", connections.max == 0), ("max_streams", connections.max_streams == 0)] {
            if zero {
                problems.add(key(name), "must be 1 or more");
            }
        }
        if connections.max > tokio::sync::Semaphore::MAX_PERMITS {
            problems.add(key("max"), "is too large");
        }
        for (name, seconds) in [
            ("opening_timeout_seconds", connections.opening_timeout_seconds),
            ("idle_timeout_seconds", connections.idle_timeout_seconds),
            ("upload_timeout_seconds", connections.upload_timeout_seconds),
            ("download_timeout_seconds", connections.download_timeout_seconds),
            ("stream_idle_timeout_seconds", connections.stream_idle_timeout_seconds),
            ("keepalive_seconds", connections.keepalive_seconds),
            ("max_age_seconds", connections.max_age_seconds.unwrap_or(MAX_SECONDS)),
        ] {
            if !(seconds > 0.0 && seconds <= MAX_SECONDS) {
                problems.add(key(name), format!("is {seconds}, must be above 0 and at most {MAX_SECONDS}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(connections: ConnectionsConfig) -> Vec<String> {
        let mut problems = Problems::default();
        Config { connections, ..Config::default() }.check_connections(&mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_are_fine() {
        assert!(complaints(ConnectionsConfig::default()).is_empty());
    }

    #[test]
    fn no_bound_can_be_left_out() {
        let complaints = complaints(ConnectionsConfig {
            max: 0,
            max_streams: 0,
            opening_timeout_seconds: 0.0,
            idle_timeout_seconds: -1.0,
            upload_timeout_seconds: f64::NAN,
            download_timeout_seconds: f64::INFINITY,
            stream_idle_timeout_seconds: 1e9,
            keepalive_seconds: 0.0,
            max_age_seconds: Some(0.0),
        });
        assert_eq!(complaints.len(), 9, "{complaints:#?}");
        assert!(complaints.iter().all(|complaint| complaint.starts_with("connections.")), "{complaints:#?}");
    }
}
