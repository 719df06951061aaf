//! What is configured of HTTP.

use std::net::SocketAddr;

use axum::http::HeaderValue;
use serde::Deserialize;

use super::{Config, Problems};

/// Any origin, in [`HttpConfig::cors_origins`].
pub const ANY_ORIGIN: &str = "*";

/// What is served over HTTP: health, metrics, the `images/edits` call of OpenAI's interface, and gRPC-Web.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Whether anything is.
    pub enabled: bool,
    /// Address and port; without it, gRPC's address and the port after its own, or any free port where gRPC takes any.
    pub address: Option<SocketAddr>,
    /// Origins whose pages browsers let call, such as `https://example.org`; `*` is any.
    pub cors_origins: Vec<String>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { enabled: true, address: None, cors_origins: Vec::new() }
    }
}

impl Config {
    /// Address and port of HTTP, if it is served; port 0 is any free one.
    pub fn http_address(&self) -> Option<SocketAddr> {
        let HttpConfig { enabled, address, .. } = self.http;
        enabled.then(|| address.unwrap_or_else(|| beside(self.listen)))
    }

    pub(super) fn check_http(&self, problems: &mut Problems) {
        if self.http_address() == Some(self.listen) && self.listen.port() != 0 {
            problems.add("http.address", "is that of gRPC; choose another port, or set http.enabled = false");
        }
        for (index, origin) in self.http.cors_origins.iter().enumerate() {
            if origin != ANY_ORIGIN && !is_origin(origin) {
                let message = format!("`{origin}` is no origin, such as `https://example.org`, nor `*`");
                problems.add(format!("http.cors_origins[{index}]"), message);
            }
        }
    }
}

/// The port after this one; any free one after any free one. There is none after the last.
fn beside(address: SocketAddr) -> SocketAddr {
    let port = match address.port() {
        0 => 0,
        port => port.checked_add(1).unwrap_or(port),
    };
    SocketAddr::new(address.ip(), port)
}

/// Whether this is what browsers send as `Origin`: a scheme and a host, perhaps a port, and nothing after that.
fn is_origin(text: &str) -> bool {
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    authority.is_some_and(|authority| !authority.is_empty() && !authority.contains(['/', '*', ' ', ',']))
        && HeaderValue::from_str(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(listen: &str, http: HttpConfig) -> Option<SocketAddr> {
        Config { listen: listen.parse().unwrap(), http, ..Config::default() }.http_address()
    }

    #[test]
    fn http_is_beside_grpc_unless_configured() {
        let beside = |listen| address(listen, HttpConfig::default()).unwrap().to_string();
        assert_eq!(beside("127.0.0.1:50051"), "127.0.0.1:50052");
        assert_eq!(beside("[::]:80"), "[::]:81");
        assert_eq!(beside("0.0.0.0:0"), "0.0.0.0:0");
        let chosen = HttpConfig { address: "[::1]:9".parse().ok(), ..HttpConfig::default() };
        assert_eq!(address("127.0.0.1:1", chosen), "[::1]:9".parse().ok());
        let off = HttpConfig { enabled: false, ..HttpConfig::default() };
        assert_eq!(address("127.0.0.1:1", off), None);
    }

    fn complaints(config: &Config) -> Vec<String> {
        let mut problems = Problems::default();
        config.check_http(&mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_address_does_not_do_for_both() {
        let last = Config { listen: "127.0.0.1:65535".parse().unwrap(), ..Config::default() };
        let [complaint] = complaints(&last).try_into().unwrap();
        assert!(complaint.contains("http.address"), "{complaint}");
        assert!(
            complaints(&Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() }).is_empty()
        );
    }

    #[test]
    fn origins_have_a_scheme_and_no_path() {
        let origins = |origins: &[&str]| {
            let cors_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
            complaints(&Config {
                http: HttpConfig { cors_origins, ..HttpConfig::default() },
                ..Config::default()
            })
        };
        assert!(origins(&["*", "https://example.org", "http://localhost:8080"]).is_empty());
        for wrong in ["example.org", "https://", "https://example.org/", "https://*.org", "https://a\nb", ""]
        {
            let complaints = origins(&[wrong]);
            assert!(complaints.len() == 1 && complaints[0].contains("cors_origins[0]"), "{complaints:?}");
        }
    }
}
