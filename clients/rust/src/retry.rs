//! When a call is tried again.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use crate::{Error, Result};

/// How often and when a call that found the server unavailable is tried again. No other failure is retried:
/// the server may have begun the work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; 0 and 1 both mean that nothing is retried.
    pub attempts: u32,
    /// Upper bound of the delay after the first attempt; it doubles with each further one.
    pub initial: Duration,
    /// Upper bound of any delay, also of one that the server asks for.
    pub max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 5, initial: Duration::from_millis(200), max: Duration::from_secs(10) }
    }
}

impl RetryPolicy {
    /// The delay before the attempt that follows `failed` failed ones: a random part of the exponential bound,
    /// on top of what the server asked for.
    fn delay(&self, failed: u32, asked: Option<Duration>) -> Duration {
        let bound = self.initial.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(self.max);
        let jittered = bound.mul_f64(fastrand::f64());
        asked.unwrap_or(bound / 2).saturating_add(jittered).min(self.max)
    }

    /// Calls `attempt` until it succeeds, fails otherwise than with UNAVAILABLE, the attempts are used up, or the
    /// next one would begin after the deadline. Passes each attempt the time it has left.
    pub(crate) async fn run<T, F: Future<Output = Result<T>>>(
        &self,
        deadline: Option<Instant>,
        mut attempt: impl FnMut(Option<Duration>) -> F,
    ) -> Result<T> {
        let mut failed = 0;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(Error::deadline());
            }
            let error = match bounded(deadline, attempt(left)).await {
                Err(error) if error.code() == Some(Code::Unavailable) => error,
                outcome => return outcome,
            };
            failed += 1;
            let delay = self.delay(failed, error.rejection().and_then(|rejection| rejection.retry_delay));
            let late = deadline.is_some_and(|deadline| Instant::now() + delay >= deadline);
            if failed >= self.attempts || late {
                return Err(error);
            }
            tokio::time::sleep(delay).await;
        }
    }
}

/// Bounds a call by a deadline, and calls a deadline by its name: tonic's own reads as CANCELLED.
async fn bounded<T>(deadline: Option<Instant>, call: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(deadline) = deadline else { return call.await };
    match tokio::time::timeout_at(deadline, call).await {
        Err(_) => Err(Error::deadline()),
        Ok(Err(error)) if error.code() == Some(Code::Cancelled) && Instant::now() >= deadline => {
            Err(Error::deadline())
        }
        Ok(outcome) => outcome,
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    fn unavailable() -> Error {
        Status::unavailable("draining").into()
    }

    #[tokio::test(start_paused = true)]
    async fn unavailable_is_retried_until_it_succeeds() {
        let mut calls = 0;
        let outcome = RetryPolicy::default()
            .run(None, |_| {
                calls += 1;
                std::future::ready(if calls < 3 { Err(unavailable()) } else { Ok(calls) })
            })
            .await;
        assert_eq!(outcome.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_bounded() {
        let mut calls = 0;
        let policy = RetryPolicy { attempts: 4, ..RetryPolicy::default() };
        let outcome: Result<()> = policy
            .run(None, |_| {
                calls += 1;
                std::future::ready(Err(unavailable()))
            })
            .await;
        assert_eq!((outcome.unwrap_err().code(), calls), (Some(Code::Unavailable), 4));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_else_is_retried() {
        let mut calls = 0;
        let outcome: Result<()> = RetryPolicy::default()
            .run(None, |_| {
                calls += 1;
                std::future::ready(Err(Status::resource_exhausted("full").into()))
            })
            .await;
        assert_eq!((outcome.unwrap_err().code(), calls), (Some(Code::ResourceExhausted), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_bounds_all_attempts_together() {
        let start = Instant::now();
        let deadline = start + Duration::from_secs(3);
        let policy = RetryPolicy { attempts: u32::MAX, ..RetryPolicy::default() };
        let outcome: Result<()> = policy.run(Some(deadline), async |_| Err(unavailable())).await;
        assert_eq!(outcome.unwrap_err().code(), Some(Code::Unavailable));
        assert!(start.elapsed() <= Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_ends_with_the_deadline() {
        let deadline = Instant::now() + Duration::from_secs(3);
        let outcome: Result<()> =
            RetryPolicy::default().run(Some(deadline), |_| std::future::pending()).await;
        assert_eq!(outcome.unwrap_err().code(), Some(Code::DeadlineExceeded));
    }

    #[test]
    fn the_servers_delay_is_respected_and_bounded() {
        let policy = RetryPolicy { max: Duration::from_secs(4), ..RetryPolicy::default() };
        for failed in 1..40 {
            let delay = policy.delay(failed, Some(Duration::from_secs(2)));
            assert!((Duration::from_secs(2)..=Duration::from_secs(4)).contains(&delay), "{delay:?}");
            assert!(policy.delay(failed, Some(Duration::from_secs(60))) <= Duration::from_secs(4));
        }
    }
}
