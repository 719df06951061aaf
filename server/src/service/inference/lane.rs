//! The way to a deployment's stages beside its queue of edits: so many runs at a time, a bounded number and amount
//! waiting for their turn in the order of their arrival.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;

/// The lanes of all deployments, by name.
#[derive(Default)]
pub(super) struct Lanes(DashMap<String, Arc<Lane>>);

impl Lanes {
    /// The lane of a deployment that computes so many things at a time.
    pub(super) fn of(&self, deployment: &str, instances: usize, limits: &Limits) -> Arc<Lane> {
        if let Some(lane) = self.0.get(deployment) {
            return lane.clone();
        }
        let new = || Arc::new(Lane::new(instances, limits.max_queue, limits.max_queue_bytes));
        self.0.entry(deployment.to_owned()).or_insert_with(new).clone()
    }
}

/// The way to a deployment's stages.
pub(super) struct Lane {
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
    kibibytes: Arc<Semaphore>,
}

/// A run that waits for its turn.
pub(super) struct Place {
    turns: Arc<Semaphore>,
    _place: OwnedSemaphorePermit,
    _kibibytes: OwnedSemaphorePermit,
}

/// A run whose turn it is. Dropped, it is the next one's.
pub(super) struct Turn {
    _turn: Option<OwnedSemaphorePermit>,
    _place: Place,
}

impl Lane {
    fn new(instances: usize, max_waiting: usize, max_bytes: usize) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            turns: semaphore(instances.max(1)),
            places: semaphore(max_waiting.saturating_add(instances.max(1))),
            kibibytes: semaphore(max_bytes / 1024),
        }
    }

    /// A place for a run with inputs of so many bytes, if there is one.
    pub(super) fn enter(&self, bytes: usize) -> Option<Place> {
        let kibibytes = u32::try_from(bytes.div_ceil(1024)).ok()?;
        Some(Place {
            turns: self.turns.clone(),
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
        Turn { _turn: turn, _place: self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_bounded_and_turns_pass_on() {
        let lane = Lane::new(1, 1, 1 << 20);
        let first = lane.enter(1).unwrap().turn().await;
        let second = tokio::spawn(lane.enter(1).unwrap().turn());
        assert!(lane.enter(1).is_none());
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        let second = second.await.unwrap();
        let third = lane.enter(1).unwrap();
        drop(second);
        third.turn().await;
    }

    #[test]
    fn bytes_are_bounded_too() {
        let lane = Lane::new(1, 8, 4096);
        let held = lane.enter(3000);
        assert!(held.is_some());
        assert!(lane.enter(2000).is_none());
        assert!(lane.enter(1024).is_some());
        drop(held);
        assert!(lane.enter(4096).is_some());
        assert!(lane.enter(usize::MAX).is_none());
    }
}
