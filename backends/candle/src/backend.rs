//! candle as a backend: devices, precisions and loading.

use std::sync::Arc;

use candle_core::Device;
use smartedit_core::engine::Precision;
use smartedit_core::model::NetworkConfig;
use smartedit_core::stage::{
    Backend, GraphOptimization, LoadError, Stage, StageInfo, StageKind, StageOptions,
};
use smartedit_core::stages;
use smartedit_core::weights::WeightFile;

use crate::{CandleEngine, cpu, threads};

const NAME: &str = "candle";

/// Loads stages onto candle.
#[derive(Debug, Default)]
pub struct CandleBackend;

impl CandleBackend {
    /// The backend; it holds no state.
    pub fn new() -> Self {
        Self
    }
}

impl Backend for CandleBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, stage: StageKind, options: &StageOptions) -> Result<(), LoadError> {
        device(stage, options).map(drop)
    }

    fn load(
        &self,
        config: &NetworkConfig,
        weights: &WeightFile,
        options: &StageOptions,
    ) -> Result<Arc<dyn Stage>, LoadError> {
        let kind = config.kind();
        let device = device(kind, options)?;
        let on_cpu = device.is_cpu();
        let engine = CandleEngine::new(device, options.precision);
        let info = StageInfo {
            kind,
            engine: NAME,
            device: options.device.clone(),
            precision: options.precision,
            provider: None,
            weight_bytes: weights.tensor_bytes(),
        };
        let stage = stages::load(Arc::new(engine), config, weights, info)?;
        match on_cpu || options.threads.is_some() {
            true => threads::on_threads(stage, options.threads),
            false => Ok(stage),
        }
    }

    fn release_memory(&self) {
        cpu::free_scratch();
    }
}

/// The device of the options, all of which candle can take.
fn device(stage: StageKind, options: &StageOptions) -> Result<Device, LoadError> {
    let refuse = |option, message: String| LoadError::Option { engine: NAME, stage, option, message };
    if options.program.is_some() {
        let message = "it runs no programs; use `torch` for TorchScript, `onnx` for ONNX".to_owned();
        return Err(refuse("file", message));
    }
    if !options.providers.is_empty() {
        return Err(refuse("providers", "only `onnx` has them; use `device`".to_owned()));
    }
    if options.graph_optimization != GraphOptimization::default() {
        return Err(refuse("graph_optimization", "only `onnx` has graphs".to_owned()));
    }
    let name = options.device.as_str();
    let unavailable = |error: candle_core::Error, remedy: &str| LoadError::Unavailable {
        engine: NAME,
        stage,
        reason: format!("device `{name}` cannot be had: {error}"),
        remedy: remedy.to_owned(),
    };
    let (family, index) = name.split_once(':').unwrap_or((name, "0"));
    let device = match (family, index.parse()) {
        ("cpu", _) if name == "cpu" => Ok(Device::Cpu),
        ("cuda", Ok(index)) => Device::new_cuda(index)
            .map_err(|e| unavailable(e, "build with the feature `cuda` on a machine with CUDA")),
        ("metal", Ok(index)) => {
            Device::new_metal(index).map_err(|e| unavailable(e, "build with the feature `metal` on macOS"))
        }
        _ => {
            let message = format!("`{name}` is unknown; use `cpu`, `cuda:N` or `metal:N`");
            Err(refuse("device", message))
        }
    }?;
    if device.is_cpu() && options.precision == Precision::F16 {
        let message = "`f16` is not supported on a CPU; use `f32` or `bf16`".to_owned();
        return Err(refuse("precision", message));
    }
    Ok(device)
}
