//! What ties a request's work to its caller.

use std::sync::Arc;

use super::{Queue, Stop, StopReason};

/// Stops a request's work when dropped, and takes it out of the queue if it still waits there.
#[must_use = "dropping the guard stops the request"]
pub struct Guard {
    queue: Arc<Queue>,
    stop: Stop,
    keep: bool,
}

impl Guard {
    /// Guards a request of the queue. With `keep`, its work goes on when the guard is dropped.
    pub fn new(queue: Arc<Queue>, stop: Stop, keep: bool) -> Self {
        Self { queue, stop, keep }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.keep {
            self.stop.set(StopReason::Abandoned);
            self.queue.prune();
        }
    }
}
