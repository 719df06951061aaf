//! One edit, from source file to edited file, a unit of work at a time.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use image::RgbImage;
use smartedit_core::picture::{Format, decode, encode};
use smartedit_core::pipeline::{EditError, EditOutput, EditRequest, NextStep, Progress as Core};
use smartedit_core::stage::StageKind;
use tokio::time::Instant;
use tracing::Span;

use super::clock::StageClock;
use super::record::Recorder;
use super::schedule::{Group, Need};
use super::{Editing, Editor, Finished, Job, Output, Preview, Progress, Timings};
use crate::failure::Failure;

/// Format and quality of previews.
const PREVIEW: Output = Output { format: Format::Jpeg, quality: Some(80) };

/// A job and how far it has come.
pub(super) struct Run {
    pub(super) job: Job,
    /// How many were ahead of it when it was last told.
    pub(super) position: Cell<Option<usize>>,
    pub(super) queued: Duration,
    edit: Option<Box<dyn Editing>>,
    image_decoding: Duration,
    recorder: Option<Recorder>,
    clock: StageClock,
    span: Option<(StageKind, Span)>,
    /// The step after which a preview is to be made, and steps in all.
    preview: Option<(usize, usize)>,
    /// How long units of work took, denoising steps left out.
    pub(super) rest: Duration,
    shared: Shared,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("id", &self.job.id).finish_non_exhaustive()
    }
}

/// Steps done, and with how many others.
#[derive(Debug, Clone, Copy, Default)]
struct Shared {
    steps: usize,
    edits: usize,
}

impl Run {
    /// A job that waits.
    pub(super) fn new(job: Job) -> Self {
        Self {
            job,
            position: Cell::new(None),
            queued: Duration::ZERO,
            edit: None,
            image_decoding: Duration::ZERO,
            recorder: None,
            clock: StageClock::default(),
            span: None,
            preview: None,
            rest: Duration::ZERO,
            shared: Shared::default(),
        }
    }

    /// Does the next unit of work, before and after which it looks at the stop signal.
    pub(super) fn advance(&mut self, editor: &Arc<dyn Editor>) -> Result<Option<Finished>, Failure> {
        self.go_on()?;
        if let Some((done, total)) = self.preview.take() {
            let preview = self.preview(done).map_err(|failure| self.reason(failure))?;
            self.job.reporter.report(Progress::Step { done, total, preview });
            return self.go_on().map(|()| None);
        }
        let span = self.span();
        let Some(edit) = &mut self.edit else {
            self.open(editor)?;
            return self.go_on().map(|()| None);
        };
        let progress = span.in_scope(|| edit.advance());
        self.take(editor.as_ref(), progress)
    }

    /// Takes what the edit has done, by itself or in a run with others.
    pub(super) fn take(
        &mut self,
        editor: &dyn Editor,
        progress: Result<Core, EditError>,
    ) -> Result<Option<Finished>, Failure> {
        let progress = progress.map_err(|error| self.reason(error.into()))?;
        self.record(&progress);
        match progress {
            Core::Finished(output) => return self.finish(output).map(Some),
            progress => self.report(editor, progress),
        }
        self.go_on().map(|()| None)
    }

    /// What is to be done next.
    pub(super) fn need(&self) -> Need {
        let step = self.edit.as_ref().and_then(|edit| edit.next_step()).filter(|_| self.preview.is_none());
        step.map_or(Need::Unit, |NextStep { size, shareable, adapter }| Need::Step {
            group: shareable.then_some(Group { size, adapter }),
        })
    }

    /// What its next unit of work is a part of.
    pub(super) fn span(&self) -> Span {
        self.span.as_ref().map_or(&self.job.span, |(_, span)| span).clone()
    }

    /// The edit, to do a step in a run of so many.
    pub(super) fn share(&mut self, edits: usize) -> Option<&mut dyn Editing> {
        self.shared.steps += 1;
        self.shared.edits += edits;
        self.edit.as_deref_mut()
    }

    fn open(&mut self, editor: &Arc<dyn Editor>) -> Result<(), Failure> {
        let started = Instant::now();
        let task = &self.job.task;
        let image = decode(&task.image, &task.reading).map_err(Failure::Picture)?;
        self.image_decoding = started.elapsed();
        self.go_on()?;
        let (instruction, options) = (task.instruction.clone(), task.options.clone());
        self.edit = Some(Arc::clone(editor).edit(EditRequest { image, instruction, options })?);
        self.recorder = task.record.as_ref().map(Recorder::new);
        Ok(())
    }

