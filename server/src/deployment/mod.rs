//! Deployments: models, what computes them, and the workers and queue in front of them.

mod adapters;
mod adapting;
mod change;
mod lease;
mod loader;
mod placed;
mod registry;
mod rules;
mod turns;
mod warm_up;
mod words;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use smartedit_core::stage::StageKind;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::config::{DeploymentConfig, Limits};
use crate::failure::Failure;
use crate::work::{Editor, Lane, Queue, Rules, work};

use self::rules::rules;
use self::warm_up::warm_up;
pub use adapters::{AdapterInfo, AdapterNotLoaded, Adapters};
pub use adapting::LoadAdapter;
pub use change::{Applied, Load, Others};
pub use lease::Lease;
pub use loader::{EngineLoader, Loader, NotLoaded};
pub use placed::{PlacedStage, Unavailable};
pub use registry::Deployments;
pub(crate) use words::without_paths;

/// A version of a model under a name, with its queue and workers.
pub struct Deployment {
    name: String,
    version: u64,
    config: DeploymentConfig,
    rules: Rules,
    queue: Arc<Queue>,
    lane: Mutex<Option<Arc<Lane>>>,
    state: watch::Sender<State>,
    /// Told of every new state.
    changes: watch::Sender<u64>,
    /// Whoever uses it, or is about to, holds a receiver.
    leases: watch::Sender<()>,
    workers: Mutex<Vec<JoinHandle<()>>>,
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
    /// It is no longer served.
    Unloaded,
}

impl Deployment {
    /// Starts to load a deployment on a thread of its own, which then is its first worker.
    pub(crate) fn start(
        (name, version): (&str, u64),
        config: &DeploymentConfig,
        limits: &Limits,
        loader: Arc<dyn Loader>,
        changes: watch::Sender<u64>,
    ) -> Arc<Self> {
        let rules = rules(config, limits);
        let deployment = Arc::new(Self {
            name: name.to_owned(),
            version,
            config: config.clone(),
            rules,
            queue: Arc::new(Queue::new(rules)),
            lane: Mutex::default(),
            state: watch::channel(State::Loading).0,
            changes,
            leases: watch::Sender::new(()),
            workers: Mutex::default(),
        });
        let first = deployment.clone();
        deployment.spawn(0, move || first.load(loader.as_ref()));
        deployment
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version: 1 for the first that is loaded under the name, and so on.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What it was configured with.
    pub fn config(&self) -> &DeploymentConfig {
        &self.config
    }

    /// Where jobs go.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Where runs of single stages go. It is opened when it is first asked for.
    ///
    /// # Errors
    ///
    /// Its threads cannot be started.
    pub fn lane(&self) -> io::Result<Arc<Lane>> {
        let mut lane = self.lane.lock().unwrap_or_else(PoisonError::into_inner);
        match &*lane {
            Some(lane) => Ok(lane.clone()),
            None => Ok(lane.insert(Arc::new(Lane::open(&self.name, &self.rules)?)).clone()),
        }
    }

    /// Runs of single stages that wait.
    pub fn stages_waiting(&self) -> usize {
        let lane = self.lane.lock().unwrap_or_else(PoisonError::into_inner);
        lane.as_ref().map_or(0, |lane| lane.waiting())
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
            State::Unloaded => Err(Failure::Unloaded(self.name.clone())),
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

    /// Lets go of the model; the workers end once nothing waits, and what they have of it with them.
    pub fn close(&self) {
        self.enter(State::Unloaded);
        self.queue.close();
    }

    /// Lets those finish who use it, and then lets go of the model. Returns when nothing of it is left; what has been
    /// begun goes on though the future be dropped.
    pub(crate) fn retire(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        let retiring = tokio::spawn(async move {
            self.leases.closed().await;
            self.close();
            self.ended().await;
        });
        async move {
            // It cannot panic, and nothing aborts it.
            let _ = retiring.await;
        }
    }

    /// Waits until its threads are gone, and what they had with them.
    async fn ended(self: Arc<Self>) {
        let (all, gone) = oneshot::channel();
        let name = format!("{}-end", self.name);
        let join = move || {
            // One that ends may have started others.
            while let Some(worker) = self.workers().pop() {
                let _ = worker.join();
            }
            let _ = all.send(());
        };
        match std::thread::Builder::new().name(name).spawn(join) {
            Ok(_) => drop(gone.await),
            Err(error) => {
                tracing::warn!(error = error.to_string(), "cannot wait for the threads of a deployment");
            }
        }
    }

    fn workers(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a state on, unless it is no longer served. Tells whether it has.
    fn enter(&self, state: State) -> bool {
        let entered = self.state.send_if_modified(|current| {
            let goes_on = !matches!(current, State::Unloaded);
            if goes_on {
                *current = state;
            }
            goes_on
        });
        self.changes.send_modify(|changes| *changes += 1);
        entered
    }

    fn load(self: Arc<Self>, loader: &dyn Loader) {
        let _span = tracing::info_span!("load", deployment = self.name, version = self.version).entered();
        let started = std::time::Instant::now();
        let load = || {
            let editor = loader.load(&self.config)?;
            if self.config.warm_up {
                warm_up(&editor)?;
            }
            Ok(editor)
        };
        let loaded = catch_unwind(AssertUnwindSafe(load))
            .unwrap_or_else(|_| Err(NotLoaded::internal(anyhow::anyhow!("loading panicked"))));
        let editor = match loaded {
            Ok(editor) => editor,
            Err(NotLoaded { public, source }) => {
                tracing::error!(error = format!("{source:#}"), "deployment failed");
                self.enter(State::Failed(public));
                return;
            }
        };
        if !self.enter(State::Ready(editor.clone())) {
            return;
        }
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
        match std::thread::Builder::new().name(name).spawn(body) {
            Ok(worker) => self.workers().push(worker),
            Err(error) => {
                tracing::error!(deployment = self.name, error = error.to_string(), "cannot start a worker");
                if index == 0 {
                    self.enter(State::Failed("its worker could not be started".to_owned()));
                }
            }
        }
    }
}
