//! ONNX Runtime's values: from host tensors, from weight files, and back.

use half::{bf16, f16};
use ndarray::ArrayD;
use ort::memory::{AllocationDevice, Allocator, MemoryInfo};
use ort::value::{DynTensor, DynTensorValueType, DynValue, Shape, Tensor, TensorElementType};
use ort::{AsPointer, Error, Result, ortsys};
use smartedit_core::tensor::HostTensor;
use smartedit_core::weights::{Dtype, WeightView};

use crate::recorder::Element;

/// Initializers below this size take part in ONNX Runtime's inference of shapes and must be its own.
const SMALLEST_SHARED: usize = 128;

impl From<Element> for TensorElementType {
    fn from(element: Element) -> Self {
        match element {
            Element::F32 => Self::Float32,
            Element::F16 => Self::Float16,
            Element::Bf16 => Self::Bfloat16,
            Element::I64 => Self::Int64,
        }
    }
}

/// A copy of a host tensor.
pub(crate) fn from_host(tensor: &HostTensor) -> Result<DynValue> {
    Ok(match tensor {
        HostTensor::F32(array) => Tensor::from_array(array.as_standard_layout().into_owned())?.into_dyn(),
        HostTensor::I64(array) => Tensor::from_array(array.as_standard_layout().into_owned())?.into_dyn(),
    })
}

/// A copy of a value in host memory; floats become `f32`.
pub(crate) fn to_host(value: &DynValue) -> Result<HostTensor> {
    let tensor = value.view().downcast::<DynTensorValueType>()?;
    if !tensor.memory_info().is_cpu_accessible() {
        return to_host(&tensor.to(AllocationDevice::CPU, 0)?.into_dyn());
    }
    Ok(match value.dtype().tensor_type() {
        Some(TensorElementType::Float32) => HostTensor::F32(value.try_extract_array()?.to_owned()),
        Some(TensorElementType::Float16) => {
            HostTensor::F32(value.try_extract_array::<f16>()?.mapv(f16::to_f32))
        }
        Some(TensorElementType::Bfloat16) => {
            HostTensor::F32(value.try_extract_array::<bf16>()?.mapv(bf16::to_f32))
        }
        Some(TensorElementType::Int64) => HostTensor::I64(value.try_extract_array()?.to_owned()),
        _ => return Err(Error::new(format!("values of type {} are not supported", value.dtype()))),
    })
}

/// Zeros, or nothing where a size is 0.
pub(crate) fn zeros(shape: &[usize], element: Element) -> Result<DynValue> {
    let zeros = match element {
        Element::I64 => HostTensor::I64(ArrayD::zeros(shape)),
        _ => HostTensor::F32(ArrayD::zeros(shape)),
    };
    Ok(constant(&zeros, element)?.into_dyn())
}

/// A host tensor in memory of ONNX Runtime's own, floats in the given element type.
pub(crate) fn constant(tensor: &HostTensor, element: Element) -> Result<DynTensor> {
    match tensor {
        HostTensor::F32(array) => floats(array.shape(), element, array.iter().copied()),
        HostTensor::I64(array) => Ok(filled(array.shape(), array.iter().copied())?.upcast()),
    }
}

/// A parameter: a view of the mapped file where the element types agree, a converted copy elsewhere, and whether
/// the graph may refer to its memory.
///
/// A view must be kept for as long as the value is used.
pub(crate) fn parameter(view: &WeightView, element: Element) -> Result<(DynTensor, bool)> {
    let agree = matches!(
        (view.dtype(), element),
        (Dtype::F32, Element::F32) | (Dtype::F16, Element::F16) | (Dtype::BF16, Element::Bf16)
    );
    let size = if element == Element::F32 { 4 } else { 2 };
    let aligned = (view.bytes().as_ptr() as usize).is_multiple_of(size);
    let shared = view.bytes().len() >= SMALLEST_SHARED;
    if agree && aligned && shared && cfg!(target_endian = "little") {
        return Ok((mapped(view, element)?, true));
    }
    let tensor = floats(view.shape(), element, view.to_f32().into_iter())?;
    Ok((tensor, shared))
}

fn floats(shape: &[usize], element: Element, data: impl Iterator<Item = f32>) -> Result<DynTensor> {
    Ok(match element {
        Element::F16 => filled(shape, data.map(f16::from_f32))?.upcast(),
        Element::Bf16 => filled(shape, data.map(bf16::from_f32))?.upcast(),
        Element::F32 | Element::I64 => filled(shape, data)?.upcast(),
    })
}

fn filled<T>(shape: &[usize], data: impl Iterator<Item = T>) -> Result<Tensor<T>>
where
    T: ort::value::PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static,
{
    let mut tensor = Tensor::<T>::new(&Allocator::default(), shape.to_vec())?;
    for (place, value) in tensor.extract_tensor_mut().1.iter_mut().zip(data) {
        *place = value;
    }
    Ok(tensor)
}

#[allow(unsafe_code)]
fn mapped(view: &WeightView, element: Element) -> Result<DynTensor> {
    let memory = MemoryInfo::default();
    let shape = Shape::new(view.shape().iter().map(|&size| size as i64));
    let bytes = view.bytes();
    let mut value = std::ptr::null_mut();
    // SAFETY: the bytes are those of a tensor of this shape and element type; they are never written to, since the
    // value becomes an initializer, and the caller keeps the view for as long.
    ortsys![unsafe CreateTensorWithDataAsOrtValue(
        memory.ptr(),
        bytes.as_ptr().cast_mut().cast(),
        bytes.len(),
        shape.as_ptr(),
        shape.len(),
        TensorElementType::from(element).into(),
        &mut value
    )?];
    let value = std::ptr::NonNull::new(value).ok_or_else(|| Error::new("no value was created"))?;
    // SAFETY: the pointer is that of a tensor just created, which nothing else owns.
    Ok(unsafe { DynTensor::from_ptr(value, Some(&Allocator::default())) })
}
