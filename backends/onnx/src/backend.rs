//! ONNX Runtime as a backend: library, providers, precisions and loading.

use std::path::PathBuf;
use std::sync::Arc;

use smartedit_core::model::NetworkConfig;
use smartedit_core::stage::{Backend, LoadError, Stage, StageInfo, StageKind, StageOptions};
use smartedit_core::stages::{self, Network, signatures};
use smartedit_core::weights::{WeightFile, Weights};

use crate::executor::GraphExecutor;
use crate::library::Runtime;
use crate::provider::{Chosen, Refusal};
use crate::recorder::{RecordedWeights, Recorder};
use crate::session::Sessions;

pub(crate) const NAME: &str = "onnx";

/// Records stages and runs them on ONNX Runtime.
#[derive(Debug, Clone, Default)]
pub struct OnnxBackend {
    library: Option<PathBuf>,
}

impl OnnxBackend {
    /// The backend on this library, or else on the one that the environment variable
    /// [`LIBRARY_VARIABLE`](crate::LIBRARY_VARIABLE) names, that lies beside the program, or that
    /// `cargo xtask engines` fetched. Nothing is loaded yet.
    pub fn new(library: Option<PathBuf>) -> Self {
        Self { library }
    }

    fn choose(&self, stage: StageKind, options: &StageOptions) -> Result<(Runtime, Chosen), LoadError> {
        let unavailable =
            |Refusal { reason, remedy }| LoadError::Unavailable { engine: NAME, stage, reason, remedy };
        let runtime = Runtime::load(self.library.as_deref())
            .map_err(|error| unavailable(Refusal::new(error.to_string(), error.remedy())))?;
        let provider = Chosen::first(&runtime, options).map_err(unavailable)?;
        Ok((runtime, provider))
    }
}

impl Backend for OnnxBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, stage: StageKind, options: &StageOptions) -> Result<(), LoadError> {
        self.choose(stage, options).map(drop)
    }

    fn load(
        &self,
        config: &NetworkConfig,
        weights: &WeightFile,
        options: &StageOptions,
    ) -> Result<Arc<dyn Stage>, LoadError> {
        let kind = config.kind();
        let (runtime, provider) = self.choose(kind, options)?;
        let recorder = Recorder::new(options.precision, provider.operators());
        let source = RecordedWeights { recorder, file: weights };
        let network = Network::load(&Weights::root(&source), config)
            .map_err(|source| LoadError::Weights { stage: kind, source })?;
        let sessions = Sessions { runtime: &runtime, provider: &provider, options };
        let executor =
            GraphExecutor::new(&recorder, &network, &signatures(config), &sessions).map_err(|error| {
                LoadError::Unavailable {
                    engine: NAME,
                    stage: kind,
                    reason: format!("{}: {error}", provider.kind.name()),
                    remedy: "try another execution provider or `graph_optimization`".to_owned(),
                }
            })?;
        let info = StageInfo {
            kind,
            engine: NAME,
            device: provider.device(),
            precision: options.precision,
            provider: Some(provider.kind.name().to_owned()),
            weight_bytes: weights.tensor_bytes(),
        };
        Ok(stages::place(executor, config, info))
    }
}
