//! The LoRA adapters of a deployment.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use smartedit_core::adapter::{Adapter, AdapterChoice, Strength};
use smartedit_core::model::ModelConfig;
use smartedit_core::pipeline::Model;
use smartedit_core::stage::{LoadError, StageKind};

use super::turns::{Turn, Turns};
use crate::config::{AdaptersConfig, DeploymentConfig, NO_ADAPTER, check_adapter_name, check_adapter_scale};
use crate::failure::{Failure, shortened};

/// An adapter under its name.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterInfo {
    /// The name.
    pub name: String,
    /// Whether it is merged into the weights: requests that name none have it.
    pub is_default: bool,
    /// How strong it is where a request does not say: 1 as it was trained.
    pub scale: f32,
    /// The largest rank of its updates.
    pub rank: usize,
    /// Bytes of its factors.
    pub bytes: usize,
    /// Stages that it updates, and how many layers of each.
    pub stages: Vec<(StageKind, usize)>,
}

/// An adapter could not be loaded. No message of one names a path.
#[derive(Debug, thiserror::Error)]
#[error("adapter `{name}`: {source}")]
pub struct AdapterNotLoaded {
    /// Its name.
    pub name: String,
    /// What is wrong with its file, or what cannot be had with it.
    pub source: Box<dyn Error + Send + Sync>,
}

impl AdapterNotLoaded {
    fn new(name: &str, source: impl Error + Send + Sync + 'static) -> Self {
        Self { name: name.to_owned(), source: Box::new(source) }
    }
}

/// The adapters of a deployment that have been read, before its model is loaded.
pub(super) struct ReadAdapters(BTreeMap<String, Strength>);

impl ReadAdapters {
    /// Reads the adapters of a configuration.
    ///
    /// # Errors
    ///
    /// One of them cannot be used.
    pub(super) fn read(
        config: &DeploymentConfig,
        limits: &AdaptersConfig,
        model: &ModelConfig,
    ) -> Result<Self, AdapterNotLoaded> {
        let refused = |name: &str, source: String| {
            Err(AdapterNotLoaded { name: name.to_owned(), source: source.into() })
        };
        if let Some(default) =
            config.default_adapter.as_ref().filter(|name| !config.adapters.contains_key(*name))
        {
            return refused(default, "is the default one, but none of the deployment's".to_owned());
        }
        if let Some((name, _)) = config.adapters.iter().nth(limits.max_count) {
            return refused(
                name,
                format!("is one more than the {} that a deployment may have", limits.max_count),
            );
        }
        let mut read = BTreeMap::new();
        let mut left = limits.max_bytes;
        for (name, adapter) in &config.adapters {
            let (path, scale) = (&adapter.path, adapter.scale);
            let adapter =
                Adapter::read(path, model, left).map_err(|error| AdapterNotLoaded::new(name, error))?;
            left = left.saturating_sub(adapter.bytes() as u64);
            read.insert(name.clone(), Strength { adapter: Arc::new(adapter), scale });
        }
        Ok(Self(read))
    }

    /// The adapter that is to be merged into the weights.
    pub(super) fn merged(&self, config: &DeploymentConfig) -> Option<Strength> {
        self.0.get(config.default_adapter.as_ref()?).cloned()
    }
}

/// The adapters of a deployment. A request that has chosen one keeps it, whether or not it is unloaded.
pub struct Adapters {
    model: Arc<Model>,
    limits: AdaptersConfig,
    default: Option<String>,
    loaded: RwLock<BTreeMap<String, Loaded>>,
    turns: Turns,
}

struct Loaded {
    strength: Strength,
    /// The model with it as strong as requests want it that do not say: kept so that nothing is made anew for them.
    _model: Arc<Model>,
}

impl Adapters {
    /// The adapters that were read for a model which now is loaded.
    ///
    /// # Errors
    ///
    /// One of them cannot be used.
    pub(super) fn new(
        model: Arc<Model>,
        limits: AdaptersConfig,
        default: Option<String>,
        read: ReadAdapters,
    ) -> Result<Self, AdapterNotLoaded> {
        let mut loaded = BTreeMap::new();
        for (name, strength) in read.0 {
            let adapted = ready(&model, strength).map_err(|error| AdapterNotLoaded::new(&name, error))?;
            loaded.insert(name, adapted);
        }
        Ok(Self { model, limits, default, loaded: RwLock::new(loaded), turns: Turns::default() })
    }

    /// What a request chooses: the default one without a name.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`] if there is none of the name, with the names there are; [`Failure::Fixed`] if none can be
    /// chosen.
    pub fn choose(&self, name: Option<&str>, scale: Option<f32>) -> Result<AdapterChoice, Failure> {
        if let Some(Err(message)) = scale.map(check_adapter_scale) {
            return Err(Failure::invalid("options.adapter_scale", message));
        }
        let weak = || Failure::invalid("options.adapter_scale", "is given, but no adapter to be so strong");
        let named = match (name.filter(|name| !name.is_empty()), scale) {
            (None, None) => return Ok(AdapterChoice::Default),
            (None, Some(_)) => Some(self.default.as_deref().ok_or_else(weak)?),
            (Some(NO_ADAPTER), None) => None,
            (Some(NO_ADAPTER), Some(_)) => return Err(weak()),
            (name, _) => name,
        };
        let choice = match named {
            None => AdapterChoice::None,
            Some(name) => {
                let loaded = self.read();
                let Some(Loaded { strength, .. }) = loaded.get(name) else {
                    return Err(Failure::invalid("options.adapter", unknown(name, loaded.keys())));
                };
                let scale = scale.unwrap_or(strength.scale);
                AdapterChoice::Of(Strength { scale, ..strength.clone() })
            }
        };
        self.model.can_adapt(&choice).map_err(|error| Failure::Fixed(error.to_string()))?;
        Ok(choice)
    }

