//! Tensors of this engine: candle's, or weights that stay in their mapped file.

use std::ops::Deref;

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::weight::MappedWeight;

/// A tensor, or a weight that is read where the file is mapped.
#[derive(Clone)]
pub enum CandleTensor {
    /// A tensor of candle's, on any device.
    Owned(Tensor),
    /// A weight on the CPU, in the engine's precision.
    Mapped(MappedWeight),
}

impl From<Tensor> for CandleTensor {
    fn from(tensor: Tensor) -> Self {
        Self::Owned(tensor)
    }
}

impl CandleTensor {
    /// The tensor; a mapped weight is copied.
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        match self {
            Self::Owned(tensor) => Ok(tensor.clone()),
            Self::Mapped(weight) => weight.to_tensor(),
        }
    }

    /// The size of every dimension.
    pub(crate) fn dims(&self) -> &[usize] {
        match self {
            Self::Owned(tensor) => tensor.dims(),
            Self::Mapped(weight) => weight.dims(),
        }
    }

    /// The element type.
    pub(crate) fn dtype(&self) -> DType {
        match self {
            Self::Owned(tensor) => tensor.dtype(),
            Self::Mapped(weight) => match weight.elements() {
                Elements::F32(_) => DType::F32,
                Elements::Bf16(_) => DType::BF16,
                Elements::F16(_) => DType::F16,
            },
        }
    }

    /// Whether the elements lie in host memory.
    pub(crate) fn on_cpu(&self) -> bool {
        match self {
            Self::Owned(tensor) => tensor.device().is_cpu(),
            Self::Mapped(_) => true,
        }
    }
}

/// Elements in host memory, of one of the engine's types.
#[derive(Clone, Copy)]
pub(crate) enum Elements<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
}

impl Elements<'_> {
    /// The elements from `start` up to `end`.
    pub(crate) fn slice(&self, start: usize, end: usize) -> Self {
        match self {
            Self::F32(data) => Self::F32(&data[start..end]),
            Self::Bf16(data) => Self::Bf16(&data[start..end]),
            Self::F16(data) => Self::F16(&data[start..end]),
        }
    }

    /// Converts into `out`, which has the same length.
    pub(crate) fn widen_into(&self, out: &mut [f32]) {
        match self {
            Self::F32(data) => out.copy_from_slice(data),
            Self::Bf16(data) => widen_bf16(data, out),
            Self::F16(data) => half::slice::HalfFloatSliceExt::convert_to_f32_slice(*data, out),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(data) => data.len(),
            Self::Bf16(data) => data.len(),
            Self::F16(data) => data.len(),
        }
    }
}

/// A shift of the bit pattern, written so that the compiler vectorises it.
pub(crate) fn widen_bf16(data: &[bf16], out: &mut [f32]) {
    for (out, value) in out.iter_mut().zip(data) {
        *out = f32::from_bits(u32::from(value.to_bits()) << 16);
    }
}

/// A contiguous candle tensor in host memory, locked for reading.
pub(crate) struct HostView<S> {
    storage: S,
    start: usize,
    end: usize,
}

/// Locks a contiguous tensor.
pub(crate) fn host_view(tensor: &Tensor) -> Result<HostView<impl Deref<Target = Storage> + '_>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a contiguous tensor is needed, this one has layout {layout:?}");
    };
    Ok(HostView { storage, start, end })
}

impl<S: Deref<Target = Storage>> HostView<S> {
    /// The elements, if they are of one of the engine's types.
    pub(crate) fn elements(&self) -> Result<Elements<'_>> {
        let range = self.start..self.end;
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(data)) => Ok(Elements::F32(&data[range])),
            Storage::Cpu(CpuStorage::BF16(data)) => Ok(Elements::Bf16(&data[range])),
            Storage::Cpu(CpuStorage::F16(data)) => Ok(Elements::F16(&data[range])),
            other => candle_core::bail!("floats in host memory are needed, not {:?}", other.dtype()),
        }
    }
}

/// The elements of a tensor as `f32`: borrowed where they are, converted where they are not.
pub(crate) fn widened<'a>(elements: Elements<'a>, scratch: &'a mut Vec<f32>) -> &'a [f32] {
    match elements {
        Elements::F32(data) => data,
        other => {
            scratch.resize(other.len(), 0.0);
            other.widen_into(scratch);
            scratch
        }
    }
}

/// A tensor in host memory from `f32` elements, converted to `dtype`.
pub(crate) fn from_f32(data: Vec<f32>, shape: &[usize], dtype: DType) -> Result<Tensor> {
    match dtype {
        DType::BF16 => {
            let data: Vec<bf16> = data.par_iter().map(|value| bf16::from_f32(*value)).collect();
            Tensor::from_vec(data, shape, &Device::Cpu)
        }
        DType::F16 => {
            let data: Vec<f16> = data.into_iter().map(f16::from_f32).collect();
            Tensor::from_vec(data, shape, &Device::Cpu)
        }
        _ => Tensor::from_vec(data, shape, &Device::Cpu),
    }
}
