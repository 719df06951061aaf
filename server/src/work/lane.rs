//! The way to a deployment's stages beside its queue of edits: threads that run one stage at a time each, and a bounded
//! number and amount of runs that wait for their turn in the order of their arrival.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::panic_words;
use super::schedule::Rules;
use crate::failure::Failure;

/// The way to a deployment's stages. Dropped, its threads end with what they run.
pub struct Lane {
    /// Runs at the same time.
    workers: usize,
    /// Runs at work and waiting, at most.
    capacity: usize,
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
    kibibytes: Arc<Semaphore>,
    /// To the threads. There is room for one run of each, so that whoever has a turn need not wait.
    runs: SyncSender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

/// A run that waits for its turn.
pub struct Place {
    turns: Arc<Semaphore>,
    runs: SyncSender<Job>,
    _place: OwnedSemaphorePermit,
    _kibibytes: OwnedSemaphorePermit,
}

/// A run whose turn it is. Dropped, it is the next one's.
pub struct Turn {
    place: Place,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Lane {
    /// Starts the threads of a deployment with these rules.
    ///
    /// # Errors
    ///
    /// They cannot be started.
    pub fn open(deployment: &str, rules: &Rules) -> io::Result<Self> {
        let workers = rules.workers.clamp(1, Semaphore::MAX_PERMITS);
        // As many as may be ahead of a run, at work or waiting, and itself.
        let capacity = rules.max_queue.saturating_add(1).clamp(workers, Semaphore::MAX_PERMITS);
        let (runs, received) = sync_channel::<Job>(workers);
        let received = Arc::new(Mutex::new(received));
        for index in 0..workers {
            let received = received.clone();
            Builder::new().name(format!("{deployment}-stage-{index}")).spawn(move || serve(&received))?;
        }
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Ok(Self {
            workers,
            capacity,
            turns: semaphore(workers),
            places: semaphore(capacity),
            kibibytes: semaphore((rules.max_queue_bytes / 1024).min(Semaphore::MAX_PERMITS)),
            runs,
        })
    }

    /// Runs that wait for their turn.
    pub fn waiting(&self) -> usize {
        let (places, turns) = (self.places.available_permits(), self.turns.available_permits());
        (self.capacity - places).saturating_sub(self.workers - turns)
    }

    /// A place for a run with inputs of so many bytes, if there is one.
    pub fn enter(&self, bytes: usize) -> Option<Place> {
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
    pub async fn turn(self) -> Turn {
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
    pub async fn run<T: Send + 'static>(
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
    use super::super::testing::one_at_a_time;
    use super::*;

    fn lane(max_queue: usize, max_queue_bytes: usize) -> Lane {
        Lane::open("test", &one_at_a_time(max_queue, max_queue_bytes)).unwrap()
    }

    #[tokio::test]
    async fn places_are_bounded_and_turns_pass_on() {
        let lane = lane(1, 1 << 20);
        assert_eq!(lane.waiting(), 0);
        let first = lane.enter(1).unwrap().turn().await;
        assert_eq!(lane.waiting(), 0);
        let second = tokio::spawn(lane.enter(1).unwrap().turn());
        assert!(lane.enter(1).is_none());
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        assert_eq!(lane.waiting(), 1);
        assert_eq!(first.run(|| 7).await.unwrap(), 7);
        let second = second.await.unwrap();
        let third = lane.enter(1).unwrap();
        assert_eq!(lane.waiting(), 1);
        drop(second);
        let third = third.turn().await;
        assert_eq!(lane.waiting(), 0);
        drop(third);
        assert_eq!(lane.waiting(), 0);
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
