//! Other servers as a backend.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smartedit_core::engine::Precision;
use smartedit_core::model::NetworkConfig;
use smartedit_core::stage::{Backend, LoadError, Remote, Stage, StageInfo, StageKind, StageOptions};
use smartedit_core::stages::program::{self, Names};
use smartedit_core::weights::WeightFile;
use tokio::runtime::{Builder, Runtime};

use crate::connection::Connection;
use crate::contract::Contract;
use crate::failure::CallError;
use crate::model::RemoteModel;
use crate::options;

pub(crate) const NAME: &str = "remote";

/// Runs stages on other servers. All connections share one thread; the thread that runs a stage waits for its answer.
#[derive(Default)]
pub struct RemoteBackend {
    io: Mutex<Option<Arc<Io>>>,
}

impl RemoteBackend {
    /// The backend; nothing is started or connected yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn io(&self) -> io::Result<Arc<Io>> {
        let mut io = self.io.lock().unwrap_or_else(PoisonError::into_inner);
        match &*io {
            Some(io) => Ok(io.clone()),
            None => Ok(io.insert(Arc::new(Io::start()?)).clone()),
        }
    }
}

impl Backend for RemoteBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Says nothing of the server, which may not be there yet.
    fn check(&self, stage: StageKind, options: &StageOptions) -> Result<(), LoadError> {
        options::checked(stage, options).map(drop)
    }

    /// The weights are the other server's: these are not looked at.
    fn load(
        &self,
        config: &NetworkConfig,
        _: &WeightFile,
        options: &StageOptions,
    ) -> Result<Arc<dyn Stage>, LoadError> {
        let stage = config.kind();
        let remote = options::checked(stage, options)?;
        let unfit = |message| LoadError::Remote {
            stage,
            url: remote.url.clone(),
            model: remote.model.clone(),
            message,
        };
        let io =
            self.io().map_err(|error| unavailable(stage, error.to_string(), "give the process a thread"))?;
        let connection = io.enter(|| Connection::new(remote)).map_err(|message| LoadError::Option {
            engine: NAME,
            stage,
            option: "remote",
            message,
        })?;
        let patience = Duration::from_millis(remote.load_timeout_ms);
        let described = io.block_on(connection.describe(patience)).map_err(|error| match error {
            CallError::Failed(message) => unfit(message),
            error => missing(stage, remote, &error),
        })?;
        let contract = Contract::of(&described, config, remote).map_err(unfit)?;
        let platform = described.metadata.platform;
        let info = StageInfo {
            kind: stage,
            engine: NAME,
            device: NAME.to_owned(),
            precision: Precision::F32,
            provider: (!platform.is_empty()).then_some(platform),
            weight_bytes: 0,
        };
        let model = RemoteModel {
            io,
            connection,
            contract,
            wanted: program::output_names(config, &remote.outputs),
            raw: remote.raw,
            who: who(remote),
        };
        let names = Names { inputs: &remote.inputs, outputs: &remote.outputs };
        program::bind(model, names, config, info).map_err(unfit)
    }
}

fn who(remote: &Remote) -> String {
    format!("model `{}` of {}", remote.model, remote.url)
}

fn missing(stage: StageKind, remote: &Remote, error: &CallError) -> LoadError {
    let why = match error {
        CallError::Unwanted => format!("no answer within {} ms", remote.load_timeout_ms),
        error => error.to_string(),
    };
    let reason = format!("{}: {why}", who(remote));
    unavailable(stage, reason, "start that server, load the model there, or correct `remote`")
}

fn unavailable(stage: StageKind, reason: String, remedy: &str) -> LoadError {
    LoadError::Unavailable { engine: NAME, stage, reason, remedy: remedy.to_owned() }
}

/// The thread of all connections.
pub(crate) struct Io(Option<Runtime>);

impl Io {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name(NAME).enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("it is taken when it is dropped")
    }

    fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        let _guard = self.runtime().enter();
        work()
    }

    /// Waits for something on this thread, which must not be one of an asynchronous runtime.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime().block_on(future)
    }
}

impl Drop for Io {
    /// Whoever drops the last stage may not wait.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
