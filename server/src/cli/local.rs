//! A server of a command's own, where it is given none.

use std::net::SocketAddr;
use std::sync::Arc;

use super::CliError;
use super::settings::Settings;
use crate::config::{Config, Override};
use crate::deployment::EngineLoader;
use crate::engines::Engines;
use crate::server::Server;
use crate::telemetry;

/// A server of a command's own, which is not started yet.
pub(super) struct Local {
    pub(super) config: Config,
    engines: Engines,
}

impl Local {
    /// Configures the server of a command, which logs nothing but warnings. `deployments` are those that the command
    /// names: where one is an engine's name instead, it is the default model on that engine.
    pub(super) fn configured(
        command: &str,
        settings: &Settings,
        deployments: &[String],
    ) -> Result<Self, CliError> {
        let flags = vec![
            Override::flag(command, "listen", "\"127.0.0.1:0\""),
            Override::flag(command, "http.enabled", false),
            Override::flag(command, "log.level", "warn"),
        ];
        let (loaded, engines, _) = settings.load(flags, std::env::vars(), deployments)?;
        telemetry::init(&loaded.config.log);
        // It talks to nobody but this command.
        let mut config = Config { tls: None, auth: None, ..loaded.config };
        // The one edit there is would be made later for it.
        config.deployments.values_mut().for_each(|deployment| deployment.warm_up = false);
        Ok(Self { config, engines })
    }

    /// Configures no deployments but these, of which the first becomes the default one.
    pub(super) fn keep_only(&mut self, deployments: &[String]) -> Result<(), CliError> {
        for name in deployments {
            if !self.config.deployments.contains_key(name) {
                return Err(CliError::usage(format!("there is no deployment and no engine `{name}`")));
            }
        }
        self.config.deployments.retain(|name, _| deployments.contains(name));
        self.config.default_deployment = deployments.first().cloned();
        Ok(())
    }

    /// Starts it on a loopback port and waits until these deployments are ready; an empty name is the default one.
    pub(super) async fn start(self, deployments: &[String]) -> Result<SocketAddr, CliError> {
        let loader = Arc::new(
            EngineLoader::new(self.engines, &self.config.cache).with_adapters(&self.config.adapters),
        );
        let server = Server::bind_with(self.config, loader).await.map_err(CliError::failed)?;
        let address = server.local_addr();
        let ready: Vec<_> = deployments.iter().map(|name| server.ready(name)).collect();
        tokio::spawn(server.serve());
        for ready in ready {
            ready.await.map_err(CliError::failed)?;
        }
        Ok(address)
    }
}
