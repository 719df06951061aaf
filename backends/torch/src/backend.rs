//! libtorch as a backend: devices, precisions and loading.

use std::sync::Arc;

use smartedit_core::model::NetworkConfig;
use smartedit_core::stage::{
    Backend, GraphOptimization, LoadError, Program, Stage, StageInfo, StageKind, StageOptions,
};
use smartedit_core::stages;
use smartedit_core::weights::WeightFile;
use tch::{Cuda, Device};

use crate::program::TorchScript;
use crate::{TorchEngine, engine, threads};

const NAME: &str = "torch";

/// Loads stages onto libtorch.
#[derive(Debug, Default)]
pub struct TorchBackend;

impl TorchBackend {
    /// The backend; it holds no state.
    pub fn new() -> Self {
        Self
    }
}

impl Backend for TorchBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, stage: StageKind, options: &StageOptions) -> Result<(), LoadError> {
        check(options).map_err(|problem| problem.at(stage))?;
        options.program.as_ref().map_or(Ok(()), |program| file_bytes(stage, program).map(drop))
    }

    fn load(
        &self,
        config: &NetworkConfig,
        weights: &WeightFile,
        options: &StageOptions,
    ) -> Result<Arc<dyn Stage>, LoadError> {
        let kind = config.kind();
        let device = check(options).map_err(|problem| problem.at(kind))?;
        let mut info = StageInfo {
            kind,
            engine: NAME,
            device: options.device.clone(),
            precision: options.precision,
            provider: None,
            weight_bytes: weights.tensor_bytes(),
        };
        if let Some(program) = &options.program {
            info.weight_bytes = file_bytes(kind, program)?;
            let script =
                TorchScript::load(program, config, device, engine::kind(options.precision), options.threads);
            let script = script.map_err(|message| unfit(kind, program, message))?;
            return stages::program::load(script, program, config, info);
        }
        let engine = TorchEngine::new(device, options.precision).with_threads(options.threads);
        stages::load(Arc::new(engine), config, weights, info)
    }
}

/// The size of a program's file, which must be one.
fn file_bytes(stage: StageKind, program: &Program) -> Result<u64, LoadError> {
    let metadata = std::fs::metadata(&program.file)
        .map_err(|e| unfit(stage, program, format!("cannot be read: {e}")))?;
    if metadata.is_file() {
        Ok(metadata.len())
    } else {
        Err(unfit(stage, program, "is not a file".to_owned()))
    }
}

fn unfit(stage: StageKind, program: &Program, message: String) -> LoadError {
    LoadError::Program { stage, file: program.file.clone(), message }
}

/// Why options cannot be had here, and what to do about it.
struct Problem {
    reason: String,
    remedy: &'static str,
}

impl Problem {
    fn at(self, stage: StageKind) -> LoadError {
        LoadError::Unavailable { engine: NAME, stage, reason: self.reason, remedy: self.remedy.to_owned() }
    }
}

/// The device, if everything that the options ask for can be had.
fn check(options: &StageOptions) -> Result<Device, Problem> {
    let problem = |reason: String, remedy| Err(Problem { reason, remedy });
    if !options.providers.is_empty() {
        let reason = "it has no execution providers".to_owned();
        return problem(reason, "remove `providers`, or use the engine `onnx`");
    }
    if options.graph_optimization != GraphOptimization::default() {
        let reason = "it rewrites no graph".to_owned();
        return problem(reason, "remove `graph_optimization`, or use the engine `onnx`");
    }
    if let Some(threads) = options.threads.filter(|threads| threads.get() > threads::MAX) {
        let reason = format!("{threads} threads are more than {}", threads::MAX);
        return problem(reason, "use as many threads as there are cores");
    }
    let name = options.device.as_str();
    let (family, index) = name.split_once(':').unwrap_or((name, "0"));
    match (family, index.parse()) {
        ("cpu", _) if name == "cpu" => Ok(Device::Cpu),
        ("cuda", Ok(index)) => cuda(index),
        _ => problem(format!("device `{name}` is unknown"), "use `cpu` or `cuda:N`"),
    }
}

fn cuda(index: usize) -> Result<Device, Problem> {
    let problem = |reason: String, remedy| Err(Problem { reason, remedy });
    if !tch::utils::has_cuda() {
        let reason = "there is no CUDA here".to_owned();
        return problem(
            reason,
            "build with LIBTORCH set to a libtorch with CUDA, on a machine with a driver for it",
        );
    }
    let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
    if index >= count {
        let reason = format!("there is no device `cuda:{index}`; devices: {count}");
        return problem(reason, "use `cuda:N` with N below that number");
    }
    Ok(Device::Cuda(index))
}
