//! How often and when a call is tried again.

use std::time::Duration;

use tokio::time::Instant;

use crate::failure::CallError;

/// Upper bound of the delay after the first attempt; it doubles with each further one.
const INITIAL: Duration = Duration::from_millis(50);

/// Upper bound of a delay that the server has not asked for.
const MAX: Duration = Duration::from_secs(2);

/// How often and when a call is tried again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    /// Attempts after the first; `None`: as many as there is time for.
    pub(crate) retries: Option<u32>,
    /// How long one attempt may take, and how long another attempt is worth waiting for.
    pub(crate) timeout: Duration,
}

impl RetryPolicy {
    /// Calls `attempt`, with the time it has, until it succeeds, fails for good, or there are no attempts or no time left.
    ///
    /// # Errors
    ///
    /// Why the last attempt failed; [`CallError::Unwanted`] if the deadline passed.
    pub(crate) async fn run<T, F: Future<Output = Result<T, CallError>>>(
        &self,
        deadline: Option<Instant>,
        mut attempt: impl FnMut(Duration) -> F,
    ) -> Result<T, CallError> {
        let mut failed = 0;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(CallError::Unwanted);
            }
            let time = left.map_or(self.timeout, |left| left.min(self.timeout));
            let outcome = tokio::time::timeout(time, attempt(time)).await;
            let error = match outcome {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(_)) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    return Err(CallError::Unwanted);
                }
                Ok(Err(error)) => error,
                Err(_) if time < self.timeout => return Err(CallError::Unwanted),
                Err(_) => CallError::Unavailable(format!("no answer within {} ms", time.as_millis())),
            };
            let CallError::Busy { retry_after, .. } = error else { return Err(error) };
            failed += 1;
            let delay = delay(failed, retry_after);
            let is_late = deadline.is_some_and(|deadline| Instant::now() + delay >= deadline);
            if is_late || delay > self.timeout || self.retries.is_some_and(|retries| failed > retries) {
                return Err(error);
            }
            tracing::debug!(failed, ?delay, %error, "a call is tried again");
            tokio::time::sleep(delay).await;
        }
    }
}

/// The delay before the attempt that follows so many failed ones: a random part of the exponential bound, after what the
/// server asked for.
fn delay(failed: u32, asked: Option<Duration>) -> Duration {
    let bound = INITIAL.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(MAX);
    asked.unwrap_or(bound / 2).saturating_add((bound / 2).mul_f64(fastrand::f64()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy(retries: u32) -> RetryPolicy {
        RetryPolicy { retries: Some(retries), timeout: 10 * SECOND }
    }

    fn busy(retry_after: Option<Duration>) -> CallError {
        CallError::Busy { message: "full".to_owned(), retry_after }
    }

    /// What comes of a call that always fails so, after how many attempts and how long.
    async fn failing(
        policy: RetryPolicy,
        left: Option<Duration>,
        error: CallError,
    ) -> (CallError, u32, Duration) {
        let (attempts, begun) = (Cell::new(0), Instant::now());
        let outcome: Result<(), _> = policy
            .run(left.map(|left| begun + left), |_| {
                attempts.set(attempts.get() + 1);
                std::future::ready(Err(error.clone()))
            })
            .await;
        (outcome.unwrap_err(), attempts.get(), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_bounded_and_their_distance_grows() {
        let (error, attempts, took) = failing(policy(5), None, busy(None)).await;
        assert_eq!((error, attempts), (busy(None), 6));
        let bounds = INITIAL * 31;
        assert!(took >= bounds / 2 && took <= bounds, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_server_says_how_long_to_wait() {
        let (_, attempts, took) = failing(policy(1), None, busy(Some(3 * SECOND))).await;
        assert_eq!(attempts, 2);
        assert!(took >= 3 * SECOND, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_in_vain() {
        for (left, asked) in [(Some(2 * SECOND), 3 * SECOND), (None, 11 * SECOND)] {
            let (error, attempts, took) = failing(policy(5), left, busy(Some(asked))).await;
            assert_eq!((error, attempts, took), (busy(Some(asked)), 1, Duration::ZERO));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_will_fail_again_is_not_tried_again() {
        for error in [CallError::Failed("no".to_owned()), CallError::Unavailable("gone".to_owned())] {
            assert_eq!(failing(policy(5), None, error.clone()).await.1, 1, "{error:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_number_the_time_decides() {
        let patient = RetryPolicy { retries: None, timeout: 30 * SECOND };
        let (_, attempts, took) = failing(patient, Some(30 * SECOND), busy(None)).await;
        assert!(attempts > 10 && took < 30 * SECOND, "{attempts} in {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_has_its_own_time_and_no_more_than_is_left() {
        let hanging = |_| std::future::pending::<Result<(), CallError>>();
        let begun = Instant::now();
        let error = policy(5).run(None, hanging).await.unwrap_err();
        assert!(matches!(&error, CallError::Unavailable(words) if words.contains("10000 ms")), "{error}");
        assert_eq!(begun.elapsed(), 10 * SECOND);
        let error = policy(5).run(Some(Instant::now() + SECOND), hanging).await.unwrap_err();
        assert_eq!((error, begun.elapsed()), (CallError::Unwanted, 11 * SECOND));
    }
}
