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

#[cfg(test)]
mod tests {
    use super::super::testing::{Act, Leash, Order, Scripted, order, picture_order, steps};
    use super::super::{Event, Events, Progress, StopReason};
    use super::*;

    /// A worker of a queue; it ends when the queue is dropped.
    struct Desk(Arc<Queue>);

    impl Desk {
        fn open(editor: Arc<dyn Editor>) -> Self {
            let queue = Arc::new(Queue::new(8, 1 << 20, 1));
            let (served, runtime) = (queue.clone(), tokio::runtime::Handle::current());
            let body = move || {
                let _runtime = runtime.enter();
                work(&editor, &served);
            };
            std::thread::Builder::new().spawn(body).unwrap();
            Self(queue)
        }

        fn leashed(script: Vec<Act>) -> (Self, Leash) {
            let (editor, leash) = Scripted::on_leash(vec![script]);
            (Self::open(editor), leash)
        }
    }

    impl Drop for Desk {
        fn drop(&mut self) {
            self.0.close();
        }
    }

    async fn end(events: &mut Events) -> Result<Box<Finished>, Failure> {
        loop {
            match events.next().await.unwrap() {
                Event::Finished(outcome) => return outcome,
                Event::Progress(_) => {}
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_edit_goes_to_its_end() {
        let desk = Desk::open(Scripted::of(vec![steps(3)]));
        let mut order = picture_order();
        order.job.task.preview_interval = 2;
        desk.0.push(order.job).unwrap();
        let mut previews = 0;
        let finished = loop {
            match order.events.next().await.unwrap() {
                Event::Progress(Progress::Step { preview, .. }) => previews += usize::from(preview.is_some()),
                Event::Progress(_) => {}
                Event::Finished(outcome) => break outcome.unwrap(),
            }
        };
        assert_eq!((finished.width, finished.height, previews), (16, 8, 1));
        assert!(finished.image.starts_with(b"\x89PNG"));
        assert_eq!(finished.timings.stages.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_leaves_stops_the_work_within_one_unit() {
        let script = steps(50);
        for unit in [0, 1, 7, script.len() - 1] {
            let (desk, leash) = Desk::leashed(script.clone());
            let Order { job, stop, mut events } = picture_order();
            desk.0.push(job).unwrap();
            for _ in 0..unit {
                leash.wait().await;
                leash.go();
            }
            leash.wait().await;
            stop.set(StopReason::Abandoned);
            leash.go();
            let outcome = end(&mut events).await;
            // The last unit yields the picture: nothing is left to be stopped.
            match unit == script.len() - 1 {
                true => assert!(outcome.is_ok()),
                false => assert!(matches!(outcome, Err(Failure::Abandoned)), "{unit}: {outcome:?}"),
            }
            assert!(leash.is_quiet().await, "unit {unit}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_stops_the_work_within_one_unit() {
        let (desk, leash) = Desk::leashed(steps(50));
        let Order { job, mut events, .. } = picture_order().due(Duration::from_secs(9));
        desk.0.push(job).unwrap();
        leash.wait().await;
        tokio::time::advance(Duration::from_secs(8)).await;
        leash.go();
        leash.wait().await;
        tokio::time::advance(Duration::from_secs(1)).await;
        leash.go();
        assert!(matches!(end(&mut events).await, Err(Failure::DeadlineExceeded)));
        assert!(leash.is_quiet().await);
    }

    #[tokio::test(start_paused = true)]
    async fn one_callers_stop_is_nobody_elses() {
        let (desk, leash) = Desk::leashed(steps(1));
        let (first, mut second) = (picture_order(), picture_order());
        desk.0.push(first.job).unwrap();
        desk.0.push(second.job).unwrap();
        leash.wait().await;
        first.stop.set(StopReason::Abandoned);
        drop(leash);
        assert!(end(&mut second.events).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_fails_its_own_edit_alone() {
        let desk = Desk::open(Scripted::of(vec![vec![Act::Panic], steps(1)]));
        let (mut first, mut second) = (picture_order(), picture_order());
        desk.0.push(first.job).unwrap();
        desk.0.push(second.job).unwrap();
        let failure = end(&mut first.events).await.unwrap_err();
        assert!(matches!(&failure, Failure::Panicked(words) if words == "as the script says"), "{failure}");
        assert!(end(&mut second.events).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_picture_fails_and_the_worker_goes_on() {
        let desk = Desk::open(Scripted::of(vec![steps(1)]));
        let (mut first, mut second) = (order(100), picture_order());
        desk.0.push(first.job).unwrap();
        desk.0.push(second.job).unwrap();
        assert!(matches!(end(&mut first.events).await, Err(Failure::Picture(_))));
        assert!(end(&mut second.events).await.is_ok());
    }
}