    fn finish(&mut self, output: EditOutput) -> Result<Finished, Failure> {
        let started = Instant::now();
        let image = encoded(&output.image, self.job.task.output)?;
        let timings = Timings {
            total: self.job.arrival.elapsed(),
            queued: self.queued,
            image_decoding: self.image_decoding,
            stages: std::mem::take(&mut self.clock).into_times(),
            image_encoding: started.elapsed(),
            mean_batch: self.shared.edits as f32 / self.shared.steps.max(1) as f32,
        };
        Ok(Finished {
            image,
            format: self.job.task.output.format,
            width: output.image.width(),
            height: output.image.height(),
            reply: output.reply,
            timings,
            recorded: self.recorder.take().map(|recorder| recorder.finish(output.image)),
        })
    }

    fn go_on(&self) -> Result<(), Failure> {
        self.job.stop.reason().map_or(Ok(()), |reason| Err(reason.into()))
    }

    /// Why a unit of work failed: where the work was stopped, because of that.
    fn reason(&self, failure: Failure) -> Failure {
        self.go_on().err().unwrap_or(failure)
    }

    fn record(&mut self, progress: &Core) {
        let Some(recorder) = &mut self.recorder else { return };
        recorder.unit();
        let latents = self.edit.as_ref().and_then(|edit| edit.latents());
        if let (Core::Step { .. }, Some(latents)) = (progress, latents) {
            recorder.step(latents);
        }
    }

    fn report(&mut self, editor: &dyn Editor, progress: Core) {
        let elapsed = self.job.arrival.elapsed();
        let progress = match progress {
            Core::StageStarted(stage) => {
                self.clock.start(stage);
                self.span = Some((stage, self.job.span.in_scope(|| open_span(editor, stage))));
                Progress::StageStarted { stage, elapsed }
            }
            Core::StageFinished { stage, cached } => {
                let duration = self.clock.finish(stage, cached);
                if let Some((_, span)) = self.span.take_if(|(running, _)| *running == stage) {
                    let ms = duration.as_millis() as u64;
                    span.in_scope(|| tracing::debug!(ms, cached, "stage finished"));
                }
                Progress::StageFinished { stage, duration, elapsed, cached }
            }
            Core::Step { done, total } if self.is_shown(done, total) => {
                // The step is reported with its preview, which is a unit of work of its own.
                self.preview = Some((done, total));
                return;
            }
            Core::Step { done, total } => Progress::Step { done, total, preview: None },
            Core::Reply(reply) => Progress::Reply(reply),
            // Units of work, not something to report; the result is handled by the caller.
            Core::Waiting | Core::Tokens(_) | Core::Finished(_) => return,
        };
        self.job.reporter.report(progress);
    }

    /// Whether there is a preview after a step: after every so many, but not after the last, which the result follows.
    fn is_shown(&self, done: usize, total: usize) -> bool {
        let interval = self.job.task.preview_interval;
        interval > 0 && done.is_multiple_of(interval) && done < total
    }

    fn preview(&mut self, step: usize) -> Result<Option<Preview>, Failure> {
        let Some(edit) = &mut self.edit else { return Ok(None) };
        let Some(image) = edit.preview()? else { return Ok(None) };
        let image = encoded(&image, PREVIEW)?;
        Ok(Some(Preview { image, format: PREVIEW.format, step }))
    }
}

fn encoded(picture: &RgbImage, output: Output) -> Result<Bytes, Failure> {
    encode(picture, output.format, output.quality).map(Bytes::from).map_err(Failure::Encoding)
}

fn open_span(editor: &dyn Editor, stage: StageKind) -> Span {
    let placed = editor.stages().iter().find(|placed| placed.info.kind == stage);
    stage_span(stage, placed.map_or("", |placed| placed.info.engine))
}

/// The span of a stage that an engine computes.
pub(crate) fn stage_span(stage: StageKind, engine: &str) -> Span {
    tracing::info_span!("stage", stage = stage.name(), engine)
}
