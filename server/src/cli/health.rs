//! `smartedit health`.

use std::time::Duration;

use clap::Args;
use tonic::Code;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::connection::Connection;
use super::options::seconds;
use super::{CliError, print, runtime};

#[derive(Debug, Args)]
pub(super) struct Health {
    /// The server's address
    #[arg(long, short, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    server: String,
    /// What is asked about: `live`, or the name of a service [default: whether the server is ready]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
    /// Seconds that the answer may take
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    timeout: Duration,
    #[command(flatten)]
    connection: Connection,
}

impl Health {
    /// Succeeds if the server says SERVING.
    pub(super) fn run(self) -> Result<(), CliError> {
        let status = runtime()?.block_on(async {
            match tokio::time::timeout(self.timeout, self.ask()).await {
                Ok(answer) => answer,
                Err(_) => Err(CliError::failed(format!("no answer within {:?}", self.timeout))),
            }
        })?;
        match status {
            ServingStatus::Serving => print("SERVING\n"),
            other => Err(CliError::failed(other.as_str_name())),
        }
    }

    async fn ask(&self) -> Result<ServingStatus, CliError> {
        let channel = self.channel().await?;
        let request = HealthCheckRequest { service: self.service.clone() };
        match HealthClient::new(channel).check(request).await {
            Ok(answer) => Ok(answer.into_inner().status()),
            Err(status) if status.code() == Code::NotFound => {
                Err(CliError::failed(format!("the server knows no service `{}`", self.service)))
            }
            Err(status) => Err(CliError::failed(status)),
        }
    }

    async fn channel(&self) -> Result<Channel, CliError> {
        let tls = match self.connection.tls()? {
            None if self.server.starts_with("https://") => Some(ClientTlsConfig::new().with_native_roots()),
            tls => tls,
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let uri = match self.server.split_once("://") {
            Some((_, address)) => format!("{scheme}://{address}"),
            None => format!("{scheme}://{}", self.server),
        };
        let mut endpoint = Endpoint::from_shared(uri).map_err(CliError::usage)?;
        if let Some(tls) = tls {
            endpoint = endpoint.tls_config(tls).map_err(CliError::usage)?;
        }
        endpoint.connect().await.map_err(CliError::failed)
    }
}