    /// A turn to change them.
    ///
    /// # Errors
    ///
    /// [`Failure::AdaptersBusy`].
    pub(super) async fn turn(&self) -> Result<Turn, Failure> {
        self.turns.next().await
    }

    /// Loads an adapter from a path below the configured directory.
    ///
    /// # Errors
    ///
    /// Why it is not loaded; nothing is changed then.
    pub(super) fn load(
        &self,
        _turn: &Turn,
        name: &str,
        path: &str,
        scale: f32,
    ) -> Result<AdapterInfo, Failure> {
        check_adapter_name(name).map_err(|message| Failure::invalid("name", message))?;
        check_adapter_scale(scale).map_err(|message| Failure::invalid("scale", message))?;
        let path = self.below_directory(path)?;
        let left = self.room_for(name)?;
        let adapter = Adapter::read(&path, self.model.config(), left);
        let adapter = Arc::new(adapter.map_err(|error| AdapterNotLoaded::new(name, error))?);
        let loaded = ready(&self.model, Strength { adapter, scale });
        let loaded = loaded.map_err(|error| AdapterNotLoaded::new(name, error))?;
        let info = self.describe(name, &loaded);
        self.write().insert(name.to_owned(), loaded);
        Ok(info)
    }

    /// Unloads an adapter. Requests that have chosen it go on with it.
    ///
    /// # Errors
    ///
    /// There is none of the name, or it is merged into the weights.
    pub(super) fn unload(&self, _turn: &Turn, name: &str) -> Result<(), Failure> {
        if self.default.as_deref() == Some(name) {
            return Err(Failure::MergedAdapter(name.to_owned()));
        }
        let removed = self.write().remove(name);
        match removed {
            Some(_) => Ok(()),
            None => {
                let message = unknown(name, self.read().keys());
                Err(Failure::UnknownAdapter { name: shortened(name), message })
            }
        }
    }

    /// All adapters, sorted by name.
    pub fn list(&self) -> Vec<AdapterInfo> {
        self.read().iter().map(|(name, loaded)| self.describe(name, loaded)).collect()
    }

    /// Bytes that one more adapter may have.
    fn room_for(&self, name: &str) -> Result<u64, Failure> {
        let loaded = self.read();
        if loaded.contains_key(name) {
            return Err(Failure::AdapterExists(name.to_owned()));
        }
        if loaded.len() >= self.limits.max_count {
            return Err(Failure::AdaptersFull { limit: self.limits.max_count });
        }
        let bytes: u64 = loaded.values().map(|loaded| loaded.strength.adapter.bytes() as u64).sum();
        Ok(self.limits.max_bytes.saturating_sub(bytes))
    }

    /// A path below the directory for adapters, which no link leads out of, be it one of the files that are read there.
    fn below_directory(&self, path: &str) -> Result<PathBuf, Failure> {
        let Some(directory) = &self.limits.directory else {
            return Err(Failure::NoAdapterDirectory);
        };
        let nowhere = || Failure::invalid("path", "names nothing in the directory for adapters");
        let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if path.is_empty() || !plain {
            return Err(nowhere());
        }
        let directory = directory.canonicalize().map_err(|_| nowhere())?;
        let found = directory.join(path).canonicalize().map_err(|_| nowhere())?;
        let is_below = |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(&directory));
        // A directory that is no adapter's has none, and is told so when it is read.
        let files = Adapter::files(&found).unwrap_or_default();
        if is_below(&found) && files.iter().all(|file| is_below(file)) { Ok(found) } else { Err(nowhere()) }
    }

    fn describe(&self, name: &str, loaded: &Loaded) -> AdapterInfo {
        let Strength { adapter, scale } = &loaded.strength;
        AdapterInfo {
            name: name.to_owned(),
            is_default: self.default.as_deref() == Some(name),
            scale: *scale,
            rank: adapter.rank(),
            bytes: adapter.bytes(),
            stages: adapter.stages().collect(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Loaded>> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Loaded>> {
        self.loaded.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ready(model: &Arc<Model>, strength: Strength) -> Result<Loaded, LoadError> {
    let model = model.adapted(&AdapterChoice::Of(strength.clone()))?;
    Ok(Loaded { strength, _model: model })
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let known: Vec<_> = known.map(|name| format!("`{name}`")).collect();
    let name = shortened(name);
    match known.is_empty() {
        true => format!("is `{name}`, but the deployment has no adapters"),
        false => format!("is `{name}`; the deployment has {}", known.join(", ")),
    }
}
