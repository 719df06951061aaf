//! From a worker to the caller: events that never make the worker wait.
//!
//! What follows itself (positions in the queue, denoising steps) replaces its predecessor when that has not been
//! read yet. An edit has a fixed number of other events, so that a caller who does not read costs a bounded
//! amount of memory, and still gets the result.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use smartedit_core::picture::Format;
use smartedit_core::stage::StageKind;
use tokio::sync::Notify;

use super::{Recorded, Timings};
use crate::failure::Failure;

/// What a caller reads.
#[derive(Debug)]
pub enum Event {
    /// Something happened on the way.
    Progress(Progress),
    /// The edit is over. Always the last event.
    Finished(Result<Box<Finished>, Failure>),
}

/// Something that happens on the way.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// The request is valid and will be worked on.
    Accepted,
    /// So many requests are ahead of it.
    Queued(usize),
    /// A stage begins.
    StageStarted {
        /// The stage.
        stage: StageKind,
        /// Time since arrival.
        elapsed: Duration,
    },
    /// A stage has done all it had to.
    StageFinished {
        /// The stage.
        stage: StageKind,
        /// How long it took.
        duration: Duration,
        /// Time since arrival.
        elapsed: Duration,
        /// Whether its result was kept from an earlier request, so that it has not run.
        cached: bool,
    },
    /// A denoising step is done.
    Step {
        /// Steps done.
        done: usize,
        /// Steps in all.
        total: usize,
        /// The latest preview that has not been read.
        preview: Option<Preview>,
    },
    /// The language model's reply.
    Reply(String),
}

/// A picture in the middle of the denoising loop.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// An encoded file.
    pub image: Bytes,
    /// Its format.
    pub format: Format,
    /// Steps done when it was taken.
    pub step: usize,
}

/// An edited picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// An encoded file.
    pub image: Bytes,
    /// Its format.
    pub format: Format,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// The language model's reply.
    pub reply: Option<String>,
    /// How long it took.
    pub timings: Timings,
    /// What was kept of it, where that was asked for.
    pub recorded: Option<Recorded>,
}

#[derive(Default)]
struct Pending {
    events: VecDeque<Event>,
    over: bool,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears all that a request's worker reports, also what its caller never reads. Called by the worker: it must not wait.
pub trait Observer: Send + Sync {
    /// Something happened on the way.
    fn progress(&self, progress: &Progress);

    /// The edit is over.
    fn finished(&self, outcome: Result<&Finished, &Failure>);
}

/// A channel for the events of one request: its two ends.
pub fn channel() -> (Reporter, Events) {
    let shared = Arc::new(Shared::default());
    (Reporter { shared: shared.clone(), observers: Vec::new() }, Events(shared))
}

/// The worker's end. Dropped without a result, it reports a failure.
pub struct Reporter {
    shared: Arc<Shared>,
    observers: Vec<Box<dyn Observer>>,
}

impl Reporter {
    /// The same, heard by one more observer, before the caller can read it.
    pub fn observed_by(mut self, observer: impl Observer + 'static) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// Reports progress; never waits.
    pub fn report(&self, progress: Progress) {
        let mut pending = self.shared.lock();
        if pending.over {
            return;
        }
        for observer in &self.observers {
            observer.progress(&progress);
        }
        match (pending.events.back_mut(), progress) {
            (Some(Event::Progress(last @ Progress::Queued(_))), progress @ Progress::Queued(_)) => {
                *last = progress;
            }
            (
                Some(Event::Progress(Progress::Step { done, total, preview })),
                Progress::Step { done: newer, total: newer_total, preview: newer_preview },
            ) => {
                (*done, *total) = (newer, newer_total);
                *preview = newer_preview.or(preview.take());
            }
            (_, progress) => pending.events.push_back(Event::Progress(progress)),
        }
        drop(pending);
        self.shared.changed.notify_one();
    }

    /// Reports the end; only the first one counts.
    pub fn finish(&self, outcome: Result<Finished, Failure>) {
        let mut pending = self.shared.lock();
        if !pending.over {
            pending.over = true;
            for observer in &self.observers {
                observer.finished(outcome.as_ref());
            }
            pending.events.push_back(Event::Finished(outcome.map(Box::new)));
        }
        drop(pending);
        self.shared.changed.notify_one();
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.finish(Err(Failure::Lost));
    }
}

/// The caller's end.
pub struct Events(Arc<Shared>);

impl Events {
    /// The next event; `None` after the last. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let changed = self.0.changed.notified();
            {
                let mut pending = self.0.lock();
                if let Some(event) = pending.events.pop_front() {
                    return Some(event);
                }
                if pending.over {
                    return None;
                }
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(done: usize, preview: Option<&'static str>) -> Progress {
        let preview = preview.map(|text| Preview {
            image: Bytes::from_static(text.as_bytes()),
            format: Format::Jpeg,
            step: done,
        });
        Progress::Step { done, total: 1_000_000, preview }
    }

    async fn read(events: &mut Events) -> Vec<Event> {
        let mut read = Vec::new();
        while let Some(event) = events.next().await {
            read.push(event);
        }
        read
    }

    #[tokio::test]
    async fn a_caller_who_does_not_read_costs_one_step_and_gets_the_result() {
        let (reporter, mut events) = channel();
        for done in 1..=1_000_000 {
            reporter.report(step(done, (done == 10).then_some("preview")));
        }
        assert_eq!(events.0.lock().events.len(), 1);
        reporter.finish(Err(Failure::Lost));
        let read = read(&mut events).await;
        let [Event::Progress(Progress::Step { done: 1_000_000, preview: Some(preview), .. }), last] =
            read.as_slice()
        else {
            panic!("{read:?}");
        };
        assert_eq!(preview.step, 10);
        assert!(matches!(last, Event::Finished(_)));
    }

    #[tokio::test]
    async fn stages_are_never_dropped() {
        let (reporter, mut events) = channel();
        let (stage, elapsed) = (StageKind::Denoiser, Duration::ZERO);
        reporter.report(Progress::Queued(2));
        reporter.report(Progress::Queued(1));
        reporter.report(Progress::StageStarted { stage, elapsed });
        reporter.report(step(1, None));
        reporter.report(step(2, None));
        reporter.report(Progress::StageFinished { stage, duration: elapsed, elapsed, cached: false });
        drop(reporter);
        let read = read(&mut events).await;
        assert_eq!(read.len(), 5, "{read:?}");
        assert!(matches!(read[0], Event::Progress(Progress::Queued(1))));
        assert!(matches!(read[2], Event::Progress(Progress::Step { done: 2, .. })));
    }

    #[tokio::test]
    async fn a_reporter_that_is_lost_is_a_failure() {
        let (reporter, mut events) = channel();
        drop(reporter);
        assert!(matches!(read(&mut events).await.as_slice(), [Event::Finished(Err(Failure::Lost))]));
    }
}
