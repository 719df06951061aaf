//! The engines of this build.

use std::collections::BTreeMap;
use std::sync::Arc;

use smartedit_core::stage::Backend;

/// Engines that exist, and the cargo feature that builds each in.
const KNOWN: [(&str, &str); 3] = [("candle", "candle"), ("torch", "torch"), ("onnx", "onnx")];

/// The engines of this build, by the name used in configuration.
#[derive(Clone, Default)]
pub struct Engines(BTreeMap<&'static str, Arc<dyn Backend>>);

/// An engine cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineUnavailable {
    /// The engine exists, but this build has not got it.
    #[error(
        "engine `{name}` is not built in; build with `cargo build -p smartedit-server --features {feature}`"
    )]
    NotBuiltIn {
        /// The engine.
        name: String,
        /// The cargo feature that builds it in.
        feature: &'static str,
    },
    /// There is no such engine.
    #[error("there is no engine `{name}`; there are {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names of all engines.
        known: String,
    },
}

impl Engines {
    /// The engines that this build has.
    pub fn built_in() -> Self {
        #[allow(unused_mut, reason = "a build without engines adds none")]
        let mut engines = Self::default();
        #[cfg(feature = "candle")]
        engines.add(Arc::new(smartedit_candle::CandleBackend::new()));
        #[cfg(feature = "torch")]
        engines.add(Arc::new(smartedit_torch::TorchBackend::new()));
        engines
    }

    /// Adds an engine under its own name.
    pub fn add(&mut self, backend: Arc<dyn Backend>) {
        self.0.insert(backend.name(), backend);
    }

    /// The engine of this name.
    ///
    /// # Errors
    ///
    /// What to build, or which names there are.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn Backend>, EngineUnavailable> {
        if let Some(backend) = self.0.get(name) {
            return Ok(backend);
        }
        Err(match KNOWN.iter().find(|(known, _)| *known == name) {
            Some((_, feature)) => EngineUnavailable::NotBuiltIn { name: name.to_owned(), feature },
            None => EngineUnavailable::Unknown {
                name: name.to_owned(),
                known: KNOWN.map(|(known, _)| format!("`{known}`")).join(", "),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str) -> String {
        Engines::default().get(name).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn an_engine_that_is_not_built_in_names_its_feature() {
        assert!(message("torch").contains("--features torch"), "{}", message("torch"));
    }

    #[test]
    fn an_unknown_engine_is_answered_with_the_known_ones() {
        let message = message("tensorflow");
        assert!(message.contains("`tensorflow`") && message.contains("`onnx`"), "{message}");
    }
}
