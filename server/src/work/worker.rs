//! The loop of a worker thread.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use smartedit_core::interest::{self, Interest, Interests};
use smartedit_core::pipeline::EditError;
use smartedit_core::stage::StageError;
use tokio::time::Instant;
use tracing::Span;

use super::conclude::conclude;
use super::run::Run;
use super::schedule::{Task, Working};
use super::{Editing, Editor, Finished, Queue};
use crate::failure::Failure;

/// What a unit of work has made of an edit: its end, or nothing yet.
type Outcome = Result<Option<Finished>, Failure>;

/// Does units of work of a queue's edits until the queue is closed. `worker` is its number among the queue's.
///
/// An edit that panics fails alone.
pub fn work(editor: &Arc<dyn Editor>, queue: &Queue, worker: usize) {
    while let Some(task) = queue.next(worker) {
        let started = Instant::now();
        let over = match task {
            Task::Unit(mut working) => {
                let run = &mut working.item;
                let outcome = attempt(run, |run| run.advance(editor));
                run.rest += started.elapsed();
                queue.unit_done(working, outcome)
            }
            Task::Run { group, mut edits } => {
                let (outcomes, as_one) = steps(editor, &mut edits);
                let took = (as_one && outcomes.iter().all(Result::is_ok)).then(|| started.elapsed());
                queue.run_done(group, edits, outcomes, took)
            }
        };
        for (run, outcome) in over {
            conclude(run, outcome);
        }
    }
}

/// Does something of an edit in its span. A panic is a failure of the edit.
fn attempt(run: &mut Run, unit: impl FnOnce(&mut Run) -> Outcome) -> Outcome {
    let span = run.job.span.clone();
    // Nothing of a run outlives its failure but what it shares immutably: the model and the queue.
    let interests = run.job.stop.interests();
    let unit = AssertUnwindSafe(|| interest::during(interests, || span.in_scope(|| unit(run))));
    catch_unwind(unit).unwrap_or_else(|panic| Err(Failure::Panicked(panic_words(panic.as_ref()))))
}

/// Does a denoising step of each edit, and tells whether in one run. Where that fails as a whole, each edit does its
/// step by itself, so that only those at fault fail.
fn steps(editor: &Arc<dyn Editor>, edits: &mut [Working<Run>]) -> (Vec<Outcome>, bool) {
    let count = edits.len();
    let alone = |working: &mut Working<Run>| attempt(&mut working.item, |run| run.advance(editor));
    let interests: Interests =
        edits.iter().map(|working| Arc::new(working.item.job.stop.clone()) as Arc<dyn Interest>).collect();
    // A span has one parent: what several share is in the first one's trace.
    let span = edits.first().map_or_else(Span::none, |working| working.item.span());
    let mut sharing: Vec<&mut dyn Editing> =
        edits.iter_mut().filter_map(|working| working.item.share(count)).collect();
    if count < 2 {
        return (edits.iter_mut().map(alone).collect(), true);
    }
    // A step that a panic interrupts is not done; what it shares with others is not changed.
    let together = AssertUnwindSafe(|| {
        interest::during(interests, || span.in_scope(|| editor.step_together(&mut sharing)))
    });
    let reason = match catch_unwind(together) {
        Ok(Ok(done)) if done.len() == count => {
            let take = |(working, progress): (&mut Working<Run>, _)| {
                attempt(&mut working.item, |run| run.take(editor.as_ref(), progress))
            };
            return (edits.iter_mut().zip(done).map(take).collect(), true);
        }
        // Each by itself would find the same, one after the other.
        Ok(Err(error @ StageError::Unavailable { .. })) => {
            let fail = |working: &mut Working<Run>| {
                let failed = Err(EditError::Stage(error.clone()));
                attempt(&mut working.item, |run| run.take(editor.as_ref(), failed))
            };
            return (edits.iter_mut().map(fail).collect(), false);
        }
        Ok(Ok(done)) => format!("it told of {} edits", done.len()),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic_words(panic.as_ref()),
    };
    tracing::warn!(edits = count, reason, "a run of several edits failed; each goes on by itself");
    (edits.iter_mut().map(alone).collect(), false)
}

/// What a panic says.
pub(crate) fn panic_words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{Act, Leash, Order, Scripted, one_at_a_time, order, picture_order, steps};
    use super::super::{Counters, Event, Events, Progress, Rules, StopReason};
    use super::*;

    /// A worker of a queue; it ends when the queue is dropped.
    struct Desk(Arc<Queue>);

    impl Desk {
        /// One edit at a time.
        fn open(editor: Arc<dyn Editor>) -> Self {
            Self::with_rules(editor, one_at_a_time(8, 1 << 20))
        }

        fn with_rules(editor: Arc<dyn Editor>, rules: Rules) -> Self {
            let queue = Arc::new(Queue::new(rules));
            let (served, runtime) = (queue.clone(), tokio::runtime::Handle::current());
            let body = move || {
                let _runtime = runtime.enter();
                work(&editor, &served, 0);
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

    /// A desk at which edits share runs, and the edits that were put on it before it opened.
    async fn crowd(scripts: Vec<Vec<Act>>) -> (Vec<Result<Box<Finished>, Failure>>, Counters) {
        let mut orders: Vec<Order> = scripts.iter().map(|_| picture_order()).collect();
        let rules = Rules { concurrency: 8, max_batch: 8, ..one_at_a_time(8, 1 << 20) };
        let (editor, leash) = Scripted::on_leash(scripts);
        let desk = Desk::with_rules(editor, rules);
        let mut events = Vec::new();
        for order in orders.drain(..) {
            desk.0.push(order.job).unwrap();
            events.push(order.events);
        }
        drop(leash);
        let mut outcomes = Vec::new();
        for events in &mut events {
            outcomes.push(end(events).await);
        }
        (outcomes, desk.0.counters())
    }

    #[tokio::test(start_paused = true)]
    async fn steps_of_several_edits_share_runs() {
        let (outcomes, counters) = crowd(vec![steps(20), steps(20), steps(20)]).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        let steps: u64 = counters.runs.iter().map(|(edits, runs)| *edits as u64 * runs).sum();
        assert_eq!(steps, 60);
        assert!(counters.runs.get(&3).is_some_and(|runs| *runs > 0), "{counters:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_fails_as_a_whole_fails_only_those_at_fault() {
        let mut faulty = steps(20);
        faulty.insert(15, Act::PanicAtStep);
        let (outcomes, _) = crowd(vec![steps(20), faulty, steps(20)]).await;
        let failed: Vec<bool> = outcomes.iter().map(Result::is_err).collect();
        assert_eq!(failed, [false, true, false]);
        assert!(matches!(outcomes[1], Err(Failure::Panicked(_))), "{outcomes:?}");
    }
}
