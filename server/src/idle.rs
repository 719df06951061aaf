//! Gives memory back when nothing has been asked for a while.

use std::time::Duration;

use crate::work::Requests;

/// How long nothing must have been asked for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Calls `release` whenever there has been no request for a while after the last one; ends never.
pub(crate) async fn release_when_idle(requests: &Requests, release: impl Fn()) -> ! {
    loop {
        requests.busy().await;
        loop {
            requests.idle().await;
            tokio::select! {
                () = tokio::time::sleep(PATIENCE) => break,
                () = requests.busy() => {}
            }
        }
        release();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::work::Stop;

    #[tokio::test(start_paused = true)]
    async fn memory_is_given_back_once_after_the_last_request() {
        let (requests, released) = (Requests::default(), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn({
            let (requests, released) = (requests.clone(), released.clone());
            async move {
                let release = || {
                    released.fetch_add(1, Ordering::Relaxed);
                };
                release_when_idle(&requests, release).await;
            }
        });
        let after = async |time| {
            tokio::time::sleep(time).await;
            released.load(Ordering::Relaxed)
        };
        assert_eq!(after(PATIENCE * 3).await, 0, "nothing was ever asked for");
        for round in 1..3 {
            let first = requests.register("a", Stop::new(None));
            assert_eq!(after(PATIENCE * 2).await, round - 1, "somebody waits");
            drop(first);
            assert_eq!(after(PATIENCE / 2).await, round - 1);
            let second = requests.register("b", Stop::new(None));
            tokio::task::yield_now().await;
            drop(second);
            assert_eq!(after(PATIENCE * 3 / 4).await, round - 1, "time counts from the last");
            assert_eq!(after(PATIENCE * 5).await, round);
        }
        task.abort();
    }
}
