//! What runs the functions of a loaded network.

use std::sync::Arc;

use super::network::Network;
use super::signature::Function;
use crate::engine::{Engine, Result};
use crate::tensor::HostTensor;

/// A loaded network whose functions can be called on values that stay where they are computed.
///
/// Sessions of a stage are written over this trait, so they are the same for an engine that executes operations
/// as they are called ([`EngineExecutor`]) and for one that runs a recorded graph.
pub trait Executor: Send + Sync + 'static {
    /// A tensor on the device.
    type Value: Send + Sync + 'static;

    /// Copies a host tensor to the device as it is.
    fn upload(&self, tensor: &HostTensor) -> Result<Self::Value>;

    /// Copies a value to the host; floats become `f32`.
    fn download(&self, value: &Self::Value) -> Result<HostTensor>;

    /// `length` entries of a dimension from `start` on.
    fn narrow(&self, value: &Self::Value, axis: usize, start: usize, length: usize) -> Result<Self::Value>;

    /// Two or more values, of four dimensions, one after the other along the first.
    fn join(&self, values: &[&Self::Value]) -> Result<Self::Value>;

    /// Calls a function of the network, with the inputs and outputs of its
    /// [`Signature`](super::signature::Signature) in their order. `None` stands for an input that is not given.
    fn call(&self, function: Function, inputs: &[Option<&Self::Value>]) -> Result<Vec<Self::Value>>;
}

/// A network on an engine that executes operations as they are called.
pub struct EngineExecutor<E: Engine> {
    engine: Arc<E>,
    network: Network<E::Tensor>,
}

impl<E: Engine> EngineExecutor<E> {
    /// A network whose parameters are tensors of the engine.
    pub fn new(engine: Arc<E>, network: Network<E::Tensor>) -> Self {
        Self { engine, network }
    }
}

impl<E: Engine + 'static> Executor for EngineExecutor<E> {
    type Value = E::Tensor;

    fn upload(&self, tensor: &HostTensor) -> Result<E::Tensor> {
        self.engine.upload(tensor)
    }

    fn download(&self, value: &E::Tensor) -> Result<HostTensor> {
        self.engine.download(value)
    }

    fn narrow(&self, value: &E::Tensor, axis: usize, start: usize, length: usize) -> Result<E::Tensor> {
        self.engine.narrow(value, axis, start, length)
    }

    fn join(&self, values: &[&E::Tensor]) -> Result<E::Tensor> {
        self.engine.concat(values, 0)
    }

    fn call(&self, function: Function, inputs: &[Option<&E::Tensor>]) -> Result<Vec<E::Tensor>> {
        self.network.call(self.engine.as_ref(), function, inputs)
    }
}
