//! What holds at the time of asking: deployments, their queues and weights, and what is kept.

use std::fmt::{self, Error};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::deployment::{Deployment, Deployments, State as DeploymentState};

/// The state of a server's deployments.
pub(super) struct State {
    deployments: Deployments,
}

impl State {
    /// The state of these deployments.
    pub(super) fn of(deployments: Deployments) -> Self {
        Self { deployments }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

#[derive(Debug, EncodeLabelSet)]
struct Of {
    deployment: String,
}

#[derive(Debug, EncodeLabelSet)]
struct Placed {
    deployment: String,
    stage: &'static str,
    engine: &'static str,
    device: String,
    provider: String,
    precision: String,
}

/// A gauge of a deployment.
type Gauge = (&'static str, &'static str, fn(&Deployment) -> u64);

const GAUGES: [Gauge; 5] = [
    ("smartedit_deployment_ready", "Whether a deployment takes edits", |deployment| {
        u64::from(matches!(deployment.state(), DeploymentState::Ready(_)))
    }),
    ("smartedit_queue_requests", "Edits waiting for a worker", |deployment| {
        deployment.queue().load().0 as u64
    }),
    ("smartedit_queue_bytes", "Bytes of all edits waiting for a worker", |deployment| {
        deployment.queue().bytes() as u64
    }),
    ("smartedit_edits_running", "Edits being worked on", |deployment| deployment.queue().load().1 as u64),
    ("smartedit_stage_queue_requests", "Runs of single stages waiting for their turn", |deployment| {
        deployment.stages_waiting() as u64
    }),
];

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let deployments = self.deployments.all();
        for (name, help, value) in GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for deployment in &deployments {
                let labels = Of { deployment: self.deployments.label(deployment) };
                ConstGauge::new(value(deployment)).encode(metric.encode_family(&labels)?)?;
            }
        }
        self.encode_runs(&deployments, &mut encoder)?;
        self.encode_weights(&deployments, &mut encoder)?;
        self.encode_kept(&mut encoder)
    }
}

/// Upper bounds of the numbers of edits that share a run of the denoiser.
const SHARED: [f64; 9] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0, f64::INFINITY];

impl State {
    fn encode_runs(
        &self,
        deployments: &[Arc<Deployment>],
        encoder: &mut DescriptorEncoder<'_>,
    ) -> Result<(), Error> {
        let help = "Edits that shared a run of the denoiser";
        let mut metric =
            encoder.encode_descriptor("smartedit_denoiser_run_edits", help, None, MetricType::Histogram)?;
        for deployment in deployments {
            let runs = deployment.queue().counters().runs;
            let (mut buckets, mut sum, mut count) = (SHARED.map(|bound| (bound, 0)), 0.0, 0);
            for (edits, times) in runs {
                let (edits, last) = (edits as f64, SHARED.len() - 1);
                buckets[SHARED.iter().position(|bound| edits <= *bound).unwrap_or(last)].1 += times;
                sum += edits * times as f64;
                count += times;
            }
            let labels = Of { deployment: self.deployments.label(deployment) };
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn encode_weights(
        &self,
        deployments: &[Arc<Deployment>],
        encoder: &mut DescriptorEncoder<'_>,
    ) -> Result<(), Error> {
        let help = "Bytes of a stage's parameters in its weight file, by what computes the stage";
        let mut metric =
            encoder.encode_descriptor("smartedit_stage_weights_bytes", help, None, MetricType::Gauge)?;
        for deployment in deployments {
            let Ok(editor) = deployment.editor() else { continue };
            for placed in editor.stages() {
                let info = &placed.info;
                let labels = Placed {
                    deployment: self.deployments.label(deployment),
                    stage: info.kind.name(),
                    engine: info.engine,
                    device: info.device.clone(),
                    provider: info.provider.clone().unwrap_or_default(),
                    precision: info.precision.to_string(),
                };
                ConstGauge::new(info.weight_bytes).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    /// What is kept for requests to come, where anything is.
    fn encode_kept(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let Some(usage) = self.deployments.kept() else { return Ok(()) };
        let mut gauge = |name: &str, help: &str, value: usize| {
            let gauge = ConstGauge::new(value as u64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("smartedit_stage_cache_results", "Results of stages that are kept", usage.entries)?;
        gauge("smartedit_stage_cache_bytes", "Bytes of the results of stages that are kept", usage.bytes)?;
        let mut counter = |name: &str, help: &str, value: u64| {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
        };
        counter("smartedit_stage_cache_hits", "Lookups that found a result", usage.hits)?;
        counter("smartedit_stage_cache_misses", "Lookups after which the result was computed", usage.misses)
    }
}
