//! The loop of a worker thread.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::perform::perform;
use super::{Editor, Finished, Job, Queue};
use crate::failure::Failure;

/// Does the jobs of a queue, one after the other, until the queue is closed. A job that panics fails alone.
pub fn work(editor: &Arc<dyn Editor>, queue: &Queue) {
    while let Some((queued, job)) = queue.next() {
        let started = Instant::now();
        let outcome = job.span.in_scope(|| attempt(editor, &job, queued));
        queue.done(outcome.is_ok().then(|| started.elapsed()));
        job.reporter.finish(outcome);
    }
}

fn attempt(editor: &Arc<dyn Editor>, job: &Job, queued: Duration) -> Result<Finished, Failure> {
    // Nothing of a job outlives it but what it shares immutably: the model and the queue.
    let outcome = catch_unwind(AssertUnwindSafe(|| perform(editor, job, queued)))
        .unwrap_or_else(|panic| Err(Failure::Panicked(words(panic.as_ref()))));
    log(job, queued, &outcome);
    outcome
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

fn log(job: &Job, queued: Duration, outcome: &Result<Finished, Failure>) {
    let ms = |duration: Duration| duration.as_millis() as u64;
    let (total_ms, queued_ms) = (ms(job.arrival.elapsed()), ms(queued));
    match outcome {
        Ok(finished) => {
            let timings = &finished.timings;
            let stages: Vec<_> =
                timings.stages.iter().map(|time| format!("{}={}", time.stage, ms(time.duration))).collect();
            tracing::info!(
                outcome = "OK",
                total_ms,
                queued_ms,
                stages_ms = stages.join(" "),
                width = finished.width,
                height = finished.height,
                bytes = finished.image.len(),
                "edit finished"
            );
        }
        Err(failure) if failure.is_internal() => {
            let error: &dyn std::error::Error = failure;
            tracing::error!(outcome = failure.reason(), total_ms, queued_ms, error, "edit failed");
        }
        Err(failure) => tracing::info!(outcome = failure.reason(), total_ms, queued_ms, "edit ended"),
    }
}
