//! One run of a stage: checked inputs on their way in, checked outputs on their way out.

use crate::engine::{Engine, EngineError};
use crate::stage::{StageError, StageKind};
use crate::tensor::{HostTensor, Tensors, TensorsError};

/// The inputs of a run and the engine it happens on.
pub(super) struct Call<'a, E> {
    pub(super) engine: &'a E,
    stage: StageKind,
    inputs: &'a Tensors,
}

/// A dimension of an input: given, or free but not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dim {
    Is(usize),
    Any,
}

impl<'a, E: Engine> Call<'a, E> {
    pub(super) fn new(engine: &'a E, stage: StageKind, inputs: &'a Tensors) -> Self {
        Self { engine, stage, inputs }
    }

    /// Whether the input is given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.inputs.get(name).is_some()
    }

    /// A float input on the engine, in its precision.
    pub(super) fn float(&self, name: &'static str, shape: &[Dim]) -> Result<E::Tensor, StageError> {
        let wide = self.float_as_is(name, shape)?;
        self.engine.cast(&wide).map_err(|e| self.failed(e))
    }

    /// A float input on the engine, as `f32`.
    pub(super) fn float_as_is(&self, name: &'static str, shape: &[Dim]) -> Result<E::Tensor, StageError> {
        self.inputs.f32(name).map_err(|e| self.unfit(e))?;
        self.upload(name, shape)
    }

    /// Token ids `[rows, n]` on the host, all below `vocab_size`.
    pub(super) fn ids(
        &self,
        name: &'static str,
        shape: &[Dim],
        vocab_size: usize,
    ) -> Result<ndarray::Array2<i64>, StageError> {
        let ids = self.inputs.i64(name).map_err(|e| self.unfit(e))?;
        self.check_shape(name, ids.shape(), shape)?;
        if let Some(id) = ids.iter().find(|&&id| usize::try_from(id).map_or(true, |id| id >= vocab_size)) {
            return Err(self.refuse(name, format!("holds token {id}; the vocabulary has {vocab_size}")));
        }
        ids.to_owned()
            .into_dimensionality()
            .map_err(|_| self.refuse(name, "must have two dimensions".to_owned()))
    }

    /// An index input `[1]`; `None` if it is not given.
    pub(super) fn index(&self, name: &'static str) -> Result<Option<usize>, StageError> {
        if !self.has(name) {
            return Ok(None);
        }
        let values = self.inputs.i64(name).map_err(|e| self.unfit(e))?;
        match values.iter().collect::<Vec<_>>()[..] {
            [&value] => usize::try_from(value)
                .map(Some)
                .map_err(|_| self.refuse(name, format!("is {value}; it must not be negative"))),
            _ => Err(self.refuse(name, format!("has shape {:?}; [1] is needed", values.shape()))),
        }
    }

    /// The shape of an input.
    pub(super) fn shape(&self, name: &'static str) -> Result<&'a [usize], StageError> {
        self.inputs.need(name).map(HostTensor::shape).map_err(|e| self.unfit(e))
    }

    /// Adds an output, which must be finite throughout.
    pub(super) fn output(
        &self,
        outputs: &mut Tensors,
        name: &str,
        tensor: &E::Tensor,
    ) -> Result<(), StageError> {
        let tensor = self.engine.download(tensor).map_err(|e| self.failed(e))?;
        if let HostTensor::F32(array) = &tensor {
            let count = array.iter().filter(|value| !value.is_finite()).count();
            if count > 0 {
                return Err(StageError::NotFinite { stage: self.stage, output: name.to_owned(), count });
            }
        }
        outputs.insert(name, tensor);
        Ok(())
    }

    /// An operation of the engine failed.
    pub(super) fn failed(&self, source: EngineError) -> StageError {
        StageError::Engine { stage: self.stage, source }
    }

    /// An input cannot be taken.
    pub(super) fn refuse(&self, input: &'static str, message: String) -> StageError {
        StageError::Input { stage: self.stage, input, message }
    }

    fn unfit(&self, source: TensorsError) -> StageError {
        StageError::Tensors { stage: self.stage, source }
    }

    fn upload(&self, name: &'static str, shape: &[Dim]) -> Result<E::Tensor, StageError> {
        let tensor = self.inputs.need(name).map_err(|e| self.unfit(e))?;
        self.check_shape(name, tensor.shape(), shape)?;
        self.engine.upload(tensor).map_err(|e| self.failed(e))
    }

    fn check_shape(&self, name: &'static str, found: &[usize], needed: &[Dim]) -> Result<(), StageError> {
        let fits = |(&size, dim): (&usize, &Dim)| match dim {
            Dim::Is(expected) => size == *expected,
            Dim::Any => size > 0,
        };
        if found.len() == needed.len() && found.iter().zip(needed).all(fits) {
            return Ok(());
        }
        let needed: Vec<String> = needed
            .iter()
            .map(|dim| match dim {
                Dim::Is(size) => size.to_string(),
                Dim::Any => "*".to_owned(),
            })
            .collect();
        Err(self.refuse(name, format!("has shape {found:?}; [{}] is needed", needed.join(", "))))
    }
}
