//! Stages that compute on threads of their own.
//!
//! An operation that a thread outside of rayon's pool asks for is handed over to the pool, and the thread sleeps until it
//! is done. A session that runs on a thread of the pool is handed over once, not at every operation, which takes a third off
//! an edit of a small model.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use smartedit_core::engine::EngineError;
use smartedit_core::stage::{LoadError, Session, Stage, StageError, StageInfo, StageKind};
use smartedit_core::tensor::Tensors;
use smartedit_core::weights::Update;

thread_local! {
    /// The pools of whoever drives stages on this thread, by size: what it drives never runs at the same time, so
    /// that its stages share them, and no other driver's work gets in between.
    static POOLS: RefCell<BTreeMap<Count, Rc<ThreadPool>>> = const { RefCell::new(BTreeMap::new()) };
}

/// A number of threads; without one, as many as there are cores, or as `RAYON_NUM_THREADS` says.
type Count = Option<NonZeroUsize>;

/// Makes every session of a stage compute with so many threads, and no others.
pub(crate) fn on_threads(stage: Arc<dyn Stage>, threads: Count) -> Result<Arc<dyn Stage>, LoadError> {
    pool(threads).map_err(|error| LoadError::Unavailable {
        engine: stage.info().engine,
        stage: stage.info().kind,
        reason: match threads {
            Some(threads) => format!("{threads} threads cannot be started: {error}"),
            None => format!("a thread for each core cannot be started: {error}"),
        },
        remedy: "set `threads` to less".to_owned(),
    })?;
    Ok(Arc::new(OnThreads { stage, threads }))
}

/// This thread's pool of a size, started where there is none yet.
fn pool(threads: Count) -> Result<Rc<ThreadPool>, ThreadPoolBuildError> {
    if let Some(pool) = POOLS.with_borrow(|pools| pools.get(&threads).cloned()) {
        return Ok(pool);
    }
    let builder = ThreadPoolBuilder::new().num_threads(threads.map_or(0, NonZeroUsize::get));
    let pool = Rc::new(builder.thread_name(|index| format!("candle-{index}")).build()?);
    POOLS.with_borrow_mut(|pools| pools.insert(threads, pool.clone()));
    Ok(pool)
}

struct OnThreads {
    stage: Arc<dyn Stage>,
    threads: Count,
}

impl Stage for OnThreads {
    fn info(&self) -> &StageInfo {
        self.stage.info()
    }

    fn session(&self) -> Box<dyn Session> {
        Box::new(OnThreadsSession {
            session: self.stage.session(),
            threads: self.threads,
            stage: self.stage.info().kind,
        })
    }

    fn batches(&self) -> bool {
        self.stage.batches()
    }

    fn run_together(
        &self,
        sessions: &mut [&mut dyn Session],
        inputs: &[Tensors],
    ) -> Result<Vec<Result<Tensors, StageError>>, StageError> {
        let stage = self.info().kind;
        let mut inner: Vec<&mut dyn Session> = Vec::with_capacity(sessions.len());
        for session in sessions {
            let session: &mut dyn Any = *session;
            let own = session.downcast_mut::<OnThreadsSession>().ok_or(StageError::Foreign { stage })?;
            inner.push(own.session.as_mut());
        }
        install(self.threads, stage, || self.stage.run_together(&mut inner, inputs))?
    }

    fn updates(&self) -> bool {
        self.stage.updates()
    }

    fn updated(&self, updates: &[Update]) -> Result<Arc<dyn Stage>, LoadError> {
        Ok(Arc::new(Self { stage: self.stage.updated(updates)?, threads: self.threads }))
    }
}

/// Runs something on this thread's pool of a size.
fn install<T: Send>(
    threads: Count,
    stage: StageKind,
    run: impl FnOnce() -> T + Send,
) -> Result<T, StageError> {
    let pool = pool(threads)
        .map_err(|error| StageError::Engine { stage, source: EngineError::new("threads", error) })?;
    Ok(pool.install(run))
}

struct OnThreadsSession {
    session: Box<dyn Session>,
    threads: Count,
    stage: StageKind,
}

impl Session for OnThreadsSession {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, StageError> {
        install(self.threads, self.stage, || self.session.run(inputs))?
    }

    fn fork(&self) -> Option<Box<dyn Session>> {
        let session = self.session.fork()?;
        Some(Box::new(Self { session, threads: self.threads, stage: self.stage }))
    }
}

#[cfg(test)]
mod tests {
    use smartedit_core::engine::Precision;

    use super::*;

    /// A stage that tells how many threads it runs on.
    struct Counting(StageInfo);

    impl Stage for Counting {
        fn info(&self) -> &StageInfo {
            &self.0
        }

        fn session(&self) -> Box<dyn Session> {
            Box::new(CountingSession)
        }
    }

    struct CountingSession;

    impl Session for CountingSession {
        fn run(&mut self, _: &Tensors) -> Result<Tensors, StageError> {
            Ok(Tensors::new().with("threads", ndarray::arr1(&[rayon::current_num_threads() as i64])))
        }
    }

    /// Zero is without a number.
    fn counting(threads: usize) -> Arc<dyn Stage> {
        let info = StageInfo {
            kind: StageKind::Denoiser,
            engine: "candle",
            device: "cpu".to_owned(),
            precision: Precision::F32,
            provider: None,
            weight_bytes: 0,
        };
        on_threads(Arc::new(Counting(info)), NonZeroUsize::new(threads)).unwrap()
    }

    fn count(stage: &dyn Stage) -> i64 {
        stage.session().run(&Tensors::new()).unwrap().i64("threads").unwrap()[0]
    }

    #[test]
    fn each_stage_has_its_threads() {
        let (three, five) = (counting(3), counting(5));
        assert_eq!((count(three.as_ref()), count(five.as_ref()), count(three.as_ref())), (3, 5, 3));
        assert_eq!(count(counting(0).as_ref()), rayon::current_num_threads() as i64);
    }

    #[test]
    fn stages_of_one_driver_share_pools_of_equal_size() {
        let driver = std::thread::Builder::new().spawn(|| {
            let _stages = [counting(2), counting(2), counting(3)];
            POOLS.with_borrow(BTreeMap::len)
        });
        assert_eq!(driver.unwrap().join().unwrap(), 2);
    }
}
