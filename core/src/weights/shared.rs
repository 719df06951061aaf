//! A network built once more of the parameters of another, with updates.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::ArrayD;

use super::{LowRank, Result, WeightSource, WeightsError};
use crate::tensor::HostTensor;

/// Tensors that a network was built of, by name. They share storage with the network's.
pub type Parameters<T> = BTreeMap<String, T>;

/// Hands out what another source does, and keeps it.
pub struct KeptWeights<'a, T> {
    source: &'a dyn WeightSource<T>,
    kept: RefCell<Parameters<T>>,
}

impl<'a, T: Clone> KeptWeights<'a, T> {
    /// Nothing is kept yet.
    pub fn new(source: &'a dyn WeightSource<T>) -> Self {
        Self { source, kept: RefCell::default() }
    }

    /// What was handed out.
    pub fn into_parameters(self) -> Parameters<T> {
        self.kept.into_inner()
    }

    fn keep(&self, name: &str, tensor: T) -> T {
        self.kept.borrow_mut().insert(name.to_owned(), tensor.clone());
        tensor
    }
}

impl<T: Clone> WeightSource<T> for KeptWeights<'_, T> {
    fn parameter(&self, name: &str, shape: &[usize]) -> Result<T> {
        Ok(self.keep(name, self.source.parameter(name, shape)?))
    }

    fn host(&self, name: &str, shape: &[usize]) -> Result<ArrayD<f32>> {
        self.source.host(name, shape)
    }

    fn constant(&self, name: &str, value: HostTensor) -> Result<T> {
        Ok(self.keep(name, self.source.constant(name, value)?))
    }

    fn updates(&self, name: &str, shape: &[usize]) -> Vec<LowRank<T>> {
        self.source.updates(name, shape)
    }
}

/// Factors on an engine, by the names of the layers' weights.
pub(crate) type LowRanks<T> = BTreeMap<String, LowRank<T>>;

/// Parameters that were [kept](KeptWeights), with updates beside them.
pub struct UpdatedWeights<'a, T> {
    parameters: &'a Parameters<T>,
    updates: &'a [(Arc<LowRanks<T>>, f32)],
}

impl<'a, T: Clone> UpdatedWeights<'a, T> {
    /// The parameters with each of the updates, times a scale.
    pub(crate) fn new(parameters: &'a Parameters<T>, updates: &'a [(Arc<LowRanks<T>>, f32)]) -> Self {
        Self { parameters, updates }
    }

    fn kept(&self, name: &str) -> Result<T> {
        let missing = || WeightsError::Config(format!("`{name}` was not kept when the network was loaded"));
        self.parameters.get(name).cloned().ok_or_else(missing)
    }
}

impl<T: Clone> WeightSource<T> for UpdatedWeights<'_, T> {
    fn parameter(&self, name: &str, _: &[usize]) -> Result<T> {
        self.kept(name)
    }

    fn host(&self, name: &str, _: &[usize]) -> Result<ArrayD<f32>> {
        Err(WeightsError::Config(format!("`{name}` is kept on the engine alone")))
    }

    fn constant(&self, name: &str, _: HostTensor) -> Result<T> {
        self.kept(name)
    }

    fn updates(&self, name: &str, _: &[usize]) -> Vec<LowRank<T>> {
        let of = |(layers, scale): &(Arc<LowRanks<T>>, f32)| {
            let LowRank { down, up, scale: own } = layers.get(name)?;
            Some(LowRank { down: down.clone(), up: up.clone(), scale: own * f64::from(*scale) })
        };
        self.updates.iter().filter_map(of).collect()
    }
}
