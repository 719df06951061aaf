//! Who waits for what a thread computes.
//!
//! An engine that computes on this machine is done soon, and whoever drives a session looks between two runs whether
//! the result is still wanted. An engine that waits for another machine has to know it while it waits: the driver says
//! it for its thread with [`during`], and the engine asks with [`current`].

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

/// One who waits for a result.
pub trait Interest: Send + Sync {
    /// When the result is of no use any more; `None`: it always is.
    fn deadline(&self) -> Option<Instant>;

    /// Completes when the result is not wanted any more, for another reason than the deadline.
    fn lost(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// All who wait for a result. Nobody in particular is somebody who waits for ever.
#[derive(Clone, Default)]
pub struct Interests(Arc<[Arc<dyn Interest>]>);

impl FromIterator<Arc<dyn Interest>> for Interests {
    fn from_iter<I: IntoIterator<Item = Arc<dyn Interest>>>(interests: I) -> Self {
        Self(interests.into_iter().collect())
    }
}

impl Interests {
    /// When the result is of no use to anybody any more; `None`: it always is to somebody.
    pub fn deadline(&self) -> Option<Instant> {
        let deadlines: Option<Vec<Instant>> = self.0.iter().map(|interest| interest.deadline()).collect();
        deadlines?.into_iter().max()
    }

    /// Completes when nobody wants the result any more.
    pub async fn lost(&self) {
        if self.0.is_empty() {
            std::future::pending::<()>().await;
        }
        for interest in self.0.iter() {
            interest.lost().await;
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Interests> = RefCell::default();
}

/// Does work on this thread for these.
pub fn during<T>(interests: Interests, work: impl FnOnce() -> T) -> T {
    /// Puts back what was before, also when the work panics.
    struct Restore(Interests);

    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(std::mem::take(&mut self.0));
        }
    }

    let _restore = Restore(CURRENT.replace(interests));
    work()
}

/// Who waits for what this thread computes.
pub fn current() -> Interests {
    CURRENT.with_borrow(Clone::clone)
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;

    struct Waiter {
        deadline: Option<Instant>,
        lost: bool,
    }

    impl Interest for Waiter {
        fn deadline(&self) -> Option<Instant> {
            self.deadline
        }

        fn lost(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            match self.lost {
                true => Box::pin(std::future::ready(())),
                false => Box::pin(std::future::pending()),
            }
        }
    }

    fn interests(waiters: impl IntoIterator<Item = (Option<Instant>, bool)>) -> Interests {
        let waiter = |(deadline, lost)| Arc::new(Waiter { deadline, lost }) as Arc<dyn Interest>;
        waiters.into_iter().map(waiter).collect()
    }

    fn is_lost(interests: &Interests) -> bool {
        let mut lost = std::pin::pin!(interests.lost());
        lost.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn the_last_one_decides() {
        let (soon, late) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        assert_eq!(interests([(Some(soon), true), (Some(late), true)]).deadline(), Some(late));
        assert_eq!(interests([(Some(soon), true), (None, true)]).deadline(), None);
        assert!(is_lost(&interests([(None, true), (None, true)])));
        assert!(!is_lost(&interests([(None, true), (None, false)])));
    }

    #[test]
    fn nobody_waits_for_ever() {
        let nobody = current();
        assert_eq!(nobody.deadline(), None);
        assert!(!is_lost(&nobody));
    }

    #[test]
    fn what_was_before_comes_back() {
        let deadline = Some(Instant::now());
        during(interests([(deadline, false)]), || {
            let panicked =
                std::panic::catch_unwind(|| during(interests([(None, true)]), || panic!("as the test says")));
            assert!(panicked.is_err());
            assert_eq!(current().deadline(), deadline);
        });
        assert_eq!(current().deadline(), None);
    }
}
