//! What bounds the edits that a route's shadow makes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::ShadowConfig;

/// A deployment that makes edits of a route a second time, within bounds.
#[derive(Debug)]
pub struct Shadow {
    config: ShadowConfig,
    places: Arc<Semaphore>,
    kibibytes: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// An edit that waits for its turn.
#[derive(Debug)]
pub struct Place {
    turns: Arc<Semaphore>,
    _place: OwnedSemaphorePermit,
    _kibibytes: OwnedSemaphorePermit,
}

/// An edit whose turn it is. Dropped, it is the next one's.
#[derive(Debug)]
pub struct Turn {
    _place: Place,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Shadow {
    pub(super) fn new(config: ShadowConfig) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            places: semaphore(config.max_queue.saturating_add(config.max_concurrent)),
            kibibytes: semaphore(config.max_queue_bytes / 1024),
            turns: semaphore(config.max_concurrent),
            config,
        }
    }

    /// What it was made of.
    pub fn config(&self) -> &ShadowConfig {
        &self.config
    }

    /// Decides whether an edit that another deployment makes is to be made a second time.
    pub fn wants(&self, deployment: &str) -> bool {
        deployment != self.config.deployment && fastrand::f64() < self.config.fraction
    }

    /// A place for an edit of which so many bytes are held, if there is one.
    pub fn enter(&self, bytes: usize) -> Option<Place> {
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
    pub async fn turn(self) -> Turn {
        // The semaphore is never closed.
        let turn = self.turns.clone().acquire_owned().await.ok();
        Turn { _place: self, _turn: turn }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shadow(change: impl FnOnce(&mut ShadowConfig)) -> Shadow {
        let mut config = ShadowConfig::new("b");
        change(&mut config);
        Shadow::new(config)
    }

    #[tokio::test]
    async fn so_many_run_and_so_many_wait() {
        let shadow = shadow(|config| config.max_queue = 1);
        let running = shadow.enter(1).unwrap().turn().await;
        let waiting = tokio::spawn(shadow.enter(1).unwrap().turn());
        assert!(shadow.enter(1).is_none());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(running);
        drop(waiting.await.unwrap());
        assert!(shadow.enter(1).is_some());
    }

    #[test]
    fn bytes_are_bounded_too() {
        let shadow = shadow(|config| config.max_queue_bytes = 4096);
        let held = shadow.enter(3000).unwrap();
        assert!(shadow.enter(2000).is_none());
        drop(held);
        assert!(shadow.enter(4096).is_some());
        assert!(shadow.enter(usize::MAX).is_none());
    }

    #[test]
    fn a_share_of_what_others_make_is_wanted() {
        assert!((0..100).all(|_| shadow(|_| {}).wants("a")));
        assert!(!(0..100).any(|_| shadow(|_| {}).wants("b")));
        assert!(!(0..100).any(|_| shadow(|config| config.fraction = 0.0).wants("a")));
        let half = shadow(|config| config.fraction = 0.5);
        let wanted = (0..1000).filter(|_| half.wants("a")).count();
        assert!((350..650).contains(&wanted), "{wanted}");
    }
}
