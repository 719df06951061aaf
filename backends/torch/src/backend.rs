//! libtorch as a backend: devices, precisions and loading.

use std::sync::Arc;

use smartedit_core::model::NetworkConfig;
use smartedit_core::stage::{
    Backend, GraphOptimization, LoadError, Stage, StageInfo, StageKind, StageOptions,
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
        device(stage, options)?;
        options.program.as_ref().map_or(Ok(()), |program| program.file_bytes(stage).map(drop))
    }

    fn load(
        &self,
        config: &NetworkConfig,
        weights: &WeightFile,
        options: &StageOptions,
    ) -> Result<Arc<dyn Stage>, LoadError> {
        let kind = config.kind();
        let device = device(kind, options)?;
        smartedit_allocator::keep_freed();
        let mut info = StageInfo {
            kind,
            engine: NAME,
            device: options.device.clone(),
            precision: options.precision,
            provider: None,
            weight_bytes: weights.tensor_bytes(),
        };
        if let Some(program) = &options.program {
            info.weight_bytes = program.file_bytes(kind)?;
            let script =
                TorchScript::load(program, config, device, engine::kind(options.precision), options.threads);
            let script = script.map_err(|message| program.unfit(kind, message))?;
            return stages::program::load(script, program, config, info);
        }
        let engine = TorchEngine::new(device, options.precision).with_threads(options.threads);
        stages::load(Arc::new(engine), config, weights, info)
    }
}

/// The device of the options, all of which libtorch can take.
fn device(stage: StageKind, options: &StageOptions) -> Result<Device, LoadError> {
    let refuse = |option, message: String| Err(LoadError::Option { engine: NAME, stage, option, message });
    if !options.providers.is_empty() {
        let message = "it has no execution providers; use the engine `onnx`".to_owned();
        return refuse("providers", message);
    }
    if options.graph_optimization != GraphOptimization::default() {
        return refuse("graph_optimization", "it rewrites no graph; use the engine `onnx`".to_owned());
    }
    if let Some(threads) = options.threads.filter(|threads| threads.get() > threads::MAX) {
        return refuse("threads", format!("{threads} is more than {}", threads::MAX));
    }
    let name = options.device.as_str();
    let (family, index) = name.split_once(':').unwrap_or((name, "0"));
    match (family, index.parse()) {
        ("cpu", _) if name == "cpu" => Ok(Device::Cpu),
        ("cuda", Ok(index)) => cuda(stage, index),
        _ => refuse("device", format!("`{name}` is unknown; use `cpu` or `cuda:N`")),
    }
}

fn cuda(stage: StageKind, index: usize) -> Result<Device, LoadError> {
    let unavailable = |reason: String, remedy: &str| {
        Err(LoadError::Unavailable { engine: NAME, stage, reason, remedy: remedy.to_owned() })
    };
    if !tch::utils::has_cuda() {
        return unavailable(
            format!("there is no CUDA for the device `cuda:{index}`"),
            "build with LIBTORCH set to a libtorch with CUDA, on a machine with a driver for it",
        );
    }
    let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
    if index >= count {
        let reason = format!("there is no device `cuda:{index}`; devices: {count}");
        return unavailable(reason, "use `cuda:N` with N below that number");
    }
    Ok(Device::Cuda(index))
}

#[cfg(test)]
mod tests {
    use smartedit_core::stage::Provider;

    use super::*;

    fn problem(options: StageOptions) -> LoadError {
        TorchBackend::new().check(StageKind::Denoiser, &options).expect_err("the options cannot be had")
    }

    #[test]
    fn options_that_libtorch_does_not_have_are_named() {
        let plain = StageOptions::default;
        let provider = Provider { name: "cuda".to_owned(), options: Default::default() };
        for (option, options) in [
            ("providers", StageOptions { providers: vec![provider], ..plain() }),
            ("graph_optimization", StageOptions { graph_optimization: GraphOptimization::Basic, ..plain() }),
            ("threads", StageOptions { threads: std::num::NonZeroUsize::new(1_000_000), ..plain() }),
            ("device", StageOptions { device: "metal:0".to_owned(), ..plain() }),
            ("device", StageOptions { device: "cpu:1".to_owned(), ..plain() }),
        ] {
            let LoadError::Option { option: found, .. } = problem(options) else { panic!("{option}") };
            assert_eq!(found, option);
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let error = problem(StageOptions { device: "cuda:99".to_owned(), ..StageOptions::default() });
        let LoadError::Unavailable { reason, .. } = &error else { panic!("{error}") };
        assert!(reason.contains("cuda:99"), "{error}");
    }
}
