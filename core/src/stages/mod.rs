//! Stages on an [`Engine`]: the networks of this crate behind named host tensors.

mod call;
mod connector;
mod denoiser;
mod encoders;
mod language_model;
mod vae;

use std::sync::Arc;

use self::call::Call;
use crate::engine::Engine;
use crate::model::NetworkConfig;
use crate::networks::{Connector, LanguageModel, TextEncoder, Unet, VaeDecoder, VaeEncoder, VisionEncoder};
use crate::stage::{LoadError, Session, Stage, StageError, StageInfo};
use crate::tensor::Tensors;
use crate::weights::{self, EngineWeights, WeightFile, Weights};

/// Loads the network that `config` describes onto an engine. `info` is what the stage reports of itself.
pub fn load<E: Engine + 'static>(
    engine: Arc<E>,
    config: &NetworkConfig,
    file: &WeightFile,
    info: StageInfo,
) -> Result<Arc<dyn Stage>, LoadError> {
    let kind = config.kind();
    let source = EngineWeights::new(engine.as_ref(), file);
    let weights = Weights::root(&source);
    let stage = match config {
        NetworkConfig::VisionEncoder(c) => {
            place(&engine, info, VisionEncoder::load(&weights, c), encoders::Vision::new(c))
        }
        NetworkConfig::LanguageModel(c) => {
            place(&engine, info, LanguageModel::load(&weights, c), language_model::Llama::new(c))
        }
        NetworkConfig::Connector(c) => {
            place(&engine, info, Connector::load(&weights, c), connector::Connect::new(c))
        }
        NetworkConfig::TextEncoder(c) => {
            place(&engine, info, TextEncoder::load(&weights, c), encoders::Text::new(c))
        }
        NetworkConfig::VaeEncoder(c) => {
            place(&engine, info, VaeEncoder::load(&weights, c), vae::Encode::new(c))
        }
        NetworkConfig::Denoiser(c) => {
            place(&engine, info, Unet::load(&weights, c), denoiser::Denoise::new(c))
        }
        NetworkConfig::VaeDecoder(c) => {
            place(&engine, info, VaeDecoder::load(&weights, c), vae::Decode::new(c))
        }
    };
    stage.map_err(|source| LoadError::Weights { stage: kind, source })
}

fn place<E: Engine + 'static, N: Send + Sync + 'static, R: Run<E, N>>(
    engine: &Arc<E>,
    info: StageInfo,
    network: weights::Result<N>,
    run: R,
) -> weights::Result<Arc<dyn Stage>> {
    let loaded = Arc::new(Loaded { engine: engine.clone(), network: network?, run });
    Ok(Arc::new(EngineStage { loaded, info }))
}

/// How a network is run on named tensors.
trait Run<E: Engine, N>: Send + Sync + 'static {
    /// What a session keeps between calls.
    type State: Default + Clone + Send + 'static;

    fn run(&self, network: &N, state: &mut Self::State, call: &Call<'_, E>) -> Result<Tensors, StageError>;
}

struct Loaded<E, N, R> {
    engine: Arc<E>,
    network: N,
    run: R,
}

struct EngineStage<E, N, R> {
    loaded: Arc<Loaded<E, N, R>>,
    info: StageInfo,
}

impl<E: Engine + 'static, N: Send + Sync + 'static, R: Run<E, N>> Stage for EngineStage<E, N, R> {
    fn info(&self) -> &StageInfo {
        &self.info
    }

    fn session(&self) -> Box<dyn Session> {
        Box::new(EngineSession {
            loaded: self.loaded.clone(),
            kind: self.info.kind,
            state: R::State::default(),
        })
    }
}

struct EngineSession<E: Engine, N, R: Run<E, N>> {
    loaded: Arc<Loaded<E, N, R>>,
    kind: crate::stage::StageKind,
    state: R::State,
}

impl<E: Engine + 'static, N: Send + Sync + 'static, R: Run<E, N>> Session for EngineSession<E, N, R> {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, StageError> {
        let call = Call::new(self.loaded.engine.as_ref(), self.kind, inputs);
        self.loaded.run.run(&self.loaded.network, &mut self.state, &call)
    }

    fn fork(&self) -> Option<Box<dyn Session>> {
        Some(Box::new(Self { loaded: self.loaded.clone(), kind: self.kind, state: self.state.clone() }))
    }
}
