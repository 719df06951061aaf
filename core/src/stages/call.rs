//! One run of a stage: checked inputs on their way in, checked outputs on their way out.

use ndarray::ArrayViewD;

use super::executor::Executor;
use super::signature::{Elements, Function, Port};
use crate::engine::{EngineError, Prospect};
use crate::stage::{StageError, StageKind};
use crate::tensor::{HostTensor, Tensors, TensorsError};

/// The inputs of a run and what executes it.
pub(super) struct Call<'a, X> {
    executor: &'a X,
    stage: StageKind,
    inputs: &'a Tensors,
}

impl<'a, X: Executor> Call<'a, X> {
    pub(super) fn new(executor: &'a X, stage: StageKind, inputs: &'a Tensors) -> Self {
        Self { executor, stage, inputs }
    }

    /// Whether the input is given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.inputs.get(name).is_some()
    }

    /// The input on its way to the device.
    pub(super) fn input(&self, port: &Port) -> Result<X::Value, StageError> {
        self.upload(self.checked(port)?)
    }

    /// The input, which must be as the port says.
    pub(super) fn checked(&self, port: &Port) -> Result<&'a HostTensor, StageError> {
        let name = port.name.base;
        let tensor = self.inputs.need(name).map_err(|e| self.unfit(e))?;
        match port.elements {
            Elements::F32 | Elements::Computed => drop(self.inputs.f32(name).map_err(|e| self.unfit(e))?),
            Elements::Ids { below } => self.check_ids(name, below)?,
        }
        let shape = tensor.shape();
        let fits = shape.len() == port.shape.len()
            && shape.iter().zip(&port.shape).all(|(&size, dim)| dim.admits(size));
        if fits {
            return Ok(tensor);
        }
        let needed: Vec<String> = port.shape.iter().map(ToString::to_string).collect();
        Err(self.refuse(name, format!("has shape {shape:?}; [{}] is needed", needed.join(", "))))
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

    /// A host tensor on the device.
    pub(super) fn upload(&self, tensor: &HostTensor) -> Result<X::Value, StageError> {
        self.executor.upload(tensor).map_err(|e| self.failed(e))
    }

    /// `length` entries of a dimension from `start` on.
    pub(super) fn narrow(
        &self,
        value: &X::Value,
        axis: usize,
        start: usize,
        length: usize,
    ) -> Result<X::Value, StageError> {
        self.executor.narrow(value, axis, start, length).map_err(|e| self.failed(e))
    }

    /// What a function of the network gives.
    pub(super) fn function(
        &self,
        function: Function,
        inputs: &[Option<&X::Value>],
    ) -> Result<Vec<X::Value>, StageError> {
        self.executor.call(function, inputs).map_err(|e| self.failed(e))
    }

    /// The only thing that a function of the network gives.
    pub(super) fn only(
        &self,
        function: Function,
        inputs: &[Option<&X::Value>],
    ) -> Result<X::Value, StageError> {
        self.given(function, self.function(function, inputs)?.pop())
    }

    /// An output of a function, which must be there.
    pub(super) fn given(&self, function: Function, output: Option<X::Value>) -> Result<X::Value, StageError> {
        output.ok_or_else(|| self.failed(EngineError::new(function.name(), "gave no output")))
    }

    /// Adds an output, which must be finite throughout.
    pub(super) fn output(
        &self,
        outputs: &mut Tensors,
        name: &str,
        value: &X::Value,
    ) -> Result<(), StageError> {
        let tensor = self.download(value)?;
        if let HostTensor::F32(array) = &tensor {
            self.check_finite(name, array.view())?;
        }
        outputs.insert(name, tensor);
        Ok(())
    }

    /// A value on the host.
    pub(super) fn download(&self, value: &X::Value) -> Result<HostTensor, StageError> {
        self.executor.download(value).map_err(|e| self.failed(e))
    }

    /// An output must be finite throughout.
    pub(super) fn check_finite(&self, output: &str, array: ArrayViewD<'_, f32>) -> Result<(), StageError> {
        match array.iter().filter(|value| !value.is_finite()).count() {
            0 => Ok(()),
            count => Err(StageError::NotFinite { stage: self.stage, output: output.to_owned(), count }),
        }
    }

    /// Values one after the other along their first dimension.
    pub(super) fn join(&self, values: &[&X::Value]) -> Result<X::Value, StageError> {
        self.executor.join(values).map_err(|e| self.failed(e))
    }

    /// An input cannot be taken.
    pub(super) fn refuse(&self, input: &'static str, message: String) -> StageError {
        StageError::Input { stage: self.stage, input, message }
    }

    pub(super) fn failed(&self, source: EngineError) -> StageError {
        let stage = self.stage;
        match source.prospect {
            Prospect::Hopeless => StageError::Engine { stage, source },
            Prospect::Unavailable { retry_after } => {
                StageError::Unavailable { stage, message: source.message, retry_after }
            }
        }
    }

    fn unfit(&self, source: TensorsError) -> StageError {
        StageError::Tensors { stage: self.stage, source }
    }

    fn check_ids(&self, name: &'static str, below: usize) -> Result<(), StageError> {
        let ids = self.inputs.i64(name).map_err(|e| self.unfit(e))?;
        match ids.iter().find(|&&id| usize::try_from(id).map_or(true, |id| id >= below)) {
            Some(id) => Err(self.refuse(name, format!("holds token {id}; the vocabulary has {below}"))),
            None => Ok(()),
        }
    }
}
