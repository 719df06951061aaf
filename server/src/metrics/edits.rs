//! Edits and their stages, counted as workers report them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use smartedit_core::stage::StageKind;
use tokio::time::Instant;

use super::{Metrics, OK, seconds};
use crate::deployment::Deployment;
use crate::failure::Failure;
use crate::work::{Finished, Observer, Progress};

/// What is counted of edits.
pub(super) struct Edits {
    edits: Family<Ended, Counter>,
    refusals: Family<Refused, Counter>,
    duration: Family<Of, Histogram>,
    queued: Family<Of, Histogram>,
    steps: Family<Of, Counter>,
    stages: Family<Computed, Histogram>,
    kept: Family<Kept, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    deployment: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    deployment: Arc<str>,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Computed {
    deployment: Arc<str>,
    stage: &'static str,
    engine: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kept {
    deployment: Arc<str>,
    stage: &'static str,
}

impl Edits {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let edits = Self {
            edits: Family::default(),
            refusals: Family::default(),
            duration: Family::new_with_constructor(seconds),
            queued: Family::new_with_constructor(seconds),
            steps: Family::default(),
            stages: Family::new_with_constructor(seconds),
            kept: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("smartedit");
        registry.register("edits", "Edits that were accepted and are over, by outcome", edits.edits.clone());
        registry.register("edit_refusals", "Edits that were not accepted, by reason", edits.refusals.clone());
        registry.register("denoising_steps", "Denoising steps of all edits", edits.steps.clone());
        let help = "Stages whose result was kept from an earlier edit";
        registry.register("stages_kept", help, edits.kept.clone());
        let mut durations = |name: &str, help: &str, durations: Family<Of, Histogram>| {
            registry.register_with_unit(name, help, Unit::Seconds, durations);
        };
        let help = "From an edit's arrival to its encoded result, if it went to its end";
        durations("edit_duration", help, edits.duration.clone());
        durations("edit_queue_duration", "How long accepted edits waited for a worker", edits.queued.clone());
        let help = "How long a stage took in an edit, all its runs together, unless its result was kept";
        registry.register_with_unit("stage_duration", help, Unit::Seconds, edits.stages.clone());
        edits
    }
}

impl Metrics {
    /// Counts an edit that is not accepted.
    pub fn refused(&self, failure: &Failure) {
        self.0.edits.refusals.get_or_create(&Refused { reason: failure.reason() }).inc();
    }

    /// What counts an edit of a deployment, under this label.
    pub fn observer(&self, deployment: &Deployment, label: &str) -> impl Observer + use<> {
        let editor = deployment.editor().ok();
        let stages = editor.iter().flat_map(|editor| editor.stages());
        EditObserver {
            metrics: self.clone(),
            deployment: label.into(),
            engines: stages.map(|placed| (placed.info.kind, placed.info.engine)).collect(),
            waited: Mutex::default(),
        }
    }
}

struct EditObserver {
    metrics: Metrics,
    deployment: Arc<str>,
    engines: BTreeMap<StageKind, &'static str>,
    waited: Mutex<Waited>,
}

/// How long an edit has waited for a worker.
#[derive(Clone, Copy, Default)]
enum Waited {
    /// It has not been accepted.
    #[default]
    NotYet,
    /// It waits since then.
    Since(Instant),
    /// It is being worked on.
    For(Duration),
}

impl EditObserver {
    fn of(&self) -> Of {
        Of { deployment: self.deployment.clone() }
    }

    fn finish_stage(&self, stage: StageKind, duration: Duration, cached: bool) {
        let (edits, deployment) = (&self.metrics.0.edits, self.deployment.clone());
        if cached {
            edits.kept.get_or_create(&Kept { deployment, stage: stage.name() }).inc();
        } else {
            let engine = self.engines.get(&stage).copied().unwrap_or_default();
            let labels = Computed { deployment, stage: stage.name(), engine };
            edits.stages.get_or_create(&labels).observe(duration.as_secs_f64());
        }
    }
}

impl Observer for EditObserver {
    fn progress(&self, progress: &Progress) {
        let mut waited = self.waited.lock().unwrap_or_else(PoisonError::into_inner);
        match (progress, *waited) {
            (Progress::Queued(_), Waited::NotYet) => *waited = Waited::Since(Instant::now()),
            (Progress::StageStarted { .. }, Waited::Since(since)) => *waited = Waited::For(since.elapsed()),
            _ => {}
        }
        drop(waited);
        match progress {
            Progress::Step { .. } => {
                self.metrics.0.edits.steps.get_or_create(&self.of()).inc();
            }
            Progress::StageFinished { stage, duration, cached, .. } => {
                self.finish_stage(*stage, *duration, *cached);
            }
            _ => {}
        }
    }

    fn finished(&self, outcome: Result<&Finished, &Failure>) {
        let waited = match *self.waited.lock().unwrap_or_else(PoisonError::into_inner) {
            // It was refused, which is counted where that is told.
            Waited::NotYet => return,
            Waited::Since(since) => since.elapsed(),
            Waited::For(waited) => waited,
        };
        let edits = &self.metrics.0.edits;
        // Exact where the worker tells; else the time to decode the picture is in it.
        let queued = outcome.map_or(waited, |finished| finished.timings.queued);
        edits.queued.get_or_create(&self.of()).observe(queued.as_secs_f64());
        if let Ok(finished) = outcome {
            edits.duration.get_or_create(&self.of()).observe(finished.timings.total.as_secs_f64());
        }
        let outcome = outcome.map_or_else(Failure::reason, |_| OK);
        edits.edits.get_or_create(&Ended { deployment: self.deployment.clone(), outcome }).inc();
    }
}
