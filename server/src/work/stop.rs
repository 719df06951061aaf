//! Why and whether a request's work is to stop.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use smartedit_core::interest::{Interest, Interests};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A request's own stop signal; cloning shares it.
#[derive(Debug, Clone)]
pub struct Stop(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reason: OnceLock<StopReason>,
    deadline: Option<Instant>,
    given: CancellationToken,
}

/// Why a request's work stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The caller disconnected or cancelled.
    Abandoned,
    /// The caller's deadline passed.
    DeadlineExceeded,
    /// The server shuts down and the time to finish ran out.
    ShuttingDown,
}

impl Stop {
    /// A signal that is given by itself when the deadline passes, if there is one.
    pub fn new(deadline: Option<Instant>) -> Self {
        Self(Arc::new(Inner { reason: OnceLock::new(), deadline, given: CancellationToken::new() }))
    }

    /// Gives the signal. The first reason stands.
    pub fn set(&self, reason: StopReason) {
        // A caller whose deadline passes hangs up too; the deadline is what it is to be told.
        let reason = if self.late() { StopReason::DeadlineExceeded } else { reason };
        self.0.reason.get_or_init(|| reason);
        self.0.given.cancel();
    }

    /// Why to stop; `None`: go on.
    pub fn reason(&self) -> Option<StopReason> {
        let given = self.0.reason.get().copied();
        given.or_else(|| self.late().then_some(StopReason::DeadlineExceeded))
    }

    /// The time until the deadline, if there is one.
    pub fn remaining(&self) -> Option<Duration> {
        self.0.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The request, as one who waits for what is computed for it.
    pub fn interests(&self) -> Interests {
        [Arc::new(self.clone()) as Arc<dyn Interest>].into_iter().collect()
    }

    fn late(&self) -> bool {
        self.0.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

impl Interest for Stop {
    fn deadline(&self) -> Option<std::time::Instant> {
        self.0.deadline.map(Instant::into_std)
    }

    fn lost(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.0.given.clone().cancelled_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_gives_the_signal_by_itself() {
        let stop = Stop::new(Some(Instant::now() + Duration::from_secs(2)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(stop.reason(), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(stop.reason(), Some(StopReason::DeadlineExceeded));
        stop.set(StopReason::Abandoned);
        assert_eq!(stop.reason(), Some(StopReason::DeadlineExceeded));
    }

    #[tokio::test(start_paused = true)]
    async fn who_computes_for_a_request_is_told_when_it_stops() {
        let deadline = Instant::now() + Duration::from_secs(2);
        let stop = Stop::new(Some(deadline));
        let interests = stop.interests();
        assert_eq!(interests.deadline(), Some(deadline.into_std()));
        let lost = tokio::spawn(async move { interests.lost().await });
        tokio::task::yield_now().await;
        assert!(!lost.is_finished());
        stop.set(StopReason::Abandoned);
        lost.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_reason_stands() {
        let stop = Stop::new(None);
        stop.set(StopReason::Abandoned);
        stop.set(StopReason::ShuttingDown);
        assert_eq!(stop.reason(), Some(StopReason::Abandoned));
    }
}
