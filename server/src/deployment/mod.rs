//! Deployments: models, what computes them, and the workers and queue in front of them.

mod loader;
mod placed;
mod registry;
mod rules;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use smartedit_core::stage::StageKind;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::config::{DeploymentConfig, Limits};
use crate::failure::Failure;
use crate::work::{Editor, Queue, Rules, work};

use self::rules::rules;
pub use loader::{EngineLoader, Loader, NotLoaded};
pub use placed::{PlacedStage, Unavailable};
pub use registry::Deployments;

/// A model under a name, with its queue and workers.
pub struct Deployment {
    name: String,
    rules: Rules,
    queue: Arc<Queue>,
    state: watch::Sender<State>,
}

/// Whether a deployment can be used.
#[derive(Clone)]
pub enum State {
    /// Its model is being loaded.
    Loading,
    /// It takes requests.
    Ready(Arc<dyn Editor>),
    /// It could not be loaded, for this reason, in words that a caller may read.
    Failed(String),
}

impl Deployment {
    /// Starts to load a deployment on a thread of its own, which then is its first worker.
    pub fn start(
        name: &str,
        config: &DeploymentConfig,
        limits: &Limits,
        loader: Arc<dyn Loader>,
    ) -> Arc<Self> {
        let rules = rules(config, limits);
        let queue = Queue::new(rules);
        let (state, _) = watch::channel(State::Loading);
        let deployment = Arc::new(Self { name: name.to_owned(), rules, queue: Arc::new(queue), state });
        let first = deployment.clone();
        let config = config.clone();
        deployment.spawn(0, move || first.load(&config, loader.as_ref()));
        deployment
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where jobs go.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Edits that share a run of the denoiser, at most, if this model computes them.
    pub fn max_batch(&self, editor: &dyn Editor) -> usize {
        let denoiser = editor.stages().iter().find(|placed| placed.info.kind == StageKind::Denoiser);
        if denoiser.is_none_or(|placed| placed.batches) { self.rules.max_batch } else { 1 }
    }

    /// Whether it can be used.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Follows whether it can be used.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The model, if it can be used.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    pub fn editor(&self) -> Result<Arc<dyn Editor>, Failure> {
        match self.state() {
            State::Ready(editor) => Ok(editor),
            State::Loading => Err(Failure::Loading(self.name.clone())),
            State::Failed(reason) => Err(Failure::NotLoaded { name: self.name.clone(), reason }),
        }
    }

    /// Waits until it can be used.
    ///
    /// # Errors
    ///
    /// It could not be loaded.
    pub async fn loaded(&self) -> Result<(), Failure> {
        // The sender is this deployment's own: it is not gone.
        let _ = self.watch().wait_for(|state| !matches!(state, State::Loading)).await;
        self.editor().map(drop)
    }

    /// Ends the workers once nothing waits.
    pub fn close(&self) {
        self.queue.close();
    }

    fn load(self: Arc<Self>, config: &DeploymentConfig, loader: &dyn Loader) {
        let _span = tracing::info_span!("load", deployment = self.name).entered();
        let started = std::time::Instant::now();
        let loaded = catch_unwind(AssertUnwindSafe(|| loader.load(config)))
            .unwrap_or_else(|_| Err(NotLoaded::internal(anyhow::anyhow!("loading panicked"))));
        let editor = match loaded {
            Ok(editor) => editor,
            Err(NotLoaded { public, source }) => {
                tracing::error!(error = format!("{source:#}"), "deployment failed");
                self.state.send_replace(State::Failed(public));
                return;
            }
        };
        tracing::info!(
            model = editor.config().name,
            seconds = started.elapsed().as_secs_f64(),
            "deployment ready"
        );
        if self.rules.max_batch > 1 && self.max_batch(editor.as_ref()) == 1 {
            tracing::warn!(
                "the denoiser's program takes a fixed number of rows; edits do not share its runs"
            );
        }
        for index in 1..self.rules.workers {
            let (editor, queue) = (editor.clone(), self.queue.clone());
            self.spawn(index, move || work(&editor, &queue, index));
        }
        self.state.send_replace(State::Ready(editor.clone()));
        drop(_span);
        work(&editor, &self.queue, 0);
    }

    /// A worker thread.
    fn spawn(&self, index: usize, body: impl FnOnce() + Send + 'static) {
        // Workers read the time as the runtime does, which tests hold still.
        let runtime = Handle::try_current().ok();
        let body = move || {
            let _runtime = runtime.as_ref().map(Handle::enter);
            body();
        };
        let name = format!("{}-{index}", self.name);
        if let Err(error) = std::thread::Builder::new().name(name).spawn(body) {
            tracing::error!(deployment = self.name, error = error.to_string(), "cannot start a worker");
            if index == 0 {
                self.state.send_replace(State::Failed("its worker could not be started".to_owned()));
            }
        }
    }
}
