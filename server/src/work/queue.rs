//! What a deployment has to do: edits that wait and edits at work, for its workers to do.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::conclude::conclude;
use super::run::Run;
use super::schedule::{Counters, Group, Refusal, Rules, Schedule, Task, Working};
use super::{Finished, Job, Progress};
use crate::failure::Failure;

/// What a deployment has to do, for its workers.
pub struct Queue {
    state: Mutex<State>,
    /// One for each worker.
    bells: Vec<Condvar>,
}

struct State {
    schedule: Schedule<Run>,
    /// Workers that wait for something to do, the one that worked last at the end.
    idle: Vec<usize>,
    closed: bool,
}

/// An edit that is over, and how it ended.
type Over = (Run, Result<Finished, Failure>);

impl Queue {
    /// A queue for so many workers, and whatever else the rules say.
    pub fn new(rules: Rules) -> Self {
        let bells = (0..rules.workers.max(1)).map(|_| Condvar::new()).collect();
        let state = State { schedule: Schedule::new(rules), idle: Vec::new(), closed: false };
        Self { state: Mutex::new(state), bells }
    }

    /// Puts a job in line and reports its position to it.
    ///
    /// # Errors
    ///
    /// The job is refused, and dropped.
    pub fn push(&self, job: Job) -> Result<(), Refusal> {
        self.prune();
        self.push_to(self.lock(), job)
    }

    /// Puts a job in line if that is empty and the job can be begun at once; tells whether it did. A job that is not put
    /// in line is dropped.
    ///
    /// # Errors
    ///
    /// As [`Self::push`].
    pub fn push_if_free(&self, job: Job) -> Result<bool, Refusal> {
        self.prune();
        let state = self.lock();
        if !state.schedule.is_free() {
            drop(state);
            return Ok(false);
        }
        self.push_to(state, job).map(|()| true)
    }

    fn push_to(&self, mut state: MutexGuard<'_, State>, job: Job) -> Result<(), Refusal> {
        let (demand, allowed) = (job.demand(), job.stop.remaining());
        if let Err((refusal, run)) = state.schedule.push(demand, allowed, Instant::now(), Run::new(job)) {
            drop(state);
            drop(run);
            return Err(refusal);
        }
        state.report_positions();
        self.wake(&mut state);
        Ok(())
    }

    /// Lets go of edits that are no longer wanted, unless a worker has them.
    pub fn prune(&self) {
        let mut state = self.lock();
        let over = state.remove_unwanted();
        if !over.is_empty() {
            self.wake(&mut state);
        }
        drop(state);
        end(over);
    }

    /// Makes workers end once nothing is left to do.
    pub fn close(&self) {
        self.lock().closed = true;
        self.bells.iter().for_each(Condvar::notify_all);
    }

    /// Edits waiting, and edits at work.
    pub fn load(&self) -> (usize, usize) {
        self.lock().schedule.load()
    }

    /// Bytes of all edits waiting.
    pub fn bytes(&self) -> usize {
        self.lock().schedule.bytes()
    }

    /// Whether a job pushed now would be taken, if it is not too large and not too urgent.
    pub fn has_room(&self) -> bool {
        self.lock().schedule.has_room(0)
    }

    /// What has been done since the beginning.
    pub fn counters(&self) -> Counters {
        self.lock().schedule.counters().clone()
    }

    /// Waits for something that the worker of this number can do; `None` when the queue is closed.
    pub(super) fn next(&self, worker: usize) -> Option<Task<Run>> {
        let mut state = self.lock();
        loop {
            let over = state.remove_unwanted();
            if !over.is_empty() {
                drop(state);
                end(over);
                state = self.lock();
                continue;
            }
            let now = Instant::now();
            let until = match state.schedule.next(now) {
                Ok((mut task, queued)) => {
                    if let (Task::Unit(working), Some(queued)) = (&mut task, queued) {
                        working.item.queued = queued;
                        state.report_positions();
                    }
                    self.wake(&mut state);
                    return Some(task);
                }
                Err(until) => until,
            };
            if state.closed && until.is_none() {
                return None;
            }
            state = self.sleep(state, worker, until);
        }
    }

    /// Takes back an edit of which a unit of work is done. An edit that is over is handed out.
    pub(super) fn unit_done(
        &self,
        working: Working<Run>,
        outcome: Result<Option<Finished>, Failure>,
    ) -> Vec<Over> {
        let mut state = self.lock();
        state.schedule.unit_done();
        state.put_back(working, outcome).into_iter().collect()
    }

    /// Takes back edits of which a denoising step is done, and how long that took, if it went well. Edits that are over
    /// are handed out.
    pub(super) fn run_done(
        &self,
        group: Option<Group>,
        edits: Vec<Working<Run>>,
        outcomes: Vec<Result<Option<Finished>, Failure>>,
        took: Option<Duration>,
    ) -> Vec<Over> {
        let mut state = self.lock();
        state.schedule.run_done(group, &edits, took);
        edits.into_iter().zip(outcomes).filter_map(|(edit, outcome)| state.put_back(edit, outcome)).collect()
    }

    /// Wakes a worker, if there is something to do. The one that worked last has what it needs at hand.
    fn wake(&self, state: &mut State) {
        if state.schedule.has_task(Instant::now())
            && let Some(bell) = state.idle.pop().and_then(|worker| self.bells.get(worker))
        {
            bell.notify_one();
        }
    }

    fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        worker: usize,
        until: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        let Some(bell) = self.bells.get(worker) else { return state };
        state.idle.push(worker);
        let mut state = match until {
            Some(until) => {
                let timeout = until.saturating_duration_since(Instant::now());
                bell.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0
            }
            None => bell.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.idle.retain(|idle| *idle != worker);
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put_back(
        &mut self,
        working: Working<Run>,
        outcome: Result<Option<Finished>, Failure>,
    ) -> Option<Over> {
        let (outcome, rest) = match outcome {
            Ok(None) => {
                let need = working.item.need();
                self.schedule.put_back(working, need, Instant::now());
                return None;
            }
            Ok(Some(finished)) => (Ok(finished), Some(working.item.rest)),
            Err(failure) => (Err(failure), None),
        };
        Some((self.schedule.finished(working, rest), outcome))
    }

    /// Takes out edits whose stop signal was given.
    fn remove_unwanted(&mut self) -> Vec<Over> {
        let (waited, begun) = self.schedule.remove_if(|run| run.job.stop.reason().is_some());
        if !waited.is_empty() {
            self.report_positions();
        }
        let over = |run: Run| {
            let reason = run.job.stop.reason()?;
            Some((run, Err(reason.into())))
        };
        waited.into_iter().chain(begun).filter_map(over).collect()
    }

    fn report_positions(&self) {
        for (ahead, run) in self.schedule.waiting().enumerate() {
            if run.position.replace(Some(ahead)) != Some(ahead) {
                run.job.reporter.report(Progress::Queued(ahead));
            }
        }
    }
}

fn end(over: Vec<Over>) {
    over.into_iter().for_each(|(run, outcome)| conclude(run, outcome));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Order, one_at_a_time, order};
    use super::super::{Event, StopReason};
    use super::*;

    fn queue(capacity: usize) -> Queue {
        Queue::new(one_at_a_time(capacity, 1 << 20))
    }

    /// The only worker's next edit, which is at its beginning.
    fn begun(queue: &Queue) -> Working<Run> {
        match queue.next(0) {
            Some(Task::Unit(working)) => working,
            other => panic!("{other:?}"),
        }
    }

    /// A queue whose only worker is busy, and what it is busy with.
    fn busy(capacity: usize) -> (Queue, Working<Run>) {
        let queue = queue(capacity);
        queue.push(order(1).job).unwrap();
        let working = begun(&queue);
        (queue, working)
    }

    /// Ends what a worker is busy with.
    fn over(queue: &Queue, working: Working<Run>) {
        assert_eq!(queue.unit_done(working, Err(Failure::Lost)).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_and_says_when_to_come_back() {
        let (queue, working) = busy(2);
        let kept = [order(1), order(1)].map(|order| {
            queue.push(order.job).unwrap();
            order.events
        });
        let refusal = queue.push(order(1).job).unwrap_err();
        assert!(matches!(refusal, Refusal::Full { .. }), "{refusal:?}");
        assert!(!queue.has_room());
        over(&queue, working);
        begun(&queue);
        queue.push(order(1).job).unwrap();
        assert!(queue.push(order(1).job).is_err());
        assert_eq!(queue.counters().refused_full, 2);
        drop(kept);
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_without_room_still_serves_idle_workers() {
        let (queue, working) = busy(0);
        assert!(queue.push(order(1).job).is_err());
        over(&queue, working);
        assert!(queue.push(order(1).job).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_must_not_wait_is_taken_by_idle_workers_alone() {
        let (queue, working) = busy(4);
        assert_eq!(queue.push_if_free(order(1).job), Ok(false));
        assert_eq!(queue.load(), (0, 1));
        over(&queue, working);
        assert_eq!(queue.push_if_free(order(1).job), Ok(true));
        // It has been put in line, and no worker has looked yet.
        assert_eq!(queue.push_if_free(order(1).job), Ok(false));
        assert_eq!(queue.counters().refused_full, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_bounded_too() {
        let queue = Queue::new(one_at_a_time(10, 1000));
        queue.push(order(600).job).unwrap();
        assert!(queue.push(order(600).job).is_err());
        begun(&queue);
        assert!(queue.push(order(600).job).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn callers_who_left_make_room_and_the_others_move_up() {
        let (queue, _working) = busy(2);
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
        let (queue, working) = busy(4);
        let Order { job, mut events, .. } = order(1).due(Duration::from_secs(5));
        queue.push(job).unwrap();
        let Order { job, .. } = order(7);
        queue.push(job).unwrap();
        tokio::time::advance(Duration::from_secs(6)).await;
        over(&queue, working);
        assert_eq!(begun(&queue).item.job.bytes(), 7);
        assert!(matches!(events.next().await, Some(Event::Progress(Progress::Queued(0)))));
        assert!(matches!(events.next().await, Some(Event::Finished(Err(Failure::DeadlineExceeded)))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_edit_at_work_that_no_worker_has_is_let_go_at_once() {
        let (queue, working) = busy(4);
        let stop = working.item.job.stop.clone();
        assert!(queue.unit_done(working, Ok(None)).is_empty());
        assert_eq!(queue.load(), (0, 1));
        stop.set(StopReason::Abandoned);
        queue.prune();
        assert_eq!(queue.load(), (0, 0));
    }

    #[test]
    fn a_closed_queue_ends_its_workers() {
        let queue = queue(1);
        queue.close();
        assert!(queue.next(0).is_none());
    }
}
