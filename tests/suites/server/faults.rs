//! The engine candle, whose stages misbehave where a test says so.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smartedit_candle::CandleBackend;
use smartedit_core::engine::EngineError;
use smartedit_core::model::NetworkConfig;
use smartedit_core::stage::{
    Backend, LoadError, Session, Stage, StageError, StageInfo, StageKind, StageOptions,
};
use smartedit_core::tensor::Tensors;
use smartedit_core::weights::WeightFile;
use smartedit_server::config::{CacheConfig, DeploymentConfig};
use smartedit_server::deployment::{EngineLoader, Loader, NotLoaded};
use smartedit_server::engines::Engines;
use smartedit_server::work::Editor;
use tokio::sync::watch;

/// What only the log may say of a fault.
pub(crate) const SECRET: &str = "the secret reason";

/// How a stage misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its engine reports an error.
    Error,
    /// It panics.
    Panic,
    /// It does not come to an end before it is let go.
    Hang,
}

/// Makes stages misbehave. Cloning shares it.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<Shared>);

#[derive(Default)]
struct Shared {
    armed: Mutex<Option<Armed>>,
    sessions: AtomicU64,
    /// Runs of stages.
    runs: AtomicU64,
    hanging: watch::Sender<bool>,
}

/// A fault of one stage, in the session that runs first.
struct Armed {
    kind: StageKind,
    fault: Fault,
    victim: Option<u64>,
}

impl Faults {
    /// Lets a stage misbehave in the one session of it that runs next, however often that runs.
    pub(crate) fn arm(&self, kind: StageKind, fault: Fault) {
        *self.armed() = Some(Armed { kind, fault, victim: None });
    }

    /// Ends all misbehaviour; whether there has been any.
    pub(crate) fn disarm(&self) -> bool {
        let struck = self.armed().take().is_some_and(|armed| armed.victim.is_some());
        self.0.hanging.send_replace(false);
        struck
    }

    /// Whether a stage hangs.
    pub(crate) fn is_hanging(&self) -> bool {
        *self.0.hanging.borrow()
    }

    /// Runs of stages so far.
    pub(crate) fn runs(&self) -> u64 {
        self.0.runs.load(Ordering::SeqCst)
    }

    /// A run of a stage for these sessions.
    fn run(&self, kind: StageKind, sessions: &[u64]) -> Result<(), StageError> {
        self.0.runs.fetch_add(1, Ordering::SeqCst);
        match self.strikes(kind, sessions) {
            None => Ok(()),
            Some(Fault::Error) => {
                Err(StageError::Engine { stage: kind, source: EngineError::new("matmul", SECRET) })
            }
            Some(Fault::Panic) => panic!("{SECRET}"),
            Some(Fault::Hang) => {
                self.0.hanging.send_replace(true);
                let mut hanging = self.0.hanging.subscribe();
                let _ = tokio::runtime::Handle::current().block_on(hanging.wait_for(|hanging| !*hanging));
                Ok(())
            }
        }
    }

    fn strikes(&self, kind: StageKind, sessions: &[u64]) -> Option<Fault> {
        let mut armed = self.armed();
        let armed = armed.as_mut().filter(|armed| armed.kind == kind)?;
        let victim = *armed.victim.get_or_insert(*sessions.first()?);
        sessions.contains(&victim).then_some(armed.fault)
    }

    fn armed(&self) -> MutexGuard<'_, Option<Armed>> {
        self.0.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A loader of models whose stages may misbehave.
    pub(crate) fn loader(&self, cache: CacheConfig) -> Arc<dyn Loader> {
        let mut engines = Engines::default();
        engines.add(Arc::new(FaultyBackend { candle: CandleBackend::new(), faults: self.clone() }));
        Arc::new(FaultyLoader(EngineLoader::new(engines, &cache)))
    }
}

struct FaultyLoader(EngineLoader);

impl Loader for FaultyLoader {
    fn load(&self, config: &DeploymentConfig) -> Result<Arc<dyn Editor>, NotLoaded> {
        self.0.load(config)
    }
}

struct FaultyBackend {
    candle: CandleBackend,
    faults: Faults,
}

impl Backend for FaultyBackend {
    fn name(&self) -> &'static str {
        self.candle.name()
    }

    fn check(&self, stage: StageKind, options: &StageOptions) -> Result<(), LoadError> {
        self.candle.check(stage, options)
    }

    fn load(
        &self,
        config: &NetworkConfig,
        weights: &WeightFile,
        options: &StageOptions,
    ) -> Result<Arc<dyn Stage>, LoadError> {
        let stage = self.candle.load(config, weights, options)?;
        Ok(Arc::new(FaultyStage { stage, faults: self.faults.clone() }))
    }
}

struct FaultyStage {
    stage: Arc<dyn Stage>,
    faults: Faults,
}

impl FaultyStage {
    fn kind(&self) -> StageKind {
        self.stage.info().kind
    }
}

impl Stage for FaultyStage {
    fn info(&self) -> &StageInfo {
        self.stage.info()
    }

    fn session(&self) -> Box<dyn Session> {
        let (session, kind, faults) = (self.stage.session(), self.kind(), self.faults.clone());
        let number = faults.0.sessions.fetch_add(1, Ordering::SeqCst);
        Box::new(FaultySession { number, kind, session, faults })
    }

    fn batches(&self) -> bool {
        self.stage.batches()
    }

    fn run_together(
        &self,
        sessions: &mut [&mut dyn Session],
        inputs: &[Tensors],
    ) -> Result<Vec<Result<Tensors, StageError>>, StageError> {
        let mut sessions: Vec<&mut FaultySession> = sessions
            .iter_mut()
            .map(|session| {
                let session: &mut dyn Any = *session;
                session.downcast_mut().expect("sessions come from this stage")
            })
            .collect();
        let numbers: Vec<u64> = sessions.iter().map(|session| session.number).collect();
        self.faults.run(self.kind(), &numbers)?;
        let mut inner: Vec<&mut dyn Session> =
            sessions.iter_mut().map(|session| session.session.as_mut()).collect();
        self.stage.run_together(&mut inner, inputs)
    }
}

struct FaultySession {
    number: u64,
    kind: StageKind,
    session: Box<dyn Session>,
    faults: Faults,
}

impl Session for FaultySession {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, StageError> {
        self.faults.run(self.kind, &[self.number])?;
        self.session.run(inputs)
    }

    fn fork(&self) -> Option<Box<dyn Session>> {
        let session = self.session.fork()?;
        let number = self.faults.0.sessions.fetch_add(1, Ordering::SeqCst);
        Some(Box::new(Self { number, kind: self.kind, session, faults: self.faults.clone() }))
    }
}
