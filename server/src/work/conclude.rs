//! The end of an edit.

use std::time::Duration;

use super::Finished;
use super::run::Run;
use crate::failure::Failure;

/// Logs how an edit ended and tells its caller.
pub(super) fn conclude(run: Run, outcome: Result<Finished, Failure>) {
    run.job.span.in_scope(|| log(&run, &outcome));
    run.job.reporter.finish(outcome);
}

fn log(run: &Run, outcome: &Result<Finished, Failure>) {
    let ms = |duration: Duration| duration.as_millis() as u64;
    let (total_ms, queued_ms) = (ms(run.job.arrival.elapsed()), ms(run.queued));
    match outcome {
        Ok(finished) => {
            let timings = &finished.timings;
            let stages: Vec<_> =
                timings.stages.iter().map(|time| format!("{}={}", time.stage, ms(time.duration))).collect();
            let cached: Vec<_> =
                timings.stages.iter().filter(|time| time.cached).map(|time| time.stage.name()).collect();
            tracing::info!(
                outcome = "OK",
                total_ms,
                queued_ms,
                stages_ms = stages.join(" "),
                cached = cached.join(" "),
                width = finished.width,
                height = finished.height,
                bytes = finished.image.len(),
                mean_batch = timings.mean_batch,
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
