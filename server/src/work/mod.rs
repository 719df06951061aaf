//! Doing the edits: a bounded queue per deployment, threads that own the work, and the events they report.
//!
//! A handler of the gRPC service puts a [`Job`] into a [`Queue`] and keeps a [`Guard`]. Dropping the guard (the
//! caller is gone) stops that job and no other. A worker thread looks at the job's [`Stop`] between any two
//! units of work, and reports through a channel that never makes it wait.

mod clock;
mod editor;
mod events;
mod guard;
mod job;
mod memory;
mod perform;
mod queue;
mod record;
mod requests;
mod stop;
#[cfg(test)]
pub(crate) mod testing;
mod worker;

pub use clock::{StageTime, Timings};
pub use editor::{Editing, Editor};
pub use events::{Event, Events, Finished, Observer, Preview, Progress, Reporter, channel};
pub use guard::Guard;
pub use job::{Job, Output, Task};
pub use memory::Memory;
pub use queue::{Full, Queue};
pub use record::{Kept, LatentDifference, Record, Recorded, Reference};
pub use requests::{Registration, Requests};
pub use stop::{Stop, StopReason};
pub use worker::work;
