//! One edit, from source file to edited file.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use image::RgbImage;
use smartedit_core::picture::{Format, decode, encode};
use smartedit_core::pipeline::{EditOutput, EditRequest, Progress as Core};
use smartedit_core::stage::StageKind;
use tokio::time::Instant;
use tracing::Span;

use super::clock::StageClock;
use super::record::Recorder;
use super::{Editing, Editor, Finished, Job, Output, Preview, Progress, Timings};
use crate::failure::Failure;

/// Format and quality of previews.
const PREVIEW: Output = Output { format: Format::Jpeg, quality: Some(80) };

/// Does a job. Looks at its stop signal before and after every unit of work.
pub(super) fn perform(editor: &Arc<dyn Editor>, job: &Job, queued: Duration) -> Result<Finished, Failure> {
    go_on(job)?;
    let started = Instant::now();
    let image = decode(&job.task.image, &job.task.reading).map_err(Failure::Picture)?;
    let image_decoding = started.elapsed();
    go_on(job)?;
    let request =
        EditRequest { image, instruction: job.task.instruction.clone(), options: job.task.options.clone() };
    let edit = Arc::clone(editor).edit(request)?;
    let recorder = job.task.record.as_ref().map(Recorder::new);
    let mut run =
        Run { job, edit, recorder, clock: StageClock::default(), editor: editor.as_ref(), span: None };
    let output = run.finish()?;
    let recorder = run.recorder.take();
    let started = Instant::now();
    let image = encoded(&output.image, job.task.output)?;
    let timings = Timings {
        total: job.arrival.elapsed(),
        queued,
        image_decoding,
        stages: run.clock.into_times(),
        image_encoding: started.elapsed(),
    };
    Ok(Finished {
        image,
        format: job.task.output.format,
        width: output.image.width(),
        height: output.image.height(),
        reply: output.reply,
        timings,
        recorded: recorder.map(|recorder| recorder.finish(output.image)),
    })
}

fn encoded(picture: &RgbImage, output: Output) -> Result<Bytes, Failure> {
    encode(picture, output.format, output.quality).map(Bytes::from).map_err(Failure::Encoding)
}

fn go_on(job: &Job) -> Result<(), Failure> {
    job.stop.reason().map_or(Ok(()), |reason| Err(reason.into()))
}

struct Run<'a> {
    job: &'a Job,
    edit: Box<dyn Editing>,
    recorder: Option<Recorder>,
    clock: StageClock,
    editor: &'a dyn Editor,
    span: Option<(StageKind, Span)>,
}

impl Run<'_> {
    fn finish(&mut self) -> Result<EditOutput, Failure> {
        loop {
            let progress = match &self.span {
                Some((_, span)) => span.in_scope(|| self.edit.advance()),
                None => self.edit.advance(),
            };
            let progress = progress?;
            self.record(&progress);
            match progress {
                Core::Finished(output) => return Ok(output),
                progress => self.report(progress)?,
            }
            go_on(self.job)?;
        }
    }

    fn record(&mut self, progress: &Core) {
        let Some(recorder) = &mut self.recorder else { return };
        recorder.unit();
        if let (Core::Step { .. }, Some(latents)) = (progress, self.edit.latents()) {
            recorder.step(latents);
        }
    }

    fn report(&mut self, progress: Core) -> Result<(), Failure> {
        let elapsed = self.job.arrival.elapsed();
        let progress = match progress {
            Core::StageStarted(stage) => {
                self.clock.start(stage);
                self.span = Some((stage, self.open(stage)));
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
            Core::Step { done, total } => Progress::Step { done, total, preview: self.preview(done, total)? },
            Core::Reply(reply) => Progress::Reply(reply),
            // Units of work, not something to report; the result is handled by the caller.
            Core::Waiting | Core::Tokens(_) | Core::Finished(_) => return Ok(()),
        };
        self.job.reporter.report(progress);
        Ok(())
    }

    fn open(&self, stage: StageKind) -> Span {
        let placed = self.editor.stages().iter().find(|placed| placed.info.kind == stage);
        let engine = placed.map_or("", |placed| placed.info.engine);
        tracing::info_span!("stage", stage = stage.name(), engine)
    }

    /// A preview after every so many steps; not after the last one, which the result follows.
    fn preview(&mut self, done: usize, total: usize) -> Result<Option<Preview>, Failure> {
        let interval = self.job.task.preview_interval;
        if interval == 0 || !done.is_multiple_of(interval) || done == total {
            return Ok(None);
        }
        go_on(self.job)?;
        let Some(image) = self.edit.preview()? else { return Ok(None) };
        let image = encoded(&image, PREVIEW)?;
        Ok(Some(Preview { image, format: PREVIEW.format, step: done }))
    }
}
