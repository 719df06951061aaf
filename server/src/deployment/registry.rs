//! The deployments of a server.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use dashmap::DashMap;
use smartedit_core::cache::Usage;
use tokio::sync::watch;

use super::{Deployment, Lease, Loader, State};
use crate::config::{Config, DeploymentConfig, Limits, Problems};
use crate::failure::{Failure, shortened};

/// Between a deployment's name, which cannot hold it, and a version.
const SEPARATOR: char = '@';

/// The deployments of a server, by name and version. Requests that name a deployment get its current version, unless
/// they name one: `NAME@VERSION`. Cloning shares them.
#[derive(Clone)]
pub struct Deployments(pub(super) Arc<Inner>);

pub(super) struct Inner {
    names: DashMap<String, Name>,
    default: RwLock<String>,
    /// What is loaded of a name where nothing says otherwise.
    configured: RwLock<BTreeMap<String, DeploymentConfig>>,
    pub(super) limits: Limits,
    pub(super) loader: Arc<dyn Loader>,
    /// Counts what changes in the state of any of them, or in which there are.
    pub(super) changes: watch::Sender<u64>,
}

/// What there is under a name. It stays when everything is unloaded, so that no version's number comes twice.
#[derive(Default)]
struct Name {
    versions: BTreeMap<u64, Arc<Deployment>>,
    /// The version of requests that name none; it is one of the versions, unless there are none.
    current: u64,
    last: u64,
    /// Held by whoever changes it.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Name {
    fn current(&self) -> Option<&Arc<Deployment>> {
        self.versions.get(&self.current)
    }
}

impl Deployments {
    /// Starts to load every deployment of a configuration.
    pub fn start(config: &Config, loader: &Arc<dyn Loader>) -> Self {
        let deployments = Self(Arc::new(Inner {
            names: DashMap::new(),
            default: RwLock::new(config.default_deployment().unwrap_or_default().to_owned()),
            configured: RwLock::new(config.deployments.clone()),
            limits: config.limits.clone(),
            loader: loader.clone(),
            changes: watch::Sender::default(),
        }));
        for (name, deployment) in &config.deployments {
            // There is no version yet whose number it could have.
            let _ = deployments.begin(name, deployment, None);
        }
        deployments
    }

    /// The deployment of this name (`NAME`: its current version, or `NAME@VERSION`), or the default one if the name is
    /// empty, to look at.
    ///
    /// # Errors
    ///
    /// [`Failure::UnknownDeployment`] with the names there are.
    pub fn get(&self, name: &str) -> Result<Arc<Deployment>, Failure> {
        self.find(name, Arc::clone)
    }

    /// The same deployment, to use.
    ///
    /// # Errors
    ///
    /// As [`Deployments::get`].
    pub fn lease(&self, name: &str) -> Result<Lease, Failure> {
        self.find(name, Lease::of)
    }

