//! Turns to do what is done once at a time.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::failure::Failure;

/// Calls that have a turn or wait for it.
const PLACES: usize = 8;

/// Turns, one after the other in the order in which they were asked for.
pub(super) struct Turns {
    places: Arc<Semaphore>,
    turn: Arc<Mutex<()>>,
}

/// A turn; it is over when dropped.
pub(super) struct Turn {
    _turn: OwnedMutexGuard<()>,
    _place: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(PLACES)), turn: Arc::default() }
    }
}

impl Turns {
    /// Waits for a turn. Whoever drops the future no longer waits.
    ///
    /// # Errors
    ///
    /// [`Failure::AdaptersBusy`] if as many wait as may.
    pub(super) async fn next(&self) -> Result<Turn, Failure> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| Failure::AdaptersBusy)?;
        Ok(Turn { _turn: self.turn.clone().lock_owned().await, _place: place })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use super::*;

    fn waits(future: Pin<&mut impl Future<Output = Result<Turn, Failure>>>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn one_has_the_turn_and_only_so_many_wait() {
        let turns = Turns::default();
        let first = turns.next().await.unwrap();
        let mut waiting: Vec<_> = (1..PLACES).map(|_| Box::pin(turns.next())).collect();
        assert!(waiting.iter_mut().all(|waiting| waits(waiting.as_mut())));
        assert!(matches!(turns.next().await, Err(Failure::AdaptersBusy)));
        waiting.pop();
        let mut last = Box::pin(turns.next());
        assert!(waits(last.as_mut()), "whoever leaves gives its place back");
        drop(first);
        let second = waiting.remove(0).await.unwrap();
        assert!(waits(last.as_mut()));
        drop((second, waiting));
        assert!(last.await.is_ok());
    }
}
