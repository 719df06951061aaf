//! The way to a deployment's stages beside its queue of edits: threads that run one stage at a time each, and a bounded
//! number and amount of runs that wait for their turn in the order of their arrival.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::Builder;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::config::Limits;
use crate::deployment::Deployment;
use crate::failure::Failure;
use crate::work::panic_words;

/// The lanes of all deployments, by name and version. That of a deployment which is gone is closed when the next is opened.
#[derive(Default)]
pub(super) struct Lanes(DashMap<(String, u64), (Weak<Deployment>, Arc<Lane>)>);

impl Lanes {
    /// The lane of a deployment.
    ///
    /// # Errors
    ///
    /// Its threads cannot be started.
    pub(super) fn of(&self, deployment: &Arc<Deployment>, limits: &Limits) -> io::Result<Arc<Lane>> {
        let key = (deployment.name().to_owned(), deployment.version());
        if let Some(found) = self.0.get(&key) {
            return Ok(found.1.clone());
        }
        self.0.retain(|_, (deployment, _)| deployment.strong_count() > 0);
        let new = || {
            let instances = deployment.config().instances;
            let lane = Lane::new(deployment.name(), instances, limits.max_queue, limits.max_queue_bytes);
            lane.map(|lane| (Arc::downgrade(deployment), Arc::new(lane)))
        };
        let lane = self.0.entry(key).or_try_insert_with(new)?;
        Ok(lane.1.clone())
    }
}

/// The way to a deployment's stages.
pub(super) struct Lane {
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
    kibibytes: Arc<Semaphore>,
    /// To the threads. There is room for one run of each, so that whoever has a turn need not wait.
    runs: SyncSender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

/// A run that waits for its turn.
pub(super) struct Place {
    turns: Arc<Semaphore>,
    runs: SyncSender<Job>,
    _place: OwnedSemaphorePermit,
    _kibibytes: OwnedSemaphorePermit,
}

/// A run whose turn it is. Dropped, it is the next one's.
pub(super) struct Turn {
    place: Place,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Lane {
    fn new(deployment: &str, instances: usize, max_ahead: usize, max_bytes: usize) -> io::Result<Self> {
        let instances = instances.max(1);
        let (runs, received) = sync_channel::<Job>(instances);
        let received = Arc::new(Mutex::new(received));
        for index in 0..instances {
            let received = received.clone();
            Builder::new().name(format!("{deployment}-stage-{index}")).spawn(move || serve(&received))?;
        }
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Ok(Self {
            turns: semaphore(instances),
            // As many as may be ahead of a run, at work or waiting, and itself.
            places: semaphore(max_ahead.saturating_add(1).max(instances)),
            kibibytes: semaphore(max_bytes / 1024),
            runs,
        })
    }

    /// A place for a run with inputs of so many bytes, if there is one.
    pub(super) fn enter(&self, bytes: usize) -> Option<Place> {
        let kibibytes = u32::try_from(bytes.div_ceil(1024)).ok()?;
        Some(Place {
            turns: self.turns.clone(),
            runs: self.runs.clone(),
            _place: self.places.clone().try_acquire_owned().ok()?,
            _kibibytes: self.kibibytes.clone().try_acquire_many_owned(kibibytes).ok()?,
        })
    }
}

impl Place {
    /// Waits for its turn.
    pub(super) async fn turn(self) -> Turn {
        // The semaphore is never closed.
        let turn = self.turns.clone().acquire_owned().await.ok();
        Turn { place: self, _turn: turn }
    }
}

impl Turn {
    /// Runs something on a thread of the lane, to its end: whoever no longer waits for it leaves its turn and its place to it.
    ///
    /// # Errors
    ///
    /// [`Failure::Panicked`]; [`Failure::Lost`] if there is no thread.
    pub(super) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let runs = self.place.runs.clone();
        let job = move || {
            // Nothing of the work outlives its failure.
            let outcome = catch_unwind(AssertUnwindSafe(work));
            drop(self);
            let _ = reply.send(outcome.map_err(|panic| Failure::Panicked(panic_words(panic.as_ref()))));
        };
        runs.try_send(Box::new(job)).map_err(|_| Failure::Lost)?;
        answer.await.unwrap_or(Err(Failure::Lost))
    }
}

/// Does what is received until there is no more lane.
fn serve(received: &Mutex<Receiver<Job>>) {
    loop {
        let next = received.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(max_ahead: usize, max_bytes: usize) -> Lane {
        Lane::new("test", 1, max_ahead, max_bytes).unwrap()
    }

    #[tokio::test]
    async fn places_are_bounded_and_turns_pass_on() {
        let lane = lane(1, 1 << 20);
        let first = lane.enter(1).unwrap().turn().await;
        let second = tokio::spawn(lane.enter(1).unwrap().turn());
        assert!(lane.enter(1).is_none());
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        assert_eq!(first.run(|| 7).await.unwrap(), 7);
        let second = second.await.unwrap();
        let third = lane.enter(1).unwrap();
        drop(second);
        third.turn().await;
    }

    #[tokio::test]
    async fn a_panic_fails_its_own_run_alone() {
        let lane = lane(1, 1 << 20);
        let turn = lane.enter(1).unwrap().turn().await;
        let failure = turn.run(|| panic!("as the test says")).await.unwrap_err();
        assert!(matches!(&failure, Failure::Panicked(words) if words == "as the test says"), "{failure}");
        let turn = lane.enter(1).unwrap().turn().await;
        assert_eq!(turn.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn who_no_longer_waits_leaves_the_turn_to_the_run() {
        let lane = lane(1, 1 << 20);
        let (go, wait) = sync_channel(1);
        let turn = lane.enter(1).unwrap().turn().await;
        let mut run = Box::pin(turn.run(move || wait.recv()));
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(run.as_mut().poll(cx).is_pending())).await);
        drop(run);
        let next = tokio::spawn(lane.enter(1).unwrap().turn());
        tokio::task::yield_now().await;
        assert!(!next.is_finished());
        go.send(()).unwrap();
        next.await.unwrap();
    }

    #[test]
    fn bytes_are_bounded_too() {
        let lane = lane(8, 4096);
        let held = lane.enter(3000);
        assert!(held.is_some());
        assert!(lane.enter(2000).is_none());
        assert!(lane.enter(1024).is_some());
        drop(held);
        assert!(lane.enter(4096).is_some());
        assert!(lane.enter(usize::MAX).is_none());
    }
}
