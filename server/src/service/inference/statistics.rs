//! How often models were asked over this protocol, and how long that took.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use smartedit_proto::inference::{InferBatchStatistics, InferStatistics, ModelStatistics, StatisticDuration};
use tokio::time::Instant;

use super::catalog::Model;
use crate::deployment::Deployment;

/// The statistics of all models, by name and version. Those of a model that is gone are dropped when those of the next
/// begin.
#[derive(Default)]
pub(super) struct Statistics(DashMap<(String, u64), (Weak<Deployment>, Arc<Tally>)>);

impl Statistics {
    /// Those of a model that there is.
    pub(super) fn of(&self, model: &Model) -> Arc<Tally> {
        let key = (model.contract.name.clone(), model.deployment.version());
        if let Some(found) = self.0.get(&key) {
            return found.1.clone();
        }
        self.0.retain(|_, (deployment, _)| deployment.strong_count() > 0);
        let new = || (Arc::downgrade(&model.deployment), Arc::default());
        self.0.entry(key).or_insert_with(new).1.clone()
    }
}

/// The statistics of a model.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Milliseconds since 1970.
    last_answer: u64,
    success: Sum,
    fail: Sum,
    queue: Sum,
    input: Sum,
    infer: Sum,
    output: Sum,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    count: u64,
    total: Duration,
}

/// How long the parts of an answered request took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Phases {
    pub(super) queue: Duration,
    pub(super) input: Duration,
    pub(super) infer: Duration,
    pub(super) output: Duration,
}

impl Tally {
    /// Counts a request that is valid: as failed, unless it turns out to be answered.
    pub(super) fn measure(self: &Arc<Self>, arrival: Instant) -> Measure {
        Measure { tally: self.clone(), arrival, answered: None }
    }

    /// How long the model is computed in the mean.
    pub(super) fn mean(&self) -> Option<Duration> {
        let Sum { count, total } = self.lock().infer;
        total.checked_div(u32::try_from(count).ok()?)
    }

    /// As the protocol's message.
    pub(super) fn message(&self, model: &str, version: String) -> ModelStatistics {
        let counts = self.lock();
        let count = counts.success.count;
        let batch = InferBatchStatistics {
            batch_size: 1,
            compute_input: counts.input.message(),
            compute_infer: counts.infer.message(),
            compute_output: counts.output.message(),
        };
        ModelStatistics {
            name: model.to_owned(),
            version,
            last_inference: counts.last_answer,
            inference_count: count,
            execution_count: count,
            inference_stats: Some(InferStatistics {
                success: counts.success.message(),
                fail: counts.fail.message(),
                queue: counts.queue.message(),
                compute_input: counts.input.message(),
                compute_infer: counts.infer.message(),
                compute_output: counts.output.message(),
                cache_hit: Sum::default().message(),
                cache_miss: Sum::default().message(),
            }),
            batch_stats: if count > 0 { vec![batch] } else { Vec::new() },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sum {
    fn add(&mut self, duration: Duration) {
        self.count += 1;
        self.total += duration;
    }

    fn message(self) -> Option<StatisticDuration> {
        let ns = u64::try_from(self.total.as_nanos()).unwrap_or(u64::MAX);
        Some(StatisticDuration { count: self.count, ns })
    }
}

/// A request that is being computed. Dropped before it is answered, it has failed.
pub(super) struct Measure {
    tally: Arc<Tally>,
    arrival: Instant,
    answered: Option<Phases>,
}

impl Measure {
    /// The request is answered.
    pub(super) fn answered(mut self, phases: Phases) {
        self.answered = Some(phases);
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        let total = self.arrival.elapsed();
        let mut counts = self.tally.lock();
        let Some(Phases { queue, input, infer, output }) = self.answered else {
            counts.fail.add(total);
            return;
        };
        counts.success.add(total);
        counts.queue.add(queue);
        counts.input.add(input);
        counts.infer.add(infer);
        counts.output.add(output);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        counts.last_answer = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_answered_has_failed() {
        let tally = Arc::new(Tally::default());
        assert_eq!(tally.mean(), None);
        let infer = Duration::from_millis(3);
        for _ in 0..2 {
            tally.measure(Instant::now()).answered(Phases { infer, ..Phases::default() });
        }
        drop(tally.measure(Instant::now()));
        let message = tally.message("m", "1".to_owned());
        let stats = message.inference_stats.unwrap();
        assert_eq!((stats.success.unwrap().count, stats.fail.unwrap().count), (2, 1));
        assert_eq!(stats.compute_infer.unwrap(), StatisticDuration { count: 2, ns: 6_000_000 });
        assert_eq!((message.inference_count, message.batch_stats.len()), (2, 1));
        assert!(message.last_inference > 0);
        assert_eq!(tally.mean(), Some(infer));
    }
}
