//! The engines of this build.

use std::collections::BTreeMap;
use std::sync::Arc;

use smartedit_core::model::NetworkConfig;
use smartedit_core::stage::{Backend, LoadError, Stage, StageKind, StageOptions};
use smartedit_core::weights::WeightFile;

use crate::config::EnginesConfig;

/// Engines that exist, and the cargo feature that builds each in.
const KNOWN: [(&str, &str); 4] =
    [("candle", "candle"), ("torch", "torch"), ("onnx", "onnx"), ("remote", "remote")];

/// The engines of this build, by the name used in configuration.
#[derive(Clone, Default)]
pub struct Engines(BTreeMap<&'static str, Arc<dyn Backend>>);

/// There is no engine of a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no engine `{name}`; there are {known}")]
pub struct UnknownEngine {
    /// The name asked for.
    pub name: String,
    /// The names of all engines.
    pub known: String,
}

impl Engines {
    /// The engines that this build has, as they are without a configuration.
    pub fn built_in() -> Self {
        Self::configured(&EnginesConfig::default())
    }

    /// The engines that this build has.
    #[allow(unused_variables, reason = "a build without the engine `onnx` configures none")]
    pub fn configured(config: &EnginesConfig) -> Self {
        #[allow(unused_mut, reason = "a build without engines adds none")]
        let mut engines = Self::default();
        #[cfg(feature = "candle")]
        engines.add(Arc::new(smartedit_candle::CandleBackend::new()));
        #[cfg(feature = "torch")]
        engines.add(Arc::new(smartedit_torch::TorchBackend::new()));
        #[cfg(feature = "onnx")]
        engines.add(Arc::new(smartedit_onnx::OnnxBackend::new(config.onnx.library.clone())));
        #[cfg(feature = "remote")]
        engines.add(Arc::new(smartedit_remote::RemoteBackend::new()));
        engines
    }

    /// Adds an engine under its own name.
    pub fn add(&mut self, backend: Arc<dyn Backend>) {
        self.0.insert(backend.name(), backend);
    }

    /// The engine of this name. One that exists but that this build has not got cannot run any stage, and says how to
    /// build it in.
    ///
    /// # Errors
    ///
    /// Which names there are.
    pub fn get(&self, name: &str) -> Result<Arc<dyn Backend>, UnknownEngine> {
        if let Some(backend) = self.0.get(name) {
            return Ok(backend.clone());
        }
        match KNOWN.iter().find(|(known, _)| *known == name) {
            Some(&(name, feature)) => Ok(Arc::new(NotBuiltIn { name, feature })),
            None => Err(UnknownEngine {
                name: name.to_owned(),
                known: KNOWN.map(|(known, _)| format!("`{known}`")).join(", "),
            }),
        }
    }

    /// Gives memory that nothing uses any more back to the operating system, where engines or the allocator hold on to
    /// it.
    pub fn release_memory(&self) {
        self.0.values().for_each(|engine| engine.release_memory());
        smartedit_allocator::give_back();
    }

    /// Whether there is an engine of this name, in this build or another.
    pub fn exists(name: &str) -> bool {
        KNOWN.iter().any(|(known, _)| *known == name)
    }
}

/// An engine that exists, but that this build has not got.
struct NotBuiltIn {
    name: &'static str,
    feature: &'static str,
}

impl NotBuiltIn {
    fn error(&self, stage: StageKind) -> LoadError {
        LoadError::Unavailable {
            engine: self.name,
            stage,
            reason: "it is not built in".to_owned(),
            remedy: format!("build with `cargo build -p smartedit-server --features {}`", self.feature),
        }
    }
}

impl Backend for NotBuiltIn {
    fn name(&self) -> &'static str {
        self.name
    }

    fn check(&self, stage: StageKind, _: &StageOptions) -> Result<(), LoadError> {
        Err(self.error(stage))
    }

    fn load(
        &self,
        config: &NetworkConfig,
        _: &WeightFile,
        _: &StageOptions,
    ) -> Result<Arc<dyn Stage>, LoadError> {
        Err(self.error(config.kind()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_is_not_built_in_names_its_feature() {
        let torch = Engines::default().get("torch").unwrap();
        let message = torch.check(StageKind::Denoiser, &StageOptions::default()).unwrap_err().to_string();
        assert!(message.contains("`torch`") && message.contains("--features torch"), "{message}");
    }

    #[test]
    fn an_unknown_engine_is_answered_with_the_known_ones() {
        let message = Engines::default().get("tensorflow").err().unwrap().to_string();
        assert!(message.contains("`tensorflow`") && message.contains("`onnx`"), "{message}");
    }
}
