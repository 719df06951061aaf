//! What is configured of encryption.

use std::path::PathBuf;

use serde::Deserialize;

/// Encryption of both ports. All files are in PEM format, and are read again on reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// The server's certificate, followed by those between it and its root; required.
    pub certificate: Option<PathBuf>,
    /// The private key of the certificate; required.
    pub key: Option<PathBuf>,
    /// Roots of the certificates that clients may have.
    pub client_ca: Option<PathBuf>,
    /// Whether clients must have a certificate.
    pub client_auth: ClientAuth,
    /// What of this the port of HTTP does.
    pub http: HttpTls,
}

/// Whether clients must have a certificate, where `client_ca` says of which roots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// They must.
    #[default]
    Required,
    /// They need not, but one that they show must be good.
    Optional,
}

/// What the port of HTTP does of what gRPC's does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpTls {
    /// The same.
    #[default]
    Same,
    /// It encrypts and asks no client for a certificate: probes and scrapers often have none.
    ServerOnly,
    /// It does not encrypt.
    Off,
}
