//! Doing the edits: a bounded queue per deployment, threads that do the work, and the events they report.
//!
//! A handler of the gRPC service puts a [`Job`] into a [`Queue`] and keeps a [`Guard`]. Dropping the guard (the
//! caller is gone) stops that job and no other. A schedule decides what a worker thread does next: a unit of one
//! edit, or a denoising step of several in one run. Workers look at a job's [`Stop`] between any two units of work, and
//! report through a channel that never makes them wait.

mod clock;
mod conclude;
mod editor;
mod events;
mod guard;
mod job;
mod lane;
mod memory;
mod queue;
mod record;
mod requests;
mod run;
mod schedule;
mod stop;
#[cfg(test)]
pub(crate) mod testing;
mod worker;

pub use clock::{StageTime, Timings};
pub use editor::{Editing, Editor, StepsDone, step_together};
pub use events::{Event, Events, Finished, Observer, Preview, Progress, Reporter, channel};
pub use guard::Guard;
pub use job::{Account, Job, Output, Task};
pub use lane::{Lane, Turn};
pub use memory::Memory;
pub use queue::Queue;
pub use record::{Kept, LatentDifference, Record, Recorded, Reference};
pub use requests::{Registration, Requests};
pub(crate) use run::stage_span;
pub use schedule::{Caller, Counters, Priority, Refusal, Rules};
pub use stop::{Stop, StopReason};
pub(crate) use worker::panic_words;
pub use worker::work;
