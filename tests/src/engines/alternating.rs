//! Stages that alternate between two engines.

use std::sync::Arc;

use smartedit_core::model::NetworkConfig;
use smartedit_core::stage::{Backend, LoadError, Stage, StageKind, StageOptions};
use smartedit_core::weights::WeightFile;

use super::Row;

/// A row whose stages, in the order of [`StageKind::ALL`], alternate between two engines.
pub(super) fn mixed(name: &'static str, even: Row, odd: Row) -> Row {
    Row {
        name,
        // The VAE encoder is one of the even stages.
        reference_sums: even.reference_sums,
        backend: Arc::new(Alternating { name, backends: [even.backend, odd.backend] }),
        options: even.options,
        ignored: if even.ignored.is_empty() { odd.ignored } else { even.ignored },
    }
}

/// Loads each stage on one of two backends.
struct Alternating {
    name: &'static str,
    backends: [Arc<dyn Backend>; 2],
}

impl Alternating {
    fn backend(&self, stage: StageKind) -> &dyn Backend {
        let place = StageKind::ALL.iter().position(|kind| *kind == stage).expect("all stages are there");
        self.backends[place % 2].as_ref()
    }
}

impl Backend for Alternating {
    fn name(&self) -> &'static str {
        self.name
    }

    fn check(&self, stage: StageKind, options: &StageOptions) -> Result<(), LoadError> {
        self.backend(stage).check(stage, options)
    }

    fn load(
        &self,
        config: &NetworkConfig,
        weights: &WeightFile,
        options: &StageOptions,
    ) -> Result<Arc<dyn Stage>, LoadError> {
        self.backend(config.kind()).load(config, weights, options)
    }
}
