//! Name-scoped access to a network's parameters.
//!
//! A network's constructor asks a [`Weights`] scope for each parameter by name and shape. What stands behind it
//! differs: a memory-mapped safetensors file whose tensors go to an engine ([`EngineWeights`]), or a
//! [`Manifest`] that only writes down what was asked for, which is how conversion knows what a checkpoint must
//! hold without a second list. [`RandomWeights`] makes parameters where there is no checkpoint.
//!
//! Layers may have low-rank [`Update`]s: merged into the weights of a file as they are read
//! ([`WeightFile::with_update`]), or computed beside weights that a loaded network has already ([`UpdatedWeights`]).

mod low_rank;
mod random;
mod shared;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
pub use low_rank::{Factors, Layers, LowRank, Update};
use memmap2::Mmap;
use ndarray::{ArrayD, IxDyn};
pub use random::RandomWeights;
pub use safetensors::Dtype;
use safetensors::SafeTensors;
pub(crate) use shared::LowRanks;
pub use shared::{KeptWeights, Parameters, UpdatedWeights};

use crate::engine::{Engine, EngineError};
use crate::tensor::HostTensor;

/// A parameter cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The weight file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file is no safetensors file, or a damaged one.
    #[error("{} is not a valid safetensors file: {message}", path.display())]
    Format {
        /// The weight file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The file lacks a tensor.
    #[error("tensor `{name}` is missing in {}", path.display())]
    Missing {
        /// The tensor's full name.
        name: String,
        /// The weight file.
        path: PathBuf,
    },
    /// The tensor has another shape than the network's configuration asks for.
    #[error("tensor `{name}` in {} has shape {found:?}, the configuration asks for {expected:?}", path.display())]
    Shape {
        /// The tensor's full name.
        name: String,
        /// The weight file.
        path: PathBuf,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape the network needs.
        expected: Vec<usize>,
    },
    /// The tensor's elements are not floats.
    #[error("tensor `{name}` in {} holds {dtype:?} elements; f32, f16 or bf16 are needed", path.display())]
    DType {
        /// The tensor's full name.
        name: String,
        /// The weight file.
        path: PathBuf,
        /// The element type in the file.
        dtype: Dtype,
    },
    /// The engine refused the tensor.
    #[error("tensor `{name}`: {source}")]
    Engine {
        /// The tensor's full name.
        name: String,
        /// The engine's reason.
        source: EngineError,
    },
    /// The memory for parameters made in it cannot be had.
    #[error("cannot reserve {bytes} bytes of memory for weights: {source}")]
    Memory {
        /// Bytes asked for.
        bytes: u64,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A network's configuration is contradictory.
    #[error("configuration: {0}")]
    Config(String),
}

/// What access to parameters returns.
pub type Result<T> = std::result::Result<T, WeightsError>;

/// A tensor of a [`WeightFile`]. Cloning shares the mapping.
#[derive(Clone)]
pub struct WeightView {
    map: Arc<Mmap>,
    start: usize,
    end: usize,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl WeightView {
    /// The elements in row-major order, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.start..self.end]
    }

    /// The element type: f32, f16 or bf16.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The size of every dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements converted to `f32`.
    pub fn to_f32(&self) -> Vec<f32> {
        floats(self.dtype, self.bytes())
    }

    /// The same elements in another shape of as many.
    pub(crate) fn reshaped(self, shape: &[usize]) -> Option<Self> {
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        (count(shape) == count(&self.shape)).then(|| Self { shape: shape.to_vec(), ..self })
    }
}

/// Little-endian elements as `f32`.
pub(crate) fn floats(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F16 => bytes.as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks::<2>().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        _ => bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
    }
}

/// A memory-mapped safetensors file, or parameters made in memory.
pub struct WeightFile {
    path: PathBuf,
    map: Arc<Mmap>,
    index: Index,
    update: Option<Update>,
}

/// By the tensor's name: where it starts and ends, its element type and shape.
type Index = BTreeMap<String, (usize, usize, Dtype, Vec<usize>)>;

