//! The deployments of a server.

use std::sync::Arc;

use dashmap::DashMap;
use smartedit_core::cache::Usage;

use super::{Deployment, Loader};
use crate::config::Config;
use crate::failure::{Failure, shortened};

/// The deployments of a server by name.
pub struct Deployments {
    by_name: DashMap<String, Arc<Deployment>>,
    default: String,
    loader: Arc<dyn Loader>,
}

impl Deployments {
    /// Starts to load every deployment of a configuration.
    pub fn start(config: &Config, loader: &Arc<dyn Loader>) -> Self {
        let by_name = DashMap::new();
        for (name, deployment) in &config.deployments {
            let deployment = Deployment::start(name, deployment, &config.limits, loader.clone());
            by_name.insert(name.clone(), deployment);
        }
        let default = config.default_deployment().unwrap_or_default().to_owned();
        Self { by_name, default, loader: loader.clone() }
    }

    /// The deployment of this name, or the default one if the name is empty.
    ///
    /// # Errors
    ///
    /// [`Failure::UnknownDeployment`] with the names there are.
    pub fn get(&self, name: &str) -> Result<Arc<Deployment>, Failure> {
        let name = if name.is_empty() { &self.default } else { name };
        let found = self.by_name.get(name).map(|entry| entry.value().clone());
        found.ok_or_else(|| {
            let names: Vec<_> = self.all().iter().map(|other| format!("`{}`", other.name())).collect();
            Failure::UnknownDeployment { name: shortened(name), known: names.join(", ") }
        })
    }

    /// Whether this is the deployment of requests that name none.
    pub fn is_default(&self, deployment: &Deployment) -> bool {
        deployment.name() == self.default
    }

    /// How much the models keep for requests to come, together, if they keep anything.
    pub fn kept(&self) -> Option<Usage> {
        self.loader.kept()
    }

    /// All deployments, sorted by name.
    pub fn all(&self) -> Vec<Arc<Deployment>> {
        let mut all: Vec<_> = self.by_name.iter().map(|entry| entry.value().clone()).collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// Ends all workers once nothing waits.
    pub fn close(&self) {
        self.by_name.iter().for_each(|entry| entry.value().close());
    }
}
