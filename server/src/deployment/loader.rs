//! From a deployment's configuration to a model.

use std::collections::BTreeMap;
use std::sync::Arc;

use smartedit_core::cache::{StageCache, Usage};
use smartedit_core::model::{ModelDirectory, NetworkConfig};
use smartedit_core::pipeline::{Model, ModelError};
use smartedit_core::stage::{Backend, LoadError, Stage, StageInfo, StageKind, StageOptions};
use smartedit_core::weights::WeightFile;

use super::adapters::{AdapterNotLoaded, Adapters, ReadAdapters};
use super::placed::{PlacedModel, PlacedStage, Unavailable};
use super::words::without_paths;
use crate::config::{AdaptersConfig, CacheConfig, Candidate, DeploymentConfig, Problems, check_deployment};
use crate::engines::Engines;
use crate::work::Editor;

/// Makes a model of a deployment's configuration.
pub trait Loader: Send + Sync {
    /// Loads the model; called on the deployment's own thread.
    fn load(&self, config: &DeploymentConfig) -> Result<Arc<dyn Editor>, NotLoaded>;

    /// What is wrong with a deployment's configuration, wherever it be loaded.
    fn problems(&self, _name: &str, _config: &DeploymentConfig) -> Problems {
        Problems::default()
    }

    /// How much the models keep for requests to come, together, if they keep anything.
    fn kept(&self) -> Option<Usage> {
        None
    }

    /// Gives memory that is not used back to the operating system: of models that are gone, and of edits that are done.
    fn release(&self) {}
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

impl From<AdapterNotLoaded> for NotLoaded {
    fn from(error: AdapterNotLoaded) -> Self {
        Self { public: error.to_string(), source: error.into() }
    }
}

/// Loads stages on engines. All models share a cache of what stages make.
pub struct EngineLoader {
    engines: Engines,
    /// `None` where nothing is kept.
    cache: Option<Arc<StageCache>>,
    max_prefix_bytes: usize,
    adapters: AdaptersConfig,
}

impl EngineLoader {
    /// Loads stages on these engines, with a cache of its own.
    pub fn new(engines: Engines, config: &CacheConfig) -> Self {
        let cache = (config.max_bytes > 0).then(|| StageCache::new(config.max_bytes));
        let adapters = AdaptersConfig::default();
        Self { engines, cache, max_prefix_bytes: config.max_prefix_bytes, adapters }
    }

    /// The same with other bounds of adapters.
    #[must_use]
    pub fn with_adapters(self, adapters: &AdaptersConfig) -> Self {
        Self { adapters: adapters.clone(), ..self }
    }
}

impl Loader for EngineLoader {
    fn load(&self, config: &DeploymentConfig) -> Result<Arc<dyn Editor>, NotLoaded> {
        let mut ways = BTreeMap::new();
        for kind in StageKind::ALL {
            ways.insert(kind, self.ways(config, kind)?);
        }
        let adapters = self.read_adapters(config)?;
        let (mut stages, mut used) = (Vec::new(), BTreeMap::new());
        let model = Model::load_adapted(&config.model, adapters.merged(config), |network, weights| {
            let kind = network.kind();
            let (stage, placed, options) = place(network, weights, &ways[&kind])?;
            stages.push(placed);
            used.insert(kind, options);
            Ok(stage)
        });
        let model = model.map(|model| model.with_prefixes(self.max_prefix_bytes));
        let model = match &self.cache {
            Some(cache) => {
                model.and_then(|model| model.with_cache(cache.clone(), |kind| used[&kind].clone()))
            }
            None => model,
        };
        match model {
            Ok(model) => {
                let (model, default) = (Arc::new(model), config.default_adapter.clone());
                let adapters = Adapters::new(model.clone(), self.adapters.clone(), default, adapters)?;
                Ok(Arc::new(PlacedModel { model, stages, adapters }))
            }
            // These words come from an engine: what is missing or does not fit, and how to get it.
            Err(
                error @ ModelError::Stage(
                    LoadError::Unavailable { .. } | LoadError::Option { .. } | LoadError::Remote { .. },
                ),
            ) => Err(NotLoaded { public: without_paths(&error.to_string()), source: error.into() }),
            Err(error) => Err(NotLoaded::internal(error.into())),
        }
    }

    fn problems(&self, name: &str, config: &DeploymentConfig) -> Problems {
        let mut problems = Problems::default();
        check_deployment(name, config, &self.engines, &mut problems);
        problems
    }

    fn kept(&self) -> Option<Usage> {
        self.cache.as_ref().map(|cache| cache.usage())
    }

    fn release(&self) {
        self.engines.release_memory();
    }
}

/// What may compute a stage, and the engine for that.
type Way = (Candidate, Arc<dyn Backend>);

impl EngineLoader {
    fn read_adapters(&self, config: &DeploymentConfig) -> Result<ReadAdapters, NotLoaded> {
        let model = ModelDirectory::open(&config.model);
        let model = model.map_err(|error| NotLoaded::internal(ModelError::from(error).into()))?;
        Ok(ReadAdapters::read(config, &self.adapters, model.config())?)
    }

    /// The ways to compute a stage, in order of preference.
    fn ways(&self, config: &DeploymentConfig, kind: StageKind) -> Result<Vec<Way>, NotLoaded> {
        let candidates = config.candidates(kind).into_iter();
        let ways =
            candidates.map(|candidate| self.engines.get(&candidate.engine).map(|engine| (candidate, engine)));
        ways.collect::<Result<_, _>>()
            .map_err(|error| NotLoaded { public: without_paths(&error.to_string()), source: error.into() })
    }
}

/// Loads a stage in the first way that can be had, and tells with what options.
fn place(
    network: &NetworkConfig,
    weights: &WeightFile,
    ways: &[Way],
) -> Result<(Arc<dyn Stage>, PlacedStage, StageOptions), LoadError> {
    let kind = network.kind();
    let mut unavailable = Vec::new();
    let mut missed: Option<LoadError> = None;
    for (candidate, engine) in ways {
        tracing::debug!(stage = kind.name(), engine = engine.name(), "loading");
        let options = &candidate.options;
        match engine.check(kind, options).and_then(|()| engine.load(network, weights, options)) {
            Ok(stage) => {
                if !unavailable.is_empty() {
                    warn_of_fallback(stage.info(), &unavailable);
                }
                let (info, batches) = (stage.info().clone(), stage.batches());
                let placed = PlacedStage { info, threads: options.threads, batches, unavailable };
                return Ok((stage, placed, options.clone()));
            }
            Err(error @ LoadError::Unavailable { .. }) => {
                unavailable.push(Unavailable::new(candidate, error.to_string()));
                missed = Some(match missed {
                    Some(first) => with_fallback(first, &error),
                    None => error,
                });
            }
            Err(error) => return Err(error),
        }
    }
    Err(missed.expect("there is always a way to try"))
}

/// The failure of what was wanted, when its fallback failed as well.
fn with_fallback(mut wanted: LoadError, fallback: &LoadError) -> LoadError {
    if let LoadError::Unavailable { remedy, .. } = &mut wanted {
        *remedy += &format!("; its fallback: {fallback}");
    }
    wanted
}

fn warn_of_fallback(info: &StageInfo, unavailable: &[Unavailable]) {
    for Unavailable { engine, device, reason, .. } in unavailable {
        tracing::warn!(
            stage = info.kind.name(),
            wanted_engine = engine,
            wanted_device = device,
            engine = info.engine,
            device = info.device,
            provider = info.provider,
            reason,
            "a stage falls back"
        );
    }
}

#[cfg(all(test, feature = "candle"))]
mod tests;
