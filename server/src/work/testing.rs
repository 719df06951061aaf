//! Orders and scripted models for tests.

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use image::RgbImage;
use ndarray::Array4;
use smartedit_core::model::ModelConfig;
use smartedit_core::picture::{DecodeOptions, Format, encode};
use smartedit_core::pipeline::{EditError, EditOptions, EditOutput, EditRequest, NextStep, Progress};
use smartedit_core::stage::{Stage, StageError, StageKind};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::deployment::PlacedStage;

use super::{
    Account, Editing, Editor, Events, Job, Output, Priority, Requests, Rules, StepsDone, Stop, Task, channel,
};

/// A job and what its caller holds.
pub(crate) struct Order {
    pub(crate) job: Job,
    pub(crate) stop: Stop,
    pub(crate) events: Events,
}

/// An order whose source file has so many bytes and is no picture.
pub(crate) fn order(bytes: usize) -> Order {
    order_of(Bytes::from(vec![0; bytes]))
}

/// An order whose source file is a picture.
pub(crate) fn picture_order() -> Order {
    order_of(picture())
}

/// A small PNG file.
pub(crate) fn picture() -> Bytes {
    encode(&RgbImage::new(16, 8), Format::Png, None).unwrap().into()
}

/// Rules of one worker that does one edit at a time, with so many and so many bytes of them waiting.
pub(crate) fn one_at_a_time(max_queue: usize, max_queue_bytes: usize) -> Rules {
    Rules {
        max_queue,
        max_queue_bytes,
        concurrency: 1,
        max_batch: 1,
        max_batch_pixels: usize::MAX,
        max_wait: Duration::ZERO,
        workers: 1,
    }
}

fn order_of(image: Bytes) -> Order {
    let (reporter, events) = channel();
    let stop = Stop::new(None);
    let task = Task {
        image,
        reading: DecodeOptions::default(),
        instruction: String::new(),
        options: EditOptions::default(),
        preview_interval: 0,
        output: Output { format: Format::Png, quality: None },
        record: None,
    };
    let job = Job {
        id: "test".to_owned(),
        task,
        account: Account { caller: "test".into(), priority: Priority::default(), steps: 4, pixels: 128 },
        arrival: Instant::now(),
        stop: stop.clone(),
        reporter,
        span: tracing::Span::none(),
        registration: Requests::default().register("test", stop.clone()),
    };
    Order { job, stop, events }
}

impl Order {
    /// The same order with a deadline.
    pub(crate) fn due(mut self, timeout: Duration) -> Self {
        self.stop = Stop::new(Some(Instant::now() + timeout));
        self.job.stop = self.stop.clone();
        self
    }
}

/// What a scripted edit does in one unit of work.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Reports this.
    Report(Progress),
    /// Panics.
    Panic,
    /// Panics in the place of a denoising step that could have been shared.
    PanicAtStep,
}

/// So many steps of denoising, then a black picture.
pub(crate) fn steps(total: usize) -> Vec<Act> {
    steps_to(total, RgbImage::new(16, 8))
}

/// So many steps of denoising, then this picture.
pub(crate) fn steps_to(total: usize, image: RgbImage) -> Vec<Act> {
    let stage = StageKind::Denoiser;
    let steps = (1..=total).map(|done| Progress::Step { done, total });
    let output = EditOutput { image, reply: None };
    std::iter::once(Progress::StageStarted(stage))
        .chain(steps)
        .chain([Progress::StageFinished { stage, cached: false }, Progress::Finished(output)])
        .map(Act::Report)
        .collect()
}

/// A model whose edits follow scripts, one script per edit, the last one again and again.
pub(crate) struct Scripted {
    config: ModelConfig,
    latents: Array4<f32>,
    scripts: Mutex<Vec<Vec<Act>>>,
    gate: Option<Gate>,
}

/// The edit's side of a [`Leash`].
struct Gate {
    reached: mpsc::Sender<()>,
    go: Mutex<Receiver<()>>,
}

/// Lets scripted edits do one unit of work at a time. Dropped, it lets them run.
pub(crate) struct Leash {
    reached: tokio::sync::Mutex<mpsc::Receiver<()>>,
    go: SyncSender<()>,
    units: AtomicUsize,
}

impl Leash {
    /// Waits until an edit is about to do a unit of work.
    pub(crate) async fn wait(&self) {
        self.reached.lock().await.recv().await.expect("an edit should do work");
    }

    /// Lets the edit do it.
    pub(crate) fn go(&self) {
        self.units.fetch_add(1, Ordering::SeqCst);
        self.go.send(()).unwrap();
    }

