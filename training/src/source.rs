//! Trainable tensors for the networks of `smartedit-core`.

use ndarray::{ArrayD, IxDyn};
use smartedit_core::engine::Engine as _;
use smartedit_core::tensor::HostTensor;
use smartedit_core::weights::{Result, WeightSource, Weights, WeightsError};
use smartedit_torch::{TorchEngine, TorchTensor};
use tch::{Kind, Tensor};

use crate::parameters::{LORA_A, LORA_B, Parameters};

/// Hands a network its parameters such that gradients find their way back to them: in the precision of arithmetic,
/// each with its adapter added. A network is built anew for every step, which costs little.
pub struct Source<'a> {
    parameters: &'a Parameters,
    network: &'a str,
    engine: &'a TorchEngine,
    kind: Kind,
    /// What adapters are multiplied with, α / r.
    lora_scale: f64,
}

impl<'a> Source<'a> {
    /// The parameters of one network, for an engine that computes in `kind`.
    pub fn new(
        parameters: &'a Parameters,
        network: &'a str,
        engine: &'a TorchEngine,
        kind: Kind,
        lora_scale: f64,
    ) -> Self {
        Self { parameters, network, engine, kind, lora_scale }
    }

    /// Builds a network of them.
    pub fn build<N>(&self, load: impl FnOnce(&Weights<'_, TorchTensor>) -> Result<N>) -> Result<N> {
        load(&Weights::root(self))
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let full = |suffix: &str| format!("{}/{name}{suffix}", self.network);
        let tensor = self
            .parameters
            .get(&full(""))
            .ok_or_else(|| WeightsError::Config(format!("there is no parameter {}", full(""))))?;
        if !tensor.size().iter().map(|&size| size as usize).eq(shape.iter().copied()) {
            return Err(WeightsError::Config(format!(
                "{} has shape {:?}, the configuration asks for {shape:?}",
                full(""),
                tensor.size()
            )));
        }
        let layer = name.strip_suffix(".weight").unwrap_or(name);
        let adapter = |suffix: &str| self.parameters.get(&format!("{}/{layer}{suffix}", self.network));
        Ok(match (adapter(LORA_A), adapter(LORA_B)) {
            (Some(a), Some(b)) => tensor + b.matmul(a) * self.lora_scale,
            _ => tensor.shallow_clone(),
        })
    }
}

impl WeightSource<TorchTensor> for Source<'_> {
    fn parameter(&self, name: &str, shape: &[usize]) -> Result<TorchTensor> {
        Ok(self.find(name, shape)?.to_kind(self.kind).into())
    }

    fn host(&self, name: &str, shape: &[usize]) -> Result<ArrayD<f32>> {
        let tensor = self.find(name, shape)?.contiguous();
        let mut values = vec![0f32; tensor.numel()];
        let config =
            |e: &dyn std::fmt::Display| WeightsError::Config(format!("{}/{name}: {e}", self.network));
        tensor.f_copy_data(&mut values, tensor.numel()).map_err(|e| config(&e))?;
        ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|e| config(&e))
    }

    fn constant(&self, name: &str, value: HostTensor) -> Result<TorchTensor> {
        self.engine
            .upload(&value)
            .and_then(|tensor| self.engine.cast(&tensor))
            .map_err(|source| WeightsError::Engine { name: name.to_owned(), source })
    }
}
