//! Real models that are watched at work, and held up where a test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::RgbImage;
use ndarray::Array4;
use smartedit_core::model::ModelConfig;
use smartedit_core::pipeline::{EditError, EditRequest, NextStep, Progress};
use smartedit_core::stage::{Stage, StageError, StageKind};
use smartedit_server::config::{AdaptersConfig, CacheConfig, DeploymentConfig};
use smartedit_server::deployment::{Adapters, EngineLoader, Loader, NotLoaded, PlacedStage};
use smartedit_server::engines::Engines;
use smartedit_server::work::{Editing, Editor, StepsDone};
use tokio::sync::watch;

/// What models have done since they were loaded. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Witness {
    seen: Arc<Seen>,
    adapters: AdaptersConfig,
}

struct Seen {
    steps: watch::Sender<usize>,
    finished: AtomicUsize,
    /// How many steps may be done before work waits.
    allowed: watch::Sender<usize>,
}

impl Witness {
    /// Sees to it that no more than so many steps are done.
    pub(crate) fn allowing(steps: usize) -> Self {
        let seen = Seen {
            steps: watch::Sender::new(0),
            finished: AtomicUsize::new(0),
            allowed: watch::Sender::new(steps),
        };
        Self { seen: Arc::new(seen), adapters: AdaptersConfig::default() }
    }

    /// The same with other bounds of adapters.
    pub(crate) fn with_adapters(self, adapters: AdaptersConfig) -> Self {
        Self { adapters, ..self }
    }

    /// Lets all work go on.
    pub(crate) fn release(&self) {
        self.seen.allowed.send_replace(usize::MAX);
    }

    /// Denoising steps done.
    pub(crate) fn steps(&self) -> usize {
        *self.seen.steps.borrow()
    }

    /// Waits until there has been a denoising step.
    pub(crate) async fn saw_a_step(&self) {
        self.seen.steps.subscribe().wait_for(|steps| *steps > 0).await.unwrap();
    }

    /// Edits that went to their end.
    pub(crate) fn finished(&self) -> usize {
        self.seen.finished.load(Ordering::SeqCst)
    }

    fn saw(&self, progress: &Progress) {
        match progress {
            Progress::Step { .. } => {
                self.seen.steps.send_modify(|steps| *steps += 1);
                self.hold(self.steps());
            }
            Progress::Finished(_) => drop(self.seen.finished.fetch_add(1, Ordering::SeqCst)),
            _ => {}
        }
    }

    /// Waits, on the worker's own thread, until more steps are allowed than were done.
    fn hold(&self, done: usize) {
        let mut allowed = self.seen.allowed.subscribe();
        let enough = allowed.wait_for(|allowed| done < *allowed);
        let _ = tokio::runtime::Handle::current().block_on(enough);
    }
}

/// Loads models on the engines of this build, under the witness's eyes.
impl Loader for Witness {
    fn load(&self, config: &DeploymentConfig) -> Result<Arc<dyn Editor>, NotLoaded> {
        let loader = EngineLoader::new(Engines::built_in(), &CacheConfig::default());
        let model = loader.with_adapters(&self.adapters).load(config)?;
        Ok(Arc::new(Watched { model, witness: self.clone() }))
    }
}

struct Watched<T> {
    model: T,
    witness: Witness,
}

impl Editor for Watched<Arc<dyn Editor>> {
    fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    fn stages(&self) -> &[PlacedStage] {
        self.model.stages()
    }

    fn stage(&self, kind: StageKind) -> Option<Arc<dyn Stage>> {
        self.model.stage(kind)
    }

    fn adapters(&self) -> Option<&Adapters> {
        self.model.adapters()
    }

    fn edit(self: Arc<Self>, request: EditRequest) -> Result<Box<dyn Editing>, EditError> {
        let model = self.model.clone().edit(request)?;
        Ok(Box::new(Watched { model, witness: self.witness.clone() }))
    }

    fn step_together(&self, _: &mut [&mut dyn Editing]) -> Result<StepsDone, StageError> {
        Err(StageError::Foreign { stage: StageKind::Denoiser })
    }
}

impl Editing for Watched<Box<dyn Editing>> {
    fn advance(&mut self) -> Result<Progress, EditError> {
        let progress = self.model.advance()?;
        self.witness.saw(&progress);
        Ok(progress)
    }

    /// What is watched has runs of its own.
    fn next_step(&self) -> Option<NextStep> {
        self.model.next_step().map(|step| NextStep { shareable: false, ..step })
    }

    fn latents(&self) -> Option<&Array4<f32>> {
        self.model.latents()
    }

    fn preview(&mut self) -> Result<Option<RgbImage>, EditError> {
        self.model.preview()
    }
}