    /// The name of the deployment of requests that name none; empty if there is none.
    pub fn default(&self) -> String {
        self.0.default.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this is the deployment of requests that name none.
    pub fn is_default(&self, deployment: &Deployment) -> bool {
        self.is_current(deployment) && deployment.name() == self.default()
    }

    /// Whether this is the version of requests that name none.
    pub fn is_current(&self, deployment: &Deployment) -> bool {
        let entry = self.0.names.get(deployment.name());
        entry.is_some_and(|entry| entry.current == deployment.version())
    }

    /// What requests call it: its name, with the version unless that is the current one. No two have the same.
    pub fn label(&self, deployment: &Deployment) -> String {
        match self.is_current(deployment) {
            true => deployment.name().to_owned(),
            false => format!("{}{SEPARATOR}{}", deployment.name(), deployment.version()),
        }
    }

    /// What is wrong with a deployment's configuration.
    pub fn problems(&self, name: &str, config: &DeploymentConfig) -> Problems {
        self.0.loader.problems(name, config)
    }

    /// How much the models keep for requests to come, together, if they keep anything.
    pub fn kept(&self) -> Option<Usage> {
        self.0.loader.kept()
    }

    /// All versions of all deployments, sorted by name and version.
    pub fn all(&self) -> Vec<Arc<Deployment>> {
        let names = self.0.names.iter();
        let mut all: Vec<_> =
            names.flat_map(|entry| entry.versions.values().cloned().collect::<Vec<_>>()).collect();
        all.sort_by(|a, b| (a.name(), a.version()).cmp(&(b.name(), b.version())));
        all
    }

    /// Names that are configured and of which no version is loaded, sorted.
    pub fn absent(&self) -> Vec<String> {
        let is_absent =
            |name: &&String| self.0.names.get(*name).is_none_or(|entry| entry.versions.is_empty());
        self.configured().keys().filter(is_absent).cloned().collect()
    }

    /// Follows changes: of which deployments there are, and of their states.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Gives memory that is not used back to the operating system.
    pub fn release(&self) {
        self.0.loader.release();
    }

    /// Lets go of all models; the workers end once nothing waits.
    pub fn close(&self) {
        self.all().iter().for_each(|deployment| deployment.close());
    }

    fn find<T>(&self, name: &str, of: impl FnOnce(&Arc<Deployment>) -> T) -> Result<T, Failure> {
        let default = if name.is_empty() { self.default() } else { String::new() };
        let name = if name.is_empty() { default.as_str() } else { name };
        let (base, version) = match name.split_once(SEPARATOR) {
            Some((base, version)) => (base, Some(version)),
            None => (name, None),
        };
        let found = self.0.names.get(base).and_then(|entry| {
            let deployment = match version {
                None => entry.current(),
                Some(version) => version.parse().ok().and_then(|version: u64| entry.versions.get(&version)),
            };
            // Made while the entry is held: whoever takes the deployment out of it waits for this lease.
            deployment.map(of)
        });
        found.ok_or_else(|| {
            let labels: Vec<_> = self.all().iter().map(|other| format!("`{}`", self.label(other))).collect();
            let known = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
            Failure::UnknownDeployment { name: shortened(name), known }
        })
    }
}

/// What changes of the configuration and of names; `change.rs` makes of it what operators do.
impl Deployments {
    pub(super) fn configured(&self) -> BTreeMap<String, DeploymentConfig> {
        self.0.configured.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what is loaded where nothing says otherwise, and which is the default.
    pub(super) fn configure(&self, config: &Config) {
        *self.0.configured.write().unwrap_or_else(PoisonError::into_inner) = config.deployments.clone();
        let default = config.default_deployment().unwrap_or_default();
        default.clone_into(&mut self.0.default.write().unwrap_or_else(PoisonError::into_inner));
        self.changed();
    }

    /// A turn to change what there is under a name.
    pub(super) async fn turn(&self, name: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = self.0.names.entry(name.to_owned()).or_default().turn.clone();
        turn.lock_owned().await
    }

    /// Starts to load a version. It is the current one at once if there is none that can be used.
    ///
    /// # Errors
    ///
    /// The number is taken, or has been before.
    pub(super) fn begin(
        &self,
        name: &str,
        config: &DeploymentConfig,
        version: Option<u64>,
    ) -> Result<Arc<Deployment>, Failure> {
        let mut entry = self.0.names.entry(name.to_owned()).or_default();
        let number = version.unwrap_or(entry.last + 1);
        if number <= entry.last {
            let message = format!("is {number}, a number above {}, the last one, is needed", entry.last);
            return Err(Failure::invalid("version", message));
        }
        let Inner { limits, loader, changes, .. } = &*self.0;
        let deployment = Deployment::start((name, number), config, limits, loader.clone(), changes.clone());
        entry.last = number;
        let usable = entry.current().is_some_and(|current| matches!(current.state(), State::Ready(_)));
        if !usable {
            entry.current = number;
        }
        entry.versions.insert(number, deployment.clone());
        drop(entry);
        self.changed();
        Ok(deployment)
    }

    /// Makes a version the current one. Returns the others.
    pub(super) fn promote(&self, deployment: &Deployment) -> Vec<Arc<Deployment>> {
        let Some(mut entry) = self.0.names.get_mut(deployment.name()) else { return Vec::new() };
        entry.current = deployment.version();
        let others = entry.versions.values().filter(|other| other.version() != deployment.version());
        let others = others.cloned().collect();
        drop(entry);
        self.changed();
        others
    }

    /// Takes a version out, so that no request gets it any more. If it was the current one, the highest of those that
    /// are left is.
    pub(super) fn take_out(&self, deployment: &Deployment) {
        if let Some(mut entry) = self.0.names.get_mut(deployment.name()) {
            entry.versions.remove(&deployment.version());
            if entry.current == deployment.version() {
                entry.current = entry.versions.keys().next_back().copied().unwrap_or_default();
            }
        }
        self.changed();
    }

    fn changed(&self) {
        self.0.changes.send_modify(|changes| *changes += 1);
    }
}
