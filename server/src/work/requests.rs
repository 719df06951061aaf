//! The requests being waited for or worked on.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::Notify;

use super::{Stop, StopReason};
use crate::security::Place;

/// The requests being waited for or worked on, by identifier. Cloning shares the registry.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stops: DashMap<String, Stop>,
    changed: Notify,
}

impl Requests {
    /// Adds a request until the registration is dropped.
    pub fn register(&self, id: &str, stop: Stop) -> Registration {
        self.0.stops.insert(id.to_owned(), stop);
        self.0.changed.notify_waiters();
        Registration { requests: self.clone(), id: id.to_owned(), _held: None }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.stops.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.stops.is_empty()
    }

    /// Stops every one.
    pub fn stop_all(&self, reason: StopReason) {
        for entry in self.0.stops.iter() {
            entry.value().set(reason);
        }
    }

    /// Whether every one is to stop.
    #[cfg(test)]
    pub(crate) fn are_stopping(&self) -> bool {
        self.0.stops.iter().all(|entry| entry.value().reason().is_some())
    }

    /// Waits until there is one.
    pub async fn busy(&self) {
        loop {
            let changed = self.0.changed.notified();
            if !self.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Waits until there are none.
    pub async fn idle(&self) {
        loop {
            let changed = self.0.changed.notified();
            if self.is_empty() {
                return;
            }
            changed.await;
        }
    }
}

/// A request's place in the registry.
#[derive(Debug)]
pub struct Registration {
    requests: Requests,
    id: String,
    /// What is given back with it.
    _held: Place,
}

impl Registration {
    /// The same, holding a place among the caller's requests.
    #[must_use]
    pub(crate) fn holding(mut self, place: Place) -> Self {
        self._held = place;
        self
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.requests.0.stops.remove(&self.id);
        self.requests.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_waits_for_the_last_one() {
        let requests = Requests::default();
        let (first, second) =
            (requests.register("a", Stop::new(None)), requests.register("b", Stop::new(None)));
        let idle = tokio::spawn({
            let requests = requests.clone();
            async move { requests.idle().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!idle.is_finished());
        drop(second);
        idle.await.unwrap();
    }
}
