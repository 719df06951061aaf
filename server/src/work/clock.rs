//! How long an edit and its stages take.

use std::time::Duration;

use smartedit_core::stage::StageKind;
use tokio::time::Instant;

/// How long an edit took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timings {
    /// From arrival to encoded result.
    pub total: Duration,
    /// Waiting to be begun.
    pub queued: Duration,
    /// Decoding the source file.
    pub image_decoding: Duration,
    /// Every stage, in the order in which they first ran.
    pub stages: Vec<StageTime>,
    /// Encoding the edited picture.
    pub image_encoding: Duration,
    /// Edits that shared its runs of the denoiser, itself included, in the mean over its steps.
    pub mean_batch: f32,
}

/// How long a stage took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageTime {
    /// The stage.
    pub stage: StageKind,
    /// From its beginning to its end, the work of others in between included.
    pub duration: Duration,
    /// Whether its result was kept from an earlier request, so that it has not run.
    pub cached: bool,
}

/// Times the stages of one edit.
#[derive(Default)]
pub(super) struct StageClock {
    running: Vec<(StageKind, Instant)>,
    done: Vec<StageTime>,
}

impl StageClock {
    pub(super) fn start(&mut self, stage: StageKind) {
        self.running.push((stage, Instant::now()));
    }

    /// How long this run of the stage took.
    pub(super) fn finish(&mut self, stage: StageKind, cached: bool) -> Duration {
        let Some(index) = self.running.iter().rposition(|(running, _)| *running == stage) else {
            return Duration::ZERO;
        };
        let duration = self.running.remove(index).1.elapsed();
        match self.done.iter_mut().find(|time| time.stage == stage) {
            Some(time) => {
                time.duration += duration;
                time.cached &= cached;
            }
            None => self.done.push(StageTime { stage, duration, cached }),
        }
        duration
    }

    pub(super) fn into_times(self) -> Vec<StageTime> {
        self.done
    }
}
