//! A checkpoint as the source of a network's parameters, without a conversion.

use std::path::PathBuf;

use ndarray::{ArrayD, IxDyn};

use super::Checkpoint;
use crate::engine::Engine;
use crate::tensor::HostTensor;
use crate::weights::{Dtype, Result, WeightSource, WeightsError, floats};

/// Parameters of a checkpoint, copied to an engine.
pub struct CheckpointWeights<'a, E: Engine> {
    engine: &'a E,
    checkpoint: &'a Checkpoint,
}

impl<'a, E: Engine> CheckpointWeights<'a, E> {
    /// Hands the tensors of a checkpoint to an engine.
    pub fn new(engine: &'a E, checkpoint: &'a Checkpoint) -> Self {
        Self { engine, checkpoint }
    }
}

impl<E: Engine> WeightSource<E::Tensor> for CheckpointWeights<'_, E> {
    fn parameter(&self, name: &str, shape: &[usize]) -> Result<E::Tensor> {
        self.constant(name, self.host(name, shape)?.into())
    }

    fn host(&self, name: &str, shape: &[usize]) -> Result<ArrayD<f32>> {
        let Some(view) = self.checkpoint.get(name) else {
            let files: Vec<_> = self.checkpoint.files().map(|file| file.display().to_string()).collect();
            return Err(WeightsError::Missing {
                name: name.to_owned(),
                path: PathBuf::from(files.join(", ")),
            });
        };
        let path = || view.path().to_owned();
        if view.shape() != shape {
            let (found, expected) = (view.shape().to_vec(), shape.to_vec());
            return Err(WeightsError::Shape { name: name.to_owned(), path: path(), found, expected });
        }
        if !matches!(view.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(WeightsError::DType { name: name.to_owned(), path: path(), dtype: view.dtype() });
        }
        ArrayD::from_shape_vec(IxDyn(shape), floats(view.dtype(), &view.bytes()))
            .map_err(|error| WeightsError::Config(error.to_string()))
    }

    fn constant(&self, name: &str, value: HostTensor) -> Result<E::Tensor> {
        self.engine
            .upload(&value)
            .and_then(|tensor| self.engine.cast(&tensor))
            .map_err(|source| WeightsError::Engine { name: name.to_owned(), source })
    }
}
