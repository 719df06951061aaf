//! Reading the configuration again.

use super::Service;
use crate::config::SourceError;
use crate::deployment::Applied;
use crate::failure::Failure;

/// Reads a server's configuration again. Cloning shares it.
#[derive(Clone)]
pub struct Reloader(pub(crate) Service);

/// What has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The deployments.
    pub applied: Applied,
    /// Settings that differ and that only a new start brings into effect.
    pub needs_restart: Vec<&'static str>,
}

impl Reloader {
    /// Reads the configuration again and makes the server what it says, as far as that can be while it runs. Returns when
    /// all that is done, and says it to the log. What has begun goes on though nobody wait for it any more; what is asked
    /// for meanwhile begins, and reads, when it is done.
    ///
    /// # Errors
    ///
    /// [`Failure::Configuration`] if there is nothing to read, or it cannot be used; then nothing is changed.
    pub async fn reload(&self) -> Result<Reloaded, Failure> {
        let reloader = self.clone();
        tokio::spawn(async move { reloader.reload_now().await }).await.unwrap_or(Err(Failure::Lost))
    }

    async fn reload_now(&self) -> Result<Reloaded, Failure> {
        let service = &self.0;
        let _turn = service.0.reloading.lock().await;
        let Some(source) = service.0.source.get() else {
            return Err(Failure::Configuration("this server has no configuration to read again".to_owned()));
        };
        let config = source().map_err(|error| refused(&error))?;
        if let Some(security) = service.0.security.get() {
            security.reload(&config).map_err(|error| refused(&error.into()))?;
        }
        let needs_restart = service.0.config.needs_restart(&config);
        if !needs_restart.is_empty() {
            let settings = needs_restart.join(", ");
            tracing::warn!(settings, "settings differ that only a new start brings into effect");
        }
        // Between the two, so that requests of a route find what they are to get, and no longer get what is to go.
        let routes = || service.routes().replace(&config.routes);
        let applied = service.deployments().apply(&config, routes).await;
        for (deployment, reason) in &applied.failed {
            tracing::error!(deployment, reason, "could not be loaded; what was served before still is");
        }
        let (loaded, unloaded) = (applied.loaded.join(", "), applied.unloaded.join(", "));
        tracing::info!(loaded, unloaded, "configuration applied");
        Ok(Reloaded { applied, needs_restart })
    }
}

/// What callers are told. The reason may name files.
fn refused(error: &SourceError) -> Failure {
    tracing::error!(error = error.to_string(), "the configuration cannot be used; nothing is changed");
    Failure::Configuration("the configuration cannot be used; the server's log says why".to_owned())
}
