//! Stages: the networks of this crate behind named host tensors.
//!
//! A loaded [`Network`] is a few pure functions, each with a [`Signature`]; an [`Executor`] calls them. What a
//! session keeps from call to call, and what it checks, is written here once for every executor.

mod call;
mod denoiser;
mod executor;
mod interface;
mod language_model;
mod network;
pub mod program;
mod signature;
mod whole;

use std::any::Any;
use std::sync::Arc;

use self::call::Call;
use self::denoiser::Denoise;
pub use self::executor::{EngineExecutor, Executor};
pub use self::interface::{Interface, Output, interface};
use self::language_model::Llama;
pub use self::network::Network;
pub use self::signature::{Dim, Elements, Function, Port, PortName, Signature, signatures, stateless};
use self::whole::Whole;
use crate::engine::Engine;
use crate::model::NetworkConfig;
use crate::stage::{LoadError, Session, Stage, StageError, StageInfo, StageKind};
use crate::tensor::Tensors;
use crate::weights::{Update, WeightFile};

/// Loads the network that `config` describes onto an engine. `info` is what the stage reports of itself.
pub fn load<E: Engine + 'static>(
    engine: Arc<E>,
    config: &NetworkConfig,
    file: &WeightFile,
    info: StageInfo,
) -> Result<Arc<dyn Stage>, LoadError> {
    let executor = EngineExecutor::load(engine, config, file);
    let executor = executor.map_err(|source| LoadError::Weights { stage: config.kind(), source })?;
    Ok(place(executor, config, info))
}

/// Makes a stage of a network of `config` that is ready to be called.
pub fn place<X: Executor>(executor: X, config: &NetworkConfig, info: StageInfo) -> Arc<dyn Stage> {
    match config {
        NetworkConfig::VisionEncoder(c) => placed(executor, Whole(signature::vision_encoder(c)), info),
        NetworkConfig::LanguageModel(c) => placed(executor, Llama::new(c), info),
        NetworkConfig::Connector(c) => placed(executor, Whole(signature::connector(c)), info),
        NetworkConfig::TextEncoder(c) => placed(executor, Whole(signature::text_encoder(c)), info),
        NetworkConfig::VaeEncoder(c) => placed(executor, Whole(signature::vae_encoder(c)), info),
        NetworkConfig::Denoiser(c) => placed(executor, Denoise::network(c), info),
        NetworkConfig::VaeDecoder(c) => placed(executor, Whole(signature::vae_decoder(c)), info),
    }
}

fn placed<X: Executor, L: Logic<X>>(executor: X, logic: L, info: StageInfo) -> Arc<dyn Stage> {
    Arc::new(ExecutorStage { loaded: Arc::new(Loaded { executor, logic: Arc::new(logic) }), info })
}

/// What a session of a stage does with its inputs.
trait Logic<X: Executor>: Send + Sync + 'static {
    /// What a session keeps between calls.
    type State: Default + Send + 'static;

    fn run(&self, state: &mut Self::State, call: &Call<'_, X>) -> Result<Tensors, StageError>;

    /// Whether a run may have any number of rows; see [`Stage::batches`].
    fn batches(&self) -> bool {
        false
    }

    /// Runs several states, in one run if they batch; see [`Stage::run_together`].
    fn run_together(
        &self,
        states: &mut [&mut Self::State],
        calls: &[Call<'_, X>],
    ) -> Result<Vec<Result<Tensors, StageError>>, StageError> {
        Ok(states.iter_mut().zip(calls).map(|(state, call)| self.run(state, call)).collect())
    }

    /// The same state once more, with the values shared; `None` if there is no use for that.
    fn fork(&self, _state: &Self::State) -> Option<Self::State> {
        None
    }
}

struct Loaded<X, L> {
    executor: X,
    logic: Arc<L>,
}

struct ExecutorStage<X, L> {
    loaded: Arc<Loaded<X, L>>,
    info: StageInfo,
}

impl<X: Executor, L: Logic<X>> Stage for ExecutorStage<X, L> {
    fn info(&self) -> &StageInfo {
        &self.info
    }

    fn session(&self) -> Box<dyn Session> {
        Box::new(ExecutorSession {
            loaded: self.loaded.clone(),
            kind: self.info.kind,
            state: L::State::default(),
        })
    }

    fn batches(&self) -> bool {
        self.loaded.logic.batches()
    }

    fn run_together(
        &self,
        sessions: &mut [&mut dyn Session],
        inputs: &[Tensors],
    ) -> Result<Vec<Result<Tensors, StageError>>, StageError> {
        let stage = self.info.kind;
        let mut states = Vec::with_capacity(sessions.len());
        for session in sessions {
            let session: &mut dyn Any = *session;
            let own = session.downcast_mut::<ExecutorSession<X, L>>();
            let own = own.filter(|session| Arc::ptr_eq(&session.loaded, &self.loaded));
            states.push(&mut own.ok_or(StageError::Foreign { stage })?.state);
        }
        let calls: Vec<_> =
            inputs.iter().map(|inputs| Call::new(&self.loaded.executor, stage, inputs)).collect();
        self.loaded.logic.run_together(&mut states, &calls)
    }

    fn updates(&self) -> bool {
        self.loaded.executor.updates()
    }

    fn updated(&self, updates: &[Update]) -> Result<Arc<dyn Stage>, LoadError> {
        let StageInfo { kind: stage, engine, .. } = self.info;
        let Some(executor) = self.loaded.executor.updated(updates) else {
            return Err(LoadError::Fixed { engine, stage });
        };
        let executor = executor.map_err(|source| LoadError::Weights { stage, source })?;
        let loaded = Arc::new(Loaded { executor, logic: self.loaded.logic.clone() });
        Ok(Arc::new(Self { loaded, info: self.info.clone() }))
    }
}

struct ExecutorSession<X: Executor, L: Logic<X>> {
    loaded: Arc<Loaded<X, L>>,
    kind: StageKind,
    state: L::State,
}

impl<X: Executor, L: Logic<X>> Session for ExecutorSession<X, L> {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, StageError> {
        let call = Call::new(&self.loaded.executor, self.kind, inputs);
        self.loaded.logic.run(&mut self.state, &call)
    }

    fn fork(&self) -> Option<Box<dyn Session>> {
        let state = self.loaded.logic.fork(&self.state)?;
        Some(Box::new(Self { loaded: self.loaded.clone(), kind: self.kind, state }))
    }
}
