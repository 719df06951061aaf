//! What runs the functions of a loaded network.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::network::Network;
use super::signature::Function;
use crate::engine::{Engine, Result};
use crate::model::NetworkConfig;
use crate::tensor::HostTensor;
use crate::weights::{
    self, EngineWeights, Factors, KeptWeights, Layers, LowRank, LowRanks, Parameters, Update, UpdatedWeights,
    WeightFile, Weights, WeightsError,
};

/// A loaded network whose functions can be called on values that stay where they are computed.
///
/// Sessions of a stage are written over this trait, so they are the same for an engine that executes operations
/// as they are called ([`EngineExecutor`]) and for one that runs a recorded graph.
pub trait Executor: Send + Sync + 'static {
    /// A tensor on the device.
    type Value: Send + Sync + 'static;

    /// Copies a host tensor to the device as it is.
    fn upload(&self, tensor: &HostTensor) -> Result<Self::Value>;

    /// Copies a value to the host; floats become `f32`.
    fn download(&self, value: &Self::Value) -> Result<HostTensor>;

    /// `length` entries of a dimension from `start` on.
    fn narrow(&self, value: &Self::Value, axis: usize, start: usize, length: usize) -> Result<Self::Value>;

    /// Two or more values, of four dimensions, one after the other along the first.
    fn join(&self, values: &[&Self::Value]) -> Result<Self::Value>;

    /// Calls a function of the network, with the inputs and outputs of its
    /// [`Signature`](super::signature::Signature) in their order. `None` stands for an input that is not given.
    fn call(&self, function: Function, inputs: &[Option<&Self::Value>]) -> Result<Vec<Self::Value>>;

    /// Whether the network can be had with updates of its layers.
    fn updates(&self) -> bool {
        false
    }

    /// The same network with updates of its layers, which shares its weights; `None` if it cannot be had.
    ///
    /// # Errors
    ///
    /// The engine refused a factor.
    fn updated(&self, _updates: &[Update]) -> Option<weights::Result<Self>>
    where
        Self: Sized,
    {
        None
    }
}

/// A network on an engine that executes operations as they are called.
pub struct EngineExecutor<E: Engine> {
    engine: Arc<E>,
    network: Network<E::Tensor>,
    updatable: Option<Updatable<E::Tensor>>,
}

/// What a network can be built of once more, with updates.
struct Updatable<T> {
    config: NetworkConfig,
    parameters: Arc<Parameters<T>>,
    /// Factors of updates that some network on this engine holds.
    shelf: Arc<Shelf<T>>,
    /// Those of this network, which keeps them on the shelf.
    #[expect(dead_code, reason = "it is held")]
    held: Vec<(Arc<LowRanks<T>>, f32)>,
}

type Shelf<T> = Mutex<Vec<(Weak<Layers>, Weak<LowRanks<T>>)>>;

impl<E: Engine> EngineExecutor<E> {
    /// Loads the network that `config` describes. Layers of denoisers and language models can then be updated.
    ///
    /// # Errors
    ///
    /// A parameter cannot be had.
    pub fn load(engine: Arc<E>, config: &NetworkConfig, file: &WeightFile) -> weights::Result<Self> {
        let source = EngineWeights::new(engine.as_ref(), file);
        if !matches!(config, NetworkConfig::Denoiser(_) | NetworkConfig::LanguageModel(_)) {
            let network = Network::load(&Weights::root(&source), config)?;
            return Ok(Self { engine, network, updatable: None });
        }
        let kept = KeptWeights::new(&source);
        let network = Network::load(&Weights::root(&kept), config)?;
        let parameters = Arc::new(kept.into_parameters());
        let updatable =
            Updatable { config: config.clone(), parameters, shelf: Arc::default(), held: Vec::new() };
        Ok(Self { engine, network, updatable: Some(updatable) })
    }
}

impl<T: Clone> Updatable<T> {
    fn updated<E: Engine<Tensor = T>>(
        &self,
        engine: &E,
        updates: &[Update],
    ) -> weights::Result<(Network<T>, Self)> {
        let held = updates.iter().map(|update| Ok((self.factors(engine, &update.layers)?, update.scale)));
        let held = held.collect::<weights::Result<Vec<_>>>()?;
        let source = UpdatedWeights::new(&self.parameters, &held);
        let network = Network::load(&Weights::root(&source), &self.config)?;
        let (parameters, shelf) = (self.parameters.clone(), self.shelf.clone());
        Ok((network, Self { config: self.config.clone(), parameters, shelf, held }))
    }

    /// The factors on the engine: those on the shelf, if they are there.
    fn factors<E: Engine<Tensor = T>>(
        &self,
        engine: &E,
        layers: &Arc<Layers>,
    ) -> weights::Result<Arc<LowRanks<T>>> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.retain(|(_, factors)| factors.strong_count() > 0);
        let found = shelf.iter().find(|(of, _)| of.as_ptr() == Arc::as_ptr(layers));
        if let Some(factors) = found.and_then(|(_, factors)| factors.upgrade()) {
            return Ok(factors);
        }
        let factors = layers.iter().map(|(name, factors)| {
            let refused = |source| WeightsError::Engine { name: name.clone(), source };
            Ok((name.clone(), low_rank(engine, factors).map_err(refused)?))
        });
        let factors = Arc::new(factors.collect::<weights::Result<LowRanks<T>>>()?);
        shelf.push((Arc::downgrade(layers), Arc::downgrade(&factors)));
        Ok(factors)
    }
}

fn low_rank<E: Engine>(engine: &E, factors: &Factors) -> Result<LowRank<E::Tensor>> {
    Ok(LowRank {
        down: engine.parameter(factors.down.clone())?,
        up: engine.parameter(factors.up.clone())?,
        scale: factors.scale.into(),
    })
}

impl<E: Engine + 'static> Executor for EngineExecutor<E> {
    type Value = E::Tensor;

    fn upload(&self, tensor: &HostTensor) -> Result<E::Tensor> {
        self.engine.upload(tensor)
    }

    fn download(&self, value: &E::Tensor) -> Result<HostTensor> {
        self.engine.download(value)
    }

    fn narrow(&self, value: &E::Tensor, axis: usize, start: usize, length: usize) -> Result<E::Tensor> {
        self.engine.narrow(value, axis, start, length)
    }

    fn join(&self, values: &[&E::Tensor]) -> Result<E::Tensor> {
        self.engine.concat(values, 0)
    }

    fn call(&self, function: Function, inputs: &[Option<&E::Tensor>]) -> Result<Vec<E::Tensor>> {
        self.network.call(self.engine.as_ref(), function, inputs)
    }

    fn updates(&self) -> bool {
        self.updatable.is_some()
    }

    fn updated(&self, updates: &[Update]) -> Option<weights::Result<Self>> {
        let updatable = self.updatable.as_ref()?;
        let updated = updatable.updated(self.engine.as_ref(), updates);
        Some(updated.map(|(network, updatable)| Self {
            engine: self.engine.clone(),
            network,
            updatable: Some(updatable),
        }))
    }
}
