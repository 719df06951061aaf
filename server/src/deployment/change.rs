//! Loading, unloading and reloading deployments while the server runs.
//!
//! A version is loaded beside the one that serves, and takes its place when it can serve itself; what cannot be loaded
//! changes nothing. What is taken out finishes what it has, then its memory is given back. A change that has begun goes on
//! though nobody wait for it any more.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Deployment, Deployments, State};
use crate::config::{Config, DeploymentConfig};
use crate::failure::Failure;

/// What becomes of the versions before when a new one is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Others {
    /// The new one takes their place; they finish what they have and are unloaded.
    #[default]
    Replaced,
    /// The new one is the current one; they stay for requests that name them.
    Kept,
    /// The current one stays the current one; the new one is for requests that name it.
    Current,
}

/// What is to be loaded.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// The deployment's name.
    pub name: String,
    /// What to load; `None`: what is configured under the name, or else what its current version was configured with.
    pub config: Option<DeploymentConfig>,
    /// The version's number; `None`: the next one.
    pub version: Option<u64>,
    /// What becomes of the versions before.
    pub others: Others,
}

/// What became of the deployments when a configuration was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Those that are new, changed, or could not be loaded before.
    pub loaded: Vec<String>,
    /// Those that the configuration no longer has.
    pub unloaded: Vec<String>,
    /// Those that could not be loaded, and why; where there was a version before, it goes on serving.
    pub failed: Vec<(String, String)>,
}

impl Deployments {
    /// Loads a version, which takes the place of the one before when it is ready. Returns when it has.
    ///
    /// # Errors
    ///
    /// Nothing is configured or loaded under the name, the version's number is not above the last one's, or the version cannot be
    /// loaded: then the one before, if there is one, goes on serving.
    pub async fn load(&self, load: Load) -> Result<Arc<Deployment>, Failure> {
        let deployments = self.clone();
        finished(tokio::spawn(async move { deployments.load_now(load).await })).await
    }

    /// Unloads a version, or all. Returns when they have finished what they had and their memory is given back.
    ///
    /// # Errors
    ///
    /// [`Failure::UnknownDeployment`].
    pub async fn unload(&self, name: &str, version: Option<u64>) -> Result<(), Failure> {
        let (deployments, name) = (self.clone(), name.to_owned());
        finished(tokio::spawn(async move { deployments.unload_now(&name, version).await })).await
    }

    /// Makes the deployments what a configuration says: loads those that are new, changed, or could not be loaded
    /// before, then does what is to be done in between, and unloads those that it has not. Returns when all that is done.
    pub async fn apply(&self, config: &Config, between: impl FnOnce()) -> Applied {
        self.configure(config);
        let mut tasks = JoinSet::new();
        for (name, wanted) in &config.deployments {
            let current = self.get(name).ok();
            let as_wanted = current.is_some_and(|current| {
                current.config() == wanted && matches!(current.state(), State::Ready(_) | State::Loading)
            });
            if !as_wanted {
                let (deployments, name) = (self.clone(), name.clone());
                let load = Load { name: name.clone(), config: Some(wanted.clone()), ..Load::default() };
                tasks.spawn(async move { (name, deployments.load(load).await.map(drop)) });
            }
        }
        let mut applied = Applied::default();
        for (name, outcome) in tasks.join_all().await {
            match outcome {
                Ok(()) => applied.loaded.push(name),
                Err(failure) => applied.failed.push((name, failure.to_string())),
            }
        }
        between();
        let mut tasks = JoinSet::new();
        let mut strangers: Vec<_> =
            self.all().iter().map(|deployment| deployment.name().to_owned()).collect();
        strangers.dedup();
        for name in strangers.into_iter().filter(|name| !config.deployments.contains_key(name)) {
            let deployments = self.clone();
            tasks.spawn(async move {
                // Somebody else may have unloaded it before: it is gone either way.
                let _ = deployments.unload(&name, None).await;
                name
            });
        }
        applied.unloaded = tasks.join_all().await;
        applied.loaded.sort();
        applied.unloaded.sort();
        applied.failed.sort();
        applied
    }

    async fn load_now(&self, load: Load) -> Result<Arc<Deployment>, Failure> {
        let Load { name, config, version, others } = load;
        let config = match config.or_else(|| self.configured().remove(&name)) {
            Some(config) => config,
            None => self.get(&name)?.config().clone(),
        };
        let _turn = self.turn(&name).await;
        let deployment = self.begin(&name, &config, version)?;
        if let Err(failure) = deployment.loaded().await {
            self.give_up(&deployment);
            return Err(failure);
        }
        let keeps = others != Others::Replaced;
        let before = match others {
            Others::Current if !self.is_current(&deployment) => Vec::new(),
            _ => self.promote(&deployment),
        };
        for other in before.into_iter().filter(|other| !(keeps && matches!(other.state(), State::Ready(_)))) {
            self.take_out(&other);
            // Whoever waits for the new version need not wait for the last edit on the old one.
            tokio::spawn(self.clone().end(other));
        }
        Ok(deployment)
    }

    /// What becomes of a version that could not be loaded: it stays to tell why if there is none in its place.
    fn give_up(&self, deployment: &Arc<Deployment>) {
        let others = self.all().into_iter().filter(|other| other.name() == deployment.name());
        for other in others.filter(|other| other.version() != deployment.version()) {
            if matches!(other.state(), State::Ready(_)) {
                self.take_out(deployment);
                return;
            }
            // It could not be loaded either, longer ago.
            self.take_out(&other);
        }
    }

    async fn unload_now(&self, name: &str, version: Option<u64>) -> Result<(), Failure> {
        let label = version.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}"));
        self.get(&label)?;
        let _turn = self.turn(name).await;
        let all = self.all().into_iter();
        let chosen = all.filter(|deployment| {
            deployment.name() == name && version.is_none_or(|version| version == deployment.version())
        });
        let mut ending = JoinSet::new();
        for deployment in chosen {
            self.take_out(&deployment);
            ending.spawn(self.clone().end(deployment));
        }
        ending.join_all().await;
        Ok(())
    }

    /// Lets a version that has been taken out finish, and gives its memory back.
    async fn end(self, deployment: Arc<Deployment>) {
        let (name, version) = (deployment.name().to_owned(), deployment.version());
        deployment.retire().await;
        self.0.loader.release();
        tracing::info!(deployment = name, version, "deployment unloaded");
    }
}

/// What a task has come to. A change that panics is a failure like another.
async fn finished<T>(task: tokio::task::JoinHandle<Result<T, Failure>>) -> Result<T, Failure> {
    task.await.unwrap_or(Err(Failure::Lost))
}
