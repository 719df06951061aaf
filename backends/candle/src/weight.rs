//! Weights that stay in their mapped file.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use half::{bf16, f16};
use smartedit_core::weights::{Dtype, WeightView};

use crate::tensor::Elements;

/// A weight in a mapped safetensors file, aligned for its element type.
#[derive(Clone)]
pub struct MappedWeight(Arc<WeightView>);

impl MappedWeight {
    /// The weight, if its elements are of type `dtype` and aligned for it.
    pub(crate) fn new(view: WeightView, dtype: DType) -> std::result::Result<Self, WeightView> {
        let aligned = |size: usize| (view.bytes().as_ptr() as usize).is_multiple_of(size);
        let fits = match (view.dtype(), dtype) {
            (Dtype::F32, DType::F32) => aligned(4),
            (Dtype::BF16, DType::BF16) | (Dtype::F16, DType::F16) => aligned(2),
            _ => false,
        };
        if fits && cfg!(target_endian = "little") { Ok(Self(Arc::new(view))) } else { Err(view) }
    }

    pub(crate) fn dims(&self) -> &[usize] {
        self.0.shape()
    }

    /// The elements where they lie.
    pub(crate) fn elements(&self) -> Elements<'_> {
        let bytes = self.0.bytes();
        match self.0.dtype() {
            Dtype::BF16 => Elements::Bf16(reinterpret::<bf16>(bytes)),
            Dtype::F16 => Elements::F16(reinterpret::<f16>(bytes)),
            _ => Elements::F32(reinterpret::<f32>(bytes)),
        }
    }

    /// A copy in candle's memory.
    pub(crate) fn to_tensor(&self) -> Result<Tensor> {
        match self.elements() {
            Elements::F32(data) => Tensor::from_slice(data, self.dims(), &Device::Cpu),
            Elements::Bf16(data) => Tensor::from_slice(data, self.dims(), &Device::Cpu),
            Elements::F16(data) => Tensor::from_slice(data, self.dims(), &Device::Cpu),
        }
    }
}

/// Bytes as elements of a plain type, for which they are aligned.
#[allow(unsafe_code)]
fn reinterpret<T: Copy>(bytes: &[u8]) -> &[T] {
    let size = size_of::<T>();
    assert!((bytes.as_ptr() as usize).is_multiple_of(align_of::<T>()), "alignment is checked on creation");
    // SAFETY: T is f32, bf16 or f16, for which every bit pattern is a value; the pointer is aligned (asserted)
    // and the length is rounded down to whole elements of the same borrowed bytes.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size) }
}
