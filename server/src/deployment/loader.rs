//! From a deployment's configuration to a model.

use std::collections::BTreeMap;
use std::sync::Arc;

use smartedit_core::cache::StageCache;
use smartedit_core::pipeline::{Model, ModelError};
use smartedit_core::stage::{LoadError, StageKind};

use crate::config::{CacheConfig, DeploymentConfig};
use crate::engines::Engines;
use crate::work::Editor;

/// Makes a model of a deployment's configuration.
pub trait Loader: Send + Sync {
    /// Loads the model; called on the deployment's own thread.
    fn load(&self, config: &DeploymentConfig) -> Result<Arc<dyn Editor>, NotLoaded>;
}

/// A deployment could not be loaded.
#[derive(Debug)]
pub struct NotLoaded {
    /// Why not, in words that a caller may read.
    pub public: String,
    /// Why not, in full.
    pub source: anyhow::Error,
}

impl NotLoaded {
    /// A reason that callers have no use for.
    pub fn internal(source: anyhow::Error) -> Self {
        Self { public: "the server's log says why".to_owned(), source }
    }
}

/// Loads stages on engines. All models share a cache of what stages make.
pub struct EngineLoader {
    engines: Engines,
    /// `None` where nothing is kept.
    cache: Option<Arc<StageCache>>,
    max_prefix_bytes: usize,
}

impl EngineLoader {
    /// Loads stages on these engines, with a cache of its own.
    pub fn new(engines: Engines, config: &CacheConfig) -> Self {
        let cache = (config.max_bytes > 0).then(|| StageCache::new(config.max_bytes));
        Self { engines, cache, max_prefix_bytes: config.max_prefix_bytes }
    }
}

impl Loader for EngineLoader {
    fn load(&self, config: &DeploymentConfig) -> Result<Arc<dyn Editor>, NotLoaded> {
        let mut stages = BTreeMap::new();
        for kind in StageKind::ALL {
            let (engine, options) = config.stage(kind);
            let backend = self
                .engines
                .get(engine)
                .map_err(|error| NotLoaded { public: error.to_string(), source: error.into() })?;
            stages.insert(kind, (backend, options));
        }
        let model = Model::load(&config.model, |network, weights| {
            let kind = network.kind();
            let (backend, options) = stages.get(&kind).expect("all kinds are there");
            tracing::debug!(stage = kind.name(), engine = backend.name(), "loading");
            backend.load(network, weights, options)
        });
        let model = model.map(|model| model.with_prefixes(self.max_prefix_bytes));
        let model = match &self.cache {
            Some(cache) => {
                model.and_then(|model| model.with_cache(cache.clone(), |kind| config.stage(kind).1))
            }
            None => model,
        };
        match model {
            Ok(model) => Ok(Arc::new(model)),
            // These words come from an engine: what is missing and how to get it.
            Err(error @ ModelError::Stage(LoadError::Unavailable { .. })) => {
                Err(NotLoaded { public: error.to_string(), source: error.into() })
            }
            Err(error) => Err(NotLoaded::internal(error.into())),
        }
    }
}
