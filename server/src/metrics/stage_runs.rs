//! Runs of single stages, as models of their own.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use smartedit_core::stage::StageInfo;

use super::{Metrics, OK, seconds};
use crate::failure::Failure;

/// What is counted of them.
pub(super) struct StageRuns {
    runs: Family<Ended, Counter>,
    queued: Family<Of, Histogram>,
    duration: Family<Computed, Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    deployment: Arc<str>,
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    deployment: Arc<str>,
    stage: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Computed {
    deployment: Arc<str>,
    stage: &'static str,
    engine: &'static str,
}

impl StageRuns {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let runs = Self {
            runs: Family::default(),
            queued: Family::new_with_constructor(seconds),
            duration: Family::new_with_constructor(seconds),
        };
        let registry = registry.sub_registry_with_prefix("smartedit");
        let help = "Runs of single stages that are over or were refused, by outcome";
        registry.register("stage_runs", help, runs.runs.clone());
        let help = "How long runs of single stages waited for their turn";
        registry.register_with_unit("stage_run_queue_duration", help, Unit::Seconds, runs.queued.clone());
        let help = "How long runs of single stages took, without waiting";
        registry.register_with_unit("stage_run_duration", help, Unit::Seconds, runs.duration.clone());
        runs
    }
}

impl Metrics {
    /// Counts a run of a deployment's stage, under this label, when it ends.
    pub(crate) fn stage_run(&self, label: &str, stage: &StageInfo) -> StageRun {
        StageRun {
            metrics: self.clone(),
            deployment: label.into(),
            stage: stage.kind.name(),
            engine: stage.engine,
            outcome: Failure::Abandoned.reason(),
        }
    }
}

/// A run of a stage. Dropped before it has ended, its caller has left.
pub(crate) struct StageRun {
    metrics: Metrics,
    deployment: Arc<str>,
    stage: &'static str,
    engine: &'static str,
    outcome: &'static str,
}

impl StageRun {
    /// It has been computed, after so long a wait in so long a time.
    pub(crate) fn computed(&self, queued: Duration, took: Duration) {
        let (runs, deployment, stage) = (&self.metrics.0.stage_runs, self.deployment.clone(), self.stage);
        let of = Of { deployment: deployment.clone(), stage };
        runs.queued.get_or_create(&of).observe(queued.as_secs_f64());
        let computed = Computed { deployment, stage, engine: self.engine };
        runs.duration.get_or_create(&computed).observe(took.as_secs_f64());
    }

    /// It is over.
    pub(crate) fn ended(mut self, outcome: Result<(), &Failure>) {
        self.outcome = outcome.map_or_else(Failure::reason, |()| OK);
    }
}

impl Drop for StageRun {
    fn drop(&mut self) {
        let (deployment, stage, outcome) = (self.deployment.clone(), self.stage, self.outcome);
        self.metrics.0.stage_runs.runs.get_or_create(&Ended { deployment, stage, outcome }).inc();
    }
}