impl WeightFile {
    /// Maps a file and reads its header.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| WeightsError::Io { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(io)?;
        Self::of_map(path, map_read_only(&file).map_err(io)?)
    }

    /// Reads the header of a file that lies in memory.
    pub(crate) fn of_map(path: &Path, map: Mmap) -> Result<Self> {
        let format = |message: String| WeightsError::Format { path: path.to_owned(), message };
        let tensors = SafeTensors::deserialize(&map).map_err(|e| format(e.to_string()))?;
        let base = map.as_ptr() as usize;
        let index = tensors
            .iter()
            .map(|(name, view)| {
                let start = view.data().as_ptr() as usize - base;
                let entry = (start, start + view.data().len(), view.dtype(), view.shape().to_vec());
                (name.to_owned(), entry)
            })
            .collect();
        Ok(Self { path: path.to_owned(), map: Arc::new(map), index, update: None })
    }

    /// The same weights with an update merged into each as it is read. Merged weights are `f32`.
    #[must_use]
    pub fn with_update(self, update: Update) -> Self {
        Self { update: Some(update), ..self }
    }

    /// The bytes of the whole file.
    pub(crate) fn contents(&self) -> &[u8] {
        &self.map
    }

    /// The file's path, or what stands for it in messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names, element types and shapes of all tensors.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Dtype, &[usize])> {
        self.index.iter().map(|(name, (_, _, dtype, shape))| (name.as_str(), *dtype, shape.as_slice()))
    }

    /// Bytes of all tensors.
    pub fn tensor_bytes(&self) -> u64 {
        self.index.values().map(|(start, end, ..)| (end - start) as u64).sum()
    }

    /// The named tensor, whose shape must be as given.
    pub fn view(&self, name: &str, shape: &[usize]) -> Result<WeightView> {
        let path = || self.path.clone();
        let (start, end, dtype, found) = self
            .index
            .get(name)
            .ok_or_else(|| WeightsError::Missing { name: name.to_owned(), path: path() })?;
        if found != shape {
            return Err(WeightsError::Shape {
                name: name.to_owned(),
                path: path(),
                found: found.clone(),
                expected: shape.to_vec(),
            });
        }
        if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(WeightsError::DType { name: name.to_owned(), path: path(), dtype: *dtype });
        }
        let view = WeightView {
            map: self.map.clone(),
            start: *start,
            end: *end,
            dtype: *dtype,
            shape: found.clone(),
        };
        match self.update.as_ref().and_then(|update| Some((update.layers.get(name)?, update.scale))) {
            Some((factors, scale)) => factors.merge(name, &view, scale),
            None => Ok(view),
        }
    }
}

/// Maps a file for reading.
#[allow(unsafe_code)]
pub(crate) fn map_read_only(file: &std::fs::File) -> std::io::Result<Mmap> {
    // SAFETY: the mapping is read-only and private to this process. Model files are written once, beside their
    // final place, and renamed when whole, so nothing of ours changes one in place; a foreign process that
    // truncates a mapped file ends this process with SIGBUS, as with every memory-mapped database.
    unsafe { Mmap::map(file) }
}

/// Where parameters come from.
pub trait WeightSource<T> {
    /// The parameter with this full name and shape.
    fn parameter(&self, name: &str, shape: &[usize]) -> Result<T>;

    /// The parameter with this full name and shape, in host memory.
    fn host(&self, name: &str, shape: &[usize]) -> Result<ArrayD<f32>>;

    /// A tensor that the network computes once from its configuration or from [`WeightSource::host`].
    fn constant(&self, name: &str, value: HostTensor) -> Result<T>;

    /// Updates of the linear or convolutional layer whose weight has this full name and shape.
    fn updates(&self, _name: &str, _shape: &[usize]) -> Vec<LowRank<T>> {
        Vec::new()
    }
}

/// A scope of parameter names: `weights.scope("layers.0").tensor("weight", &[4, 8])`.
pub struct Weights<'a, T> {
    source: &'a dyn WeightSource<T>,
    prefix: String,
}

impl<'a, T> Weights<'a, T> {
    /// The scope of all names.
    pub fn root(source: &'a dyn WeightSource<T>) -> Self {
        Self { source, prefix: String::new() }
    }

    /// The scope `prefix.name`.
    pub fn scope(&self, name: impl std::fmt::Display) -> Self {
        Self { source: self.source, prefix: self.full(&name.to_string()) }
    }

