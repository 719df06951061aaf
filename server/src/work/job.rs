//! A request on its way through the queue and a worker.

use bytes::Bytes;
use smartedit_core::picture::{DecodeOptions, Format};
use smartedit_core::pipeline::EditOptions;
use tokio::time::Instant;
use tracing::Span;

use super::schedule::Demand;
use super::{Caller, Priority, Record, Registration, Reporter, Stop};

/// A request on its way through the queue and a worker.
pub struct Job {
    /// The request's identifier.
    pub id: String,
    /// What to do.
    pub task: Task,
    /// On whose account, and how much there is to do.
    pub account: Account,
    /// When the request arrived.
    pub arrival: Instant,
    /// Whether to stop.
    pub stop: Stop,
    /// Where to report.
    pub reporter: Reporter,
    /// The span of the request.
    pub span: Span,
    /// The request's place among all requests.
    pub registration: Registration,
}

/// On whose account a job is done, and how much there is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Who is to have a fair share.
    pub caller: Caller,
    /// How urgent it is.
    pub priority: Priority,
    /// Denoising steps.
    pub steps: usize,
    /// Width times height at which the picture is edited.
    pub pixels: usize,
}

/// What to do.
#[derive(Debug, Clone)]
pub struct Task {
    /// The source file.
    pub image: Bytes,
    /// How to read it.
    pub reading: DecodeOptions,
    /// What to change.
    pub instruction: String,
    /// How to edit.
    pub options: EditOptions,
    /// After every how many steps to take a preview; 0: never.
    pub preview_interval: usize,
    /// How to encode the result.
    pub output: Output,
    /// What to keep of the edit besides its result.
    pub record: Option<Record>,
}

/// How to encode a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// The file format.
    pub format: Format,
    /// Quality of JPEG, 1 to 100; `None` is the format's default.
    pub quality: Option<u8>,
}

impl Job {
    /// What the job asks for.
    pub(super) fn demand(&self) -> Demand {
        let Account { caller, priority, steps, pixels } = self.account.clone();
        Demand { caller, priority, steps, pixels, bytes: self.bytes() }
    }

    /// Bytes of memory that the waiting request holds.
    pub fn bytes(&self) -> usize {
        let options = &self.task.options;
        let noise = options.initial_latents.iter().chain(options.step_noise.iter().flatten());
        let floats: usize = noise.map(|tensor| tensor.len()).sum();
        self.task.image.len() + self.task.instruction.len() + floats * size_of::<f32>()
    }
}
