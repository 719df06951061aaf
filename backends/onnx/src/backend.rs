//! ONNX Runtime as a backend: library, providers, precisions and loading.

use std::path::PathBuf;
use std::sync::Arc;

use smartedit_core::model::NetworkConfig;
use smartedit_core::stage::{Backend, LoadError, Stage, StageInfo, StageKind, StageOptions};
use smartedit_core::stages::{self, Network, signatures};
use smartedit_core::weights::{WeightFile, Weights};

use crate::executor::GraphExecutor;
use crate::library::Runtime;
use crate::program::OnnxFile;
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

    fn choose(&self, options: &StageOptions) -> Result<(Runtime, Chosen), Refusal> {
        let wanted = Chosen::wanted(options)?;
        let runtime = Runtime::load(self.library.as_deref())
            .map_err(|error| Refusal::unavailable(error.to_string(), error.remedy()))?;
        let provider = Chosen::first(&runtime, wanted, options.precision)?;
        Ok((runtime, provider))
    }
}

impl Backend for OnnxBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, stage: StageKind, options: &StageOptions) -> Result<(), LoadError> {
        self.choose(options).map_err(|refusal| refusal.at(stage))?;
        options.program.as_ref().map_or(Ok(()), |program| program.file_bytes(stage).map(drop))
    }

    fn load(
        &self,
        config: &NetworkConfig,
        weights: &WeightFile,
        options: &StageOptions,
    ) -> Result<Arc<dyn Stage>, LoadError> {
        let kind = config.kind();
        let (runtime, provider) = self.choose(options).map_err(|refusal| refusal.at(kind))?;
        let sessions = Sessions { runtime: &runtime, provider: &provider, options };
        let mut info = StageInfo {
            kind,
            engine: NAME,
            device: provider.device(),
            precision: options.precision,
            provider: Some(provider.kind.name().to_owned()),
            weight_bytes: weights.tensor_bytes(),
        };
        if let Some(program) = &options.program {
            info.weight_bytes = program.file_bytes(kind)?;
            let file =
                OnnxFile::load(program, config, &sessions).map_err(|message| program.unfit(kind, message))?;
            return stages::program::load(file, program, config, info);
        }
        let recorder = Recorder::new(options.precision, provider.operators());
        let source = RecordedWeights { recorder, file: weights };
        let network = Network::load(&Weights::root(&source), config)
            .map_err(|source| LoadError::Weights { stage: kind, source })?;
        let executor = GraphExecutor::new(&recorder, &network, &signatures(config), &sessions);
        let executor = executor.map_err(|error| {
            let reason = format!("execution provider `{}`: {error}", provider.kind.name());
            Refusal::unavailable(reason, "try another execution provider or `graph_optimization`").at(kind)
        })?;
        Ok(stages::place(executor, config, info))
    }
}