    /// The parameter `prefix.name`.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<T> {
        self.source.parameter(&self.full(name), shape)
    }

    /// The parameter `prefix.name` in host memory.
    pub fn host(&self, name: &str, shape: &[usize]) -> Result<ArrayD<f32>> {
        self.source.host(&self.full(name), shape)
    }

    /// A tensor computed once, when the network is built; floats get the engine's precision.
    pub fn constant(&self, name: &str, value: impl Into<HostTensor>) -> Result<T> {
        self.source.constant(&self.full(name), value.into())
    }

    /// Updates of the layer whose weight is `prefix.name`.
    pub(crate) fn updates(&self, name: &str, shape: &[usize]) -> Vec<LowRank<T>> {
        self.source.updates(&self.full(name), shape)
    }

    fn full(&self, name: &str) -> String {
        match (self.prefix.as_str(), name) {
            ("", name) => name.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, name) => format!("{prefix}.{name}"),
        }
    }
}

/// Parameters of a file, handed to an engine.
pub struct EngineWeights<'a, E: Engine> {
    engine: &'a E,
    file: &'a WeightFile,
}

impl<'a, E: Engine> EngineWeights<'a, E> {
    /// Hands the tensors of a file to an engine.
    pub fn new(engine: &'a E, file: &'a WeightFile) -> Self {
        Self { engine, file }
    }
}

impl<E: Engine> WeightSource<E::Tensor> for EngineWeights<'_, E> {
    fn parameter(&self, name: &str, shape: &[usize]) -> Result<E::Tensor> {
        let view = self.file.view(name, shape)?;
        self.engine.parameter(view).map_err(|source| WeightsError::Engine { name: name.to_owned(), source })
    }

    fn host(&self, name: &str, shape: &[usize]) -> Result<ArrayD<f32>> {
        let data = self.file.view(name, shape)?.to_f32();
        ArrayD::from_shape_vec(IxDyn(shape), data).map_err(|e| WeightsError::Config(e.to_string()))
    }

    fn constant(&self, name: &str, value: HostTensor) -> Result<E::Tensor> {
        self.engine
            .upload(&value)
            .and_then(|tensor| self.engine.cast(&tensor))
            .map_err(|source| WeightsError::Engine { name: name.to_owned(), source })
    }
}

/// Writes down which parameters a network asks for, in their order.
#[derive(Default)]
pub struct Manifest {
    parameters: RefCell<Vec<Shaped>>,
    updatable: RefCell<Vec<Shaped>>,
}

/// A parameter's name and shape.
type Shaped = (String, Vec<usize>);

impl Manifest {
    /// The parameters that `build` asks for: names and shapes.
    pub fn of<N>(build: impl FnOnce(&Weights<'_, ()>) -> Result<N>) -> Result<Vec<Shaped>> {
        Self::written(build).map(|manifest| manifest.parameters.into_inner())
    }

    /// The weights of linear and convolutional layers that `build` asks for: names and shapes.
    pub fn updatable<N>(build: impl FnOnce(&Weights<'_, ()>) -> Result<N>) -> Result<Vec<Shaped>> {
        Self::written(build).map(|manifest| manifest.updatable.into_inner())
    }

    fn written<N>(build: impl FnOnce(&Weights<'_, ()>) -> Result<N>) -> Result<Self> {
        let manifest = Self::default();
        build(&Weights::root(&manifest))?;
        Ok(manifest)
    }
}

impl WeightSource<()> for Manifest {
    fn parameter(&self, name: &str, shape: &[usize]) -> Result<()> {
        self.parameters.borrow_mut().push((name.to_owned(), shape.to_vec()));
        Ok(())
    }

    fn host(&self, name: &str, shape: &[usize]) -> Result<ArrayD<f32>> {
        self.parameter(name, shape)?;
        Ok(ArrayD::zeros(IxDyn(shape)))
    }

    fn constant(&self, _: &str, _: HostTensor) -> Result<()> {
        Ok(())
    }

    fn updates(&self, name: &str, shape: &[usize]) -> Vec<LowRank<()>> {
        self.updatable.borrow_mut().push((name.to_owned(), shape.to_vec()));
        Vec::new()
    }
}
