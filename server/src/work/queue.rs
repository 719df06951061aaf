//! A bounded queue in front of the workers of a deployment.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Job, Progress};
use crate::failure::Failure;

/// What a caller is told to wait before trying again while no edit has been measured.
const UNMEASURED: Duration = Duration::from_secs(1);

/// Weight of the newest edit in the mean service time.
const NEWEST: f64 = 0.3;

/// A bounded queue in front of the workers of a deployment.
pub struct Queue {
    capacity: usize,
    capacity_bytes: usize,
    workers: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(Instant, Job)>,
    bytes: usize,
    running: usize,
    closed: bool,
    service_seconds: Option<f64>,
}

/// The queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// When there should be room.
    pub retry_after: Duration,
}

impl Queue {
    /// A queue for so many waiting jobs, and bytes of them, in front of so many workers.
    pub fn new(capacity: usize, capacity_bytes: usize, workers: usize) -> Self {
        Self {
            capacity,
            capacity_bytes,
            workers: workers.max(1),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Appends a job and reports its position to it.
    ///
    /// # Errors
    ///
    /// [`Full`] if as many jobs or bytes wait as may; the job is dropped.
    pub fn push(&self, job: Job) -> Result<(), Full> {
        let mut state = self.lock();
        state.prune();
        let (ahead, bytes) = (state.waiting.len(), job.bytes());
        let idle = self.workers.saturating_sub(state.running);
        if ahead >= self.capacity.saturating_add(idle) || state.bytes + bytes > self.capacity_bytes {
            let full = Full { retry_after: self.retry_after(&state) };
            drop(state);
            return Err(full);
        }
        job.reporter.report(Progress::Queued(ahead));
        state.bytes += bytes;
        state.waiting.push_back((Instant::now(), job));
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for the next job that is still wanted, and how long it has waited; `None` when the queue is closed.
    pub(super) fn next(&self) -> Option<(Duration, Job)> {
        let mut state = self.lock();
        loop {
            state.prune();
            if let Some((since, job)) = state.waiting.pop_front() {
                state.bytes -= job.bytes();
                state.running += 1;
                state.report_positions();
                return Some((since.elapsed(), job));
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says that a job which `next` returned is over, and how long it took if it went to its end.
    pub(super) fn done(&self, service: Option<Duration>) {
        let mut state = self.lock();
        state.running = state.running.saturating_sub(1);
        if let Some(newest) = service.map(|service| service.as_secs_f64()) {
            let mean = state.service_seconds.map_or(newest, |mean| mean + NEWEST * (newest - mean));
            state.service_seconds = Some(mean);
        }
    }

    /// Lets go of waiting jobs that are no longer wanted.
    pub fn prune(&self) {
        self.lock().prune();
    }

    /// Makes workers end once nothing waits.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Jobs waiting, and jobs being worked on.
    pub fn load(&self) -> (usize, usize) {
        let state = self.lock();
        (state.waiting.len(), state.running)
    }

    /// Bytes of all jobs waiting.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Whether a job pushed now would be taken.
    pub fn has_room(&self) -> bool {
        let state = self.lock();
        let idle = self.workers.saturating_sub(state.running);
        state.waiting.len() < self.capacity.saturating_add(idle)
    }

    /// When a worker should be through with what it does.
    fn retry_after(&self, state: &State) -> Duration {
        let seconds = state.service_seconds.map(|mean| mean / self.workers as f64);
        seconds.map_or(UNMEASURED, Duration::from_secs_f64).max(Duration::from_millis(50))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn prune(&mut self) {
        let before = self.waiting.len();
        let mut bytes = 0;
        self.waiting.retain(|(_, job)| {
            let Some(reason) = job.stop.reason() else {
                bytes += job.bytes();
                return true;
            };
            let failure = Failure::from(reason);
            job.span.in_scope(|| tracing::info!(outcome = failure.reason(), "edit left the queue"));
            job.reporter.finish(Err(failure));
            false
        });
        self.bytes = bytes;
        if self.waiting.len() < before {
            self.report_positions();
        }
    }

    fn report_positions(&self) {
        for (ahead, (_, job)) in self.waiting.iter().enumerate() {
            job.reporter.report(Progress::Queued(ahead));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Order, order};
    use super::super::{Event, StopReason};
    use super::*;

    fn queue(capacity: usize) -> Queue {
        Queue::new(capacity, 1 << 20, 1)
    }

    /// A queue whose only worker is busy.
    fn busy(capacity: usize) -> Queue {
        let queue = queue(capacity);
        queue.push(order(1).job).unwrap();
        queue.next().unwrap();
        queue
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_and_says_when_to_come_back() {
        let queue = busy(2);
        let kept = [order(1), order(1)].map(|order| {
            queue.push(order.job).unwrap();
            order.events
        });
        assert_eq!(queue.push(order(1).job), Err(Full { retry_after: UNMEASURED }));
        assert!(!queue.has_room());
        queue.done(Some(Duration::from_secs(8)));
        queue.next().unwrap();
        queue.push(order(1).job).unwrap();
        assert_eq!(queue.push(order(1).job), Err(Full { retry_after: Duration::from_secs(8) }));
        drop(kept);
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_without_room_still_serves_idle_workers() {
        let queue = queue(0);
        queue.push(order(1).job).unwrap();
        queue.next().unwrap();
        assert!(queue.push(order(1).job).is_err());
        queue.done(None);
        assert!(queue.push(order(1).job).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_bounded_too() {
        let queue = Queue::new(10, 1000, 1);
        queue.push(order(600).job).unwrap();
        assert!(queue.push(order(600).job).is_err());
        queue.next().unwrap();
        assert!(queue.push(order(600).job).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn callers_who_left_make_room_and_the_others_move_up() {
        let queue = busy(2);
        let Order { job, stop, .. } = order(1);
        queue.push(job).unwrap();
        let Order { job, mut events, .. } = order(1);
        queue.push(job).unwrap();
        assert!(matches!(events.next().await, Some(Event::Progress(Progress::Queued(1)))));
        stop.set(StopReason::Abandoned);
        queue.prune();
        assert!(matches!(events.next().await, Some(Event::Progress(Progress::Queued(0)))));
        assert_eq!(queue.load(), (1, 1));
        queue.push(order(1).job).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_passes_in_the_queue_is_told_and_the_job_skipped() {
        let queue = busy(4);
        let Order { job, mut events, .. } = order(1).due(Duration::from_secs(5));
        queue.push(job).unwrap();
        let Order { job, .. } = order(7);
        queue.push(job).unwrap();
        tokio::time::advance(Duration::from_secs(6)).await;
        queue.done(None);
        assert_eq!(queue.next().unwrap().1.bytes(), 7);
        assert!(matches!(events.next().await, Some(Event::Progress(Progress::Queued(0)))));
        assert!(matches!(events.next().await, Some(Event::Finished(Err(Failure::DeadlineExceeded)))));
    }

    #[test]
    fn a_closed_queue_ends_its_workers() {
        let queue = queue(1);
        queue.close();
        assert!(queue.next().is_none());
    }
}
