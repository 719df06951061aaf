//! candle as a backend: devices, precisions and loading.

use std::sync::Arc;

use candle_core::Device;
use smartedit_core::engine::Precision;
use smartedit_core::model::NetworkConfig;
use smartedit_core::stage::{Backend, LoadError, Stage, StageInfo, StageKind, StageOptions};
use smartedit_core::stages;
use smartedit_core::weights::WeightFile;

use crate::CandleEngine;

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
        let engine = CandleEngine::new(device(kind, options)?, options.precision);
        let info = StageInfo {
            kind,
            engine: NAME,
            device: options.device.clone(),
            precision: options.precision,
            provider: None,
            weight_bytes: weights.tensor_bytes(),
        };
        stages::load(Arc::new(engine), config, weights, info)
    }
}

fn device(stage: StageKind, options: &StageOptions) -> Result<Device, LoadError> {
    let unavailable = |reason: String, remedy: &str| LoadError::Unavailable {
        engine: NAME,
        stage,
        reason,
        remedy: remedy.to_owned(),
    };
    let name = options.device.as_str();
    let (family, index) = name.split_once(':').unwrap_or((name, "0"));
    let device = match (family, index.parse()) {
        ("cpu", _) if name == "cpu" => Ok(Device::Cpu),
        ("cuda", Ok(index)) => Device::new_cuda(index)
            .map_err(|e| unavailable(e.to_string(), "build with the feature `cuda` on a machine with CUDA")),
        ("metal", Ok(index)) => Device::new_metal(index)
            .map_err(|e| unavailable(e.to_string(), "build with the feature `metal` on macOS")),
        _ => Err(unavailable(format!("device `{name}` is unknown"), "use `cpu`, `cuda:N` or `metal:N`")),
    }?;
    if device.is_cpu() && options.precision == Precision::F16 {
        return Err(unavailable(
            "f16 is not supported on a CPU".to_owned(),
            "use the precision `f32` or `bf16`",
        ));
    }
    Ok(device)
}
