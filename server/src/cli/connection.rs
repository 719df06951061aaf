//! How a command reaches a server.

use std::path::PathBuf;

use clap::Args;
use smartedit_client::{Certificate, Client, ClientTlsConfig, Identity};

use super::CliError;
use super::output::read;

/// How a command reaches a server that encrypts, and says who calls.
#[derive(Debug, Args)]
pub(super) struct Connection {
    /// PEM file with the roots that vouch for the server; without it, those of the system do for `https://…`
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    ca: Option<PathBuf>,
    /// PEM file with a certificate to show to the server
    #[arg(long, value_name = "FILE", requires = "key", help_heading = "Connection")]
    cert: Option<PathBuf>,
    /// PEM file with the private key of the certificate
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "Connection")]
    key: Option<PathBuf>,
    /// API key or token; other users of this machine see arguments, but not the variable
    #[arg(
        long,
        value_name = "KEY",
        env = "SMARTEDIT_API_KEY",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    api_key: Option<String>,
}

impl Connection {
    /// Connects to the server at an address.
    pub(super) async fn connect(&self, address: String) -> Result<Client, CliError> {
        let mut builder = Client::builder(address);
        if let Some(tls) = self.tls()? {
            builder = builder.tls(tls);
        }
        if let Some(key) = self.api_key.as_deref().filter(|key| !key.is_empty()) {
            builder = builder.api_key(key).map_err(CliError::usage)?;
        }
        builder.connect().await.map_err(CliError::failed)
    }

    /// How the connection is encrypted, as far as the flags say so.
    pub(super) fn tls(&self) -> Result<Option<ClientTlsConfig>, CliError> {
        if self.ca.is_none() && self.cert.is_none() {
            return Ok(None);
        }
        let mut tls = match &self.ca {
            Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        Ok(Some(tls))
    }
}
