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

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;
    use smartedit_core::engine::{Engine, Precision};
    use smartedit_core::tensor::HostTensor;
    use smartedit_core::weights::WeightFile;

    use super::*;
    use crate::{CandleEngine, CandleTensor};

    /// A file with one weight `[2, 4]` of each element type.
    fn file(directory: &std::path::Path) -> WeightFile {
        let values: Vec<f32> = (0..8).map(|i| i as f32 / 4.0).collect();
        let wide: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let brain: Vec<u8> = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
        let half: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        let view = |dtype, data| TensorView::new(dtype, vec![2, 4], data).expect("eight values");
        let tensors = [
            ("f32", view(Dtype::F32, &wide)),
            ("bf16", view(Dtype::BF16, &brain)),
            ("f16", view(Dtype::F16, &half)),
        ];
        let path = directory.join("weights.safetensors");
        safetensors::serialize_to_file(tensors, None, &path).expect("the file can be written");
        WeightFile::open(&path).expect("the file is whole")
    }

    #[test]
    fn weights_of_the_engine_s_precision_stay_in_the_file_and_others_are_converted() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = file(directory.path());
        for precision in [Precision::F32, Precision::Bf16] {
            let engine = CandleEngine::new(Device::Cpu, precision);
            for name in ["f32", "bf16", "f16"] {
                let view = file.view(name, &[2, 4]).expect("the tensor is there");
                let mapped = view.bytes().as_ptr();
                let weight = engine.parameter(view).expect("the weight can be had");
                match &weight {
                    CandleTensor::Mapped(weight) => {
                        assert_eq!(name, precision.to_string());
                        assert_eq!(weight.0.bytes().as_ptr(), mapped);
                    }
                    CandleTensor::Owned(_) => assert_ne!(name, precision.to_string()),
                }
                let x = HostTensor::from(ndarray::arr2(&[[1.0f32, 2.0, 3.0, 4.0]]));
                let x = engine.upload(&x).and_then(|x| engine.cast(&x)).expect("an upload");
                let product = engine.linear(&x, &weight, None).and_then(|y| engine.download(&y));
                let expected = HostTensor::from(ndarray::arr2(&[[5.0f32, 15.0]]));
                assert_eq!(product.expect("a product"), expected, "{name} in {precision}");
            }
        }
    }
}