    /// Lets edits do units of work until something has happened, with a pause of the runtime after each.
    pub(crate) async fn go_until(&self, happened: impl Future<Output = ()>) {
        let mut happened = std::pin::pin!(happened);
        self.go();
        loop {
            tokio::select! {
                biased;
                () = &mut happened => return,
                () = self.wait() => self.go(),
            }
        }
    }

    /// How many units of work edits were let do.
    pub(crate) fn units(&self) -> usize {
        self.units.load(Ordering::SeqCst)
    }

    /// Whether no edit is about to do a unit of work.
    pub(crate) async fn is_quiet(&self) -> bool {
        self.reached.lock().await.try_recv().is_err()
    }
}

impl Scripted {
    fn new(scripts: Vec<Vec<Act>>, gate: Option<Gate>) -> Self {
        let (config, latents, scripts) = (config(), latents(), Mutex::new(scripts));
        Self { config, latents, scripts, gate }
    }

    /// A model with these scripts.
    pub(crate) fn of(scripts: Vec<Vec<Act>>) -> Arc<dyn Editor> {
        Arc::new(Self::new(scripts, None))
    }

    /// The same, one unit of work at a time.
    pub(crate) fn on_leash(scripts: Vec<Vec<Act>>) -> (Arc<dyn Editor>, Leash) {
        let (reached, observe) = mpsc::channel(64);
        let (go, wait) = sync_channel(64);
        let gate = Gate { reached, go: Mutex::new(wait) };
        (
            Arc::new(Self::new(scripts, Some(gate))),
            Leash { reached: tokio::sync::Mutex::new(observe), go, units: AtomicUsize::new(0) },
        )
    }
}

/// The latents of every scripted edit, after each step.
fn latents() -> Array4<f32> {
    Array4::from_elem((1, 4, 1, 2), 0.5)
}

/// The configuration of a model without stages.
pub(crate) fn config() -> ModelConfig {
    serde_json::from_value(serde_json::json!({
        "format": 1,
        "name": "scripted",
        "pipeline": {"kind": "instruct-pix2-pix", "clip_tokenizer": "clip"},
        "stages": {},
        "scheduler": {
            "default": "euler_ancestral",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000,
            "steps_offset": 1
        },
        "defaults": {"steps": 4, "text_guidance": 7.5, "image_guidance": 1.5, "resolution": null},
        "files": {}
    }))
    .unwrap()
}

impl Editor for Scripted {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn stages(&self) -> &[PlacedStage] {
        &[]
    }

    fn stage(&self, _: StageKind) -> Option<Arc<dyn Stage>> {
        None
    }

    fn edit(self: Arc<Self>, _: EditRequest) -> Result<Box<dyn Editing>, EditError> {
        let mut scripts = self.scripts.lock().unwrap();
        let script = if scripts.len() > 1 { scripts.remove(0) } else { scripts[0].clone() };
        drop(scripts);
        Ok(Box::new(Play { editor: self, acts: script.into_iter() }))
    }

    /// Fails as a whole if one of the edits would panic.
    fn step_together(&self, edits: &mut [&mut dyn Editing]) -> Result<StepsDone, StageError> {
        let mut plays: Vec<&mut Play> = edits
            .iter_mut()
            .map(|edit| {
                let edit: &mut dyn Any = *edit;
                edit.downcast_mut().expect("all edits are scripted")
            })
            .collect();
        if plays.iter().any(|play| matches!(play.acts.as_slice().first(), Some(Act::PanicAtStep))) {
            return Err(StageError::Foreign { stage: StageKind::Denoiser });
        }
        Ok(plays.iter_mut().map(|play| play.advance()).collect())
    }
}

struct Play {
    editor: Arc<Scripted>,
    acts: std::vec::IntoIter<Act>,
}

impl Editing for Play {
    fn advance(&mut self) -> Result<Progress, EditError> {
        if let Some(gate) = &self.editor.gate {
            let _ = gate.reached.blocking_send(());
            let _ = gate.go.lock().unwrap().recv();
        }
        match self.acts.next().expect("nothing comes after the end") {
            Act::Report(progress) => Ok(progress),
            Act::Panic | Act::PanicAtStep => panic!("as the script says"),
        }
    }

    fn next_step(&self) -> Option<NextStep> {
        match self.acts.as_slice().first()? {
            Act::Report(Progress::Step { .. }) | Act::PanicAtStep => {
                Some(NextStep { size: (1, 2), shareable: true, adapter: None })
            }
            _ => None,
        }
    }

    fn latents(&self) -> Option<&Array4<f32>> {
        Some(&self.editor.latents)
    }

    fn preview(&mut self) -> Result<Option<RgbImage>, EditError> {
        Ok(Some(RgbImage::new(16, 8)))
    }
}
