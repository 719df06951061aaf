//! Host tensors: what stages exchange.

use std::fmt;

use ndarray::{ArrayD, ArrayViewD, IxDyn};

/// A dense array in host memory, in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum HostTensor {
    /// Activations: latents, features, pixels, logits.
    F32(ArrayD<f32>),
    /// Token ids and positions.
    I64(ArrayD<i64>),
}

impl HostTensor {
    /// The size of every dimension, outermost first.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32(array) => array.shape(),
            Self::I64(array) => array.shape(),
        }
    }

    /// The element type as it is spelled in messages: `f32` or `i64`.
    pub fn dtype(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::I64(_) => "i64",
        }
    }

    /// A float tensor from its elements in row-major order; `None` if their number does not fill the shape.
    pub fn from_f32(shape: &[usize], data: Vec<f32>) -> Option<Self> {
        ArrayD::from_shape_vec(IxDyn(shape), data).ok().map(Self::F32)
    }
}

impl<D: ndarray::Dimension> From<ndarray::Array<f32, D>> for HostTensor {
    fn from(array: ndarray::Array<f32, D>) -> Self {
        Self::F32(array.into_dyn())
    }
}

impl<D: ndarray::Dimension> From<ndarray::Array<i64, D>> for HostTensor {
    fn from(array: ndarray::Array<i64, D>) -> Self {
        Self::I64(array.into_dyn())
    }
}

/// Host tensors by name: the inputs or the outputs of a stage.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tensors(Vec<(String, HostTensor)>);

/// An input or output that a stage needs and the caller did not give, or gave with another type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorsError {
    /// No tensor has the name.
    #[error("tensor `{name}` is missing; there are: {present}")]
    Missing {
        /// The name asked for.
        name: String,
        /// The names there are, separated by commas.
        present: String,
    },
    /// The tensor holds another element type.
    #[error("tensor `{name}` holds {found} elements, {expected} are needed")]
    DType {
        /// The name asked for.
        name: String,
        /// The element type needed.
        expected: &'static str,
        /// The element type found.
        found: &'static str,
    },
}

impl Tensors {
    /// No tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a tensor.
    #[must_use]
    pub fn with(mut self, name: &str, tensor: impl Into<HostTensor>) -> Self {
        self.insert(name, tensor.into());
        self
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: &str, tensor: HostTensor) {
        match self.0.iter_mut().find(|(existing, _)| existing == name) {
            Some((_, slot)) => *slot = tensor,
            None => self.0.push((name.to_owned(), tensor)),
        }
    }

    /// The tensor with this name, if there is one.
    pub fn get(&self, name: &str) -> Option<&HostTensor> {
        self.0.iter().find(|(existing, _)| existing == name).map(|(_, tensor)| tensor)
    }

    /// The float tensor with this name.
    pub fn f32(&self, name: &str) -> Result<ArrayViewD<'_, f32>, TensorsError> {
        match self.need(name)? {
            HostTensor::F32(array) => Ok(array.view()),
            other => Err(dtype_error(name, "f32", other)),
        }
    }

    /// The integer tensor with this name.
    pub fn i64(&self, name: &str) -> Result<ArrayViewD<'_, i64>, TensorsError> {
        match self.need(name)? {
            HostTensor::I64(array) => Ok(array.view()),
            other => Err(dtype_error(name, "i64", other)),
        }
    }

    /// Takes the float tensor with this name out.
    pub fn take_f32(&mut self, name: &str) -> Result<ArrayD<f32>, TensorsError> {
        self.need(name)?;
        let index = self.0.iter().position(|(existing, _)| existing == name).unwrap_or_default();
        match self.0.swap_remove(index).1 {
            HostTensor::F32(array) => Ok(array),
            other => Err(dtype_error(name, "f32", &other)),
        }
    }

    /// Names and tensors in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &HostTensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensor with this name, or an error that lists the names there are.
    pub fn need(&self, name: &str) -> Result<&HostTensor, TensorsError> {
        self.get(name)
            .ok_or_else(|| TensorsError::Missing { name: name.to_owned(), present: self.to_string() })
    }
}

fn dtype_error(name: &str, expected: &'static str, found: &HostTensor) -> TensorsError {
    TensorsError::DType { name: name.to_owned(), expected, found: found.dtype() }
}

impl fmt::Display for Tensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, (name, tensor)) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}`{name}` {} {:?}", tensor.dtype(), tensor.shape())?;
        }
        Ok(())
    }
}
