//! A stage on another server.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A model of another server that computes a stage. The server speaks the Open Inference Protocol, version 2, over gRPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// Where the server is: `http://HOST:PORT`, or `https://HOST:PORT` for TLS.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// The model's version there; without it, the server's choice.
    #[serde(default)]
    pub version: Option<String>,
    /// The model's name of each of the stage's inputs, where it differs.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// The model's name of each of the stage's outputs, where it differs.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
    /// Whether elements are sent as bytes, and not one by one in typed contents.
    #[serde(default = "yes")]
    pub raw: bool,
    /// How long one attempt at a call may take, in milliseconds. The deadline of an edit may leave it less.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// How long a connection may take to be made, in milliseconds.
    #[serde(default = "connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// How long a server that is not there yet, or is still loading the model, is waited for when the stage is loaded, in
    /// milliseconds.
    #[serde(default = "load_timeout_ms")]
    pub load_timeout_ms: u64,
    /// Further attempts after one that found the server unavailable or too busy.
    #[serde(default = "retries")]
    pub retries: u32,
    /// Size of a message, either way, in bytes.
    #[serde(default = "max_message_bytes")]
    pub max_message_bytes: usize,
    /// A file that holds a token, sent as `authorization: Bearer TOKEN`.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// How the server is known, and how it knows this one, where the URL says TLS.
    #[serde(default)]
    pub tls: RemoteTls,
}

/// How both ends of a connection know each other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RemoteTls {
    /// Certificates of the authorities that the server's may come from, PEM; without it, the system's.
    pub ca: Option<PathBuf>,
    /// The certificate chain that this end shows, PEM; needs the key.
    pub certificate: Option<PathBuf>,
    /// The private key of that, PEM.
    pub key: Option<PathBuf>,
    /// The name that the server's certificate must have; without it, the URL's host.
    pub server_name: Option<String>,
}

impl Remote {
    /// A model of a server, all else by default.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            version: None,
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
            raw: yes(),
            timeout_ms: timeout_ms(),
            connect_timeout_ms: connect_timeout_ms(),
            load_timeout_ms: load_timeout_ms(),
            retries: retries(),
            max_message_bytes: max_message_bytes(),
            token_file: None,
            tls: RemoteTls::default(),
        }
    }
}

fn yes() -> bool {
    true
}

fn timeout_ms() -> u64 {
    60_000
}

fn connect_timeout_ms() -> u64 {
    5_000
}

fn load_timeout_ms() -> u64 {
    10_000
}

fn retries() -> u32 {
    3
}

fn max_message_bytes() -> usize {
    64 << 20
}
