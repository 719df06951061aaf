//! How much a caller has asked for.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{CallerLimits, Limits};
use crate::failure::Failure;

/// Held as long as what it was given for goes on.
pub(crate) type Place = Option<OwnedSemaphorePermit>;

/// How much a caller has asked for, and may.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) limits: CallerLimits,
    rate: Option<DefaultDirectRateLimiter>,
    /// Room for requests being received.
    receiving: Option<Arc<Semaphore>>,
    /// Room for edits and stages that wait or are worked on.
    working: Option<Arc<Semaphore>>,
}

impl Account {
    /// An account within limits; [`quota`] says which cannot be.
    pub(super) fn new(limits: CallerLimits) -> Self {
        let room = || Some(Arc::new(Semaphore::new(limits.max_concurrent? as usize)));
        let rate = quota(&limits).ok().flatten().map(RateLimiter::direct);
        Self { limits, rate, receiving: room(), working: room() }
    }

    /// Counts so many requests.
    ///
    /// # Errors
    ///
    /// [`Failure::RateLimited`] if these are too many by now.
    pub(super) fn charge(&self, requests: u32) -> Result<(), Failure> {
        let (Some(rate), Some(requests)) = (&self.rate, NonZeroU32::new(requests)) else { return Ok(()) };
        match rate.check_n(requests) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(early)) => {
                let wait = early.wait_time_from(DefaultClock::default().now());
                Err(Failure::RateLimited { retry_after: Some(wait) })
            }
            Err(_) => Err(Failure::RateLimited { retry_after: None }),
        }
    }

    /// Lets one more request be received.
    ///
    /// # Errors
    ///
    /// [`Failure::CallerBusy`] if as many are as may.
    pub(super) fn receive(&self) -> Result<Place, Failure> {
        enter(self.receiving.as_ref())
    }

    /// Lets one more edit or stage wait and be worked on.
    ///
    /// # Errors
    ///
    /// [`Failure::CallerBusy`] if as many are as may.
    pub(super) fn work(&self) -> Result<Place, Failure> {
        enter(self.working.as_ref())
    }

    /// The server's limits, where this caller's are no tighter.
    pub(super) fn narrow(&self, limits: &Limits) -> Limits {
        let CallerLimits { max_steps, max_edit_pixels, .. } = self.limits;
        Limits {
            max_steps: max_steps.unwrap_or(u32::MAX).min(limits.max_steps),
            max_edit_pixels: max_edit_pixels.unwrap_or(u64::MAX).min(limits.max_edit_pixels),
            ..limits.clone()
        }
    }
}

fn enter(room: Option<&Arc<Semaphore>>) -> Result<Place, Failure> {
    let place = room.map(|room| room.clone().try_acquire_owned()).transpose();
    place.map_err(|_| Failure::CallerBusy)
}

/// What limits say of requests in time, if they say anything.
///
/// # Errors
///
/// The key that has a value that cannot be, and what is wrong with it.
pub(super) fn quota(limits: &CallerLimits) -> Result<Option<Quota>, (&'static str, &'static str)> {
    let Some(rate) = limits.requests_per_second else {
        return match limits.burst {
            Some(_) => Err(("burst", "needs requests_per_second")),
            None => Ok(None),
        };
    };
    let period = Some(rate).filter(|rate| *rate > 0.0).map(|rate| Duration::try_from_secs_f64(rate.recip()));
    let quota = period.and_then(Result::ok).and_then(Quota::with_period);
    let quota = quota.ok_or(("requests_per_second", "is no number of requests in a second"))?;
    let burst = limits.burst.unwrap_or(rate.clamp(1.0, f64::from(u32::MAX)) as u32);
    let burst = NonZeroU32::new(burst).ok_or(("burst", "must be 1 or more"))?;
    Ok(Some(quota.allow_burst(burst)))
}

/// Everything that is wrong with limits: the key, and what is wrong with it.
pub(super) fn problems(limits: &CallerLimits) -> impl Iterator<Item = (&'static str, &'static str)> {
    let CallerLimits { max_concurrent, max_steps, max_edit_pixels, .. } = *limits;
    let zero = [
        ("max_concurrent", max_concurrent == Some(0)),
        ("max_steps", max_steps == Some(0)),
        ("max_edit_pixels", max_edit_pixels.is_some_and(|pixels| pixels < 64)),
    ];
    let zero = zero.into_iter().filter(|(_, wrong)| *wrong);
    quota(limits).err().into_iter().chain(zero.map(|(key, _)| match key {
        "max_edit_pixels" => (key, "must be 64 or more"),
        key => (key, "must be 1 or more"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_next_is_told_when_to_come_back() {
        let limits =
            CallerLimits { requests_per_second: Some(0.001), burst: Some(3), ..CallerLimits::default() };
        let account = Account::new(limits);
        assert!(matches!(account.charge(4), Err(Failure::RateLimited { retry_after: None })));
        account.charge(2).unwrap();
        account.charge(1).unwrap();
        let Err(Failure::RateLimited { retry_after: Some(wait) }) = account.charge(1) else {
            panic!("the fourth passed");
        };
        assert!(wait > Duration::from_secs(500) && wait <= Duration::from_secs(1000), "{wait:?}");
        account.charge(0).unwrap();
    }

    #[test]
    fn places_are_given_back() {
        let account = Account::new(CallerLimits { max_concurrent: Some(1), ..CallerLimits::default() });
        let place = account.work().unwrap();
        assert!(matches!(account.work(), Err(Failure::CallerBusy)));
        let _receiving = account.receive().unwrap();
        drop(place);
        account.work().unwrap();
    }

    #[test]
    fn the_tighter_limit_applies() {
        let limits =
            CallerLimits { max_steps: Some(10), max_edit_pixels: Some(u64::MAX), ..Default::default() };
        let server = Limits::default();
        let narrowed = Account::new(limits).narrow(&server);
        assert_eq!((narrowed.max_steps, narrowed.max_edit_pixels), (10, server.max_edit_pixels));
        assert_eq!(Account::default().narrow(&server), server);
    }

    #[test]
    fn limits_that_cannot_be_are_named() {
        let wrong = |limits: CallerLimits| problems(&limits).map(|(key, _)| key).collect::<Vec<_>>();
        let rate = |rate| CallerLimits { requests_per_second: Some(rate), ..CallerLimits::default() };
        for number in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300] {
            assert_eq!(wrong(rate(number)), ["requests_per_second"], "{number}");
        }
        assert!(wrong(rate(0.5)).is_empty() && wrong(rate(1e6)).is_empty());
        assert_eq!(wrong(CallerLimits { burst: Some(1), ..CallerLimits::default() }), ["burst"]);
        assert_eq!(wrong(CallerLimits { burst: Some(0), ..rate(1.0) }), ["burst"]);
        let zero = CallerLimits { max_concurrent: Some(0), max_steps: Some(0), ..CallerLimits::default() };
        assert_eq!(wrong(zero), ["max_concurrent", "max_steps"]);
    }
}
