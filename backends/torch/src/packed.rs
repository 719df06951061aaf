//! Kernels of convolutions in the layout that oneDNN computes with.
//!
//! libtorch brings a kernel into that layout at every call: for the lower levels of a UNet, that takes as long as the
//! convolution itself. A packed kernel is a tensor that nothing but [`conv2d`] takes. The result is the same, bit by bit.
//!
//! The layout is chosen before any picture is seen. Where oneDNN wants another for the picture at hand, it brings the packed
//! kernel into that at every call, element by element: that takes some forty times as long as to make it from one that is not
//! packed.

#![allow(unsafe_code)]

use std::env;
use std::ffi::c_char;
use std::ptr;

use smartedit_core::engine::Precision;
use tch::{Kind, TchError, Tensor};
use torch_sys::C_tensor;

use crate::attention;
use crate::foreign::made;

/// Side of the pictures that the layout is chosen for.
const SIDE: i64 = 32;

/// Variables that keep oneDNN from instructions which the processor has.
const RESTRICTIONS: [&str; 2] = ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"];

unsafe extern "C" {
    fn smartedit_torch_has_convolution() -> bool;

    fn smartedit_torch_convolution(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        padding: *const i64,
        stride: *const i64,
        message: *mut c_char,
        length: usize,
    ) -> *mut C_tensor;
}

/// Whether there are packed kernels in this libtorch.
pub(crate) fn is_available() -> bool {
    // SAFETY: the function asks libtorch's dispatcher, which any thread may do at any time, and throws nothing.
    unsafe { smartedit_torch_has_convolution() }
}

/// Whether to pack kernels of more than 1×1 on this processor: where oneDNN lays them out alike for all pictures. With AVX-512
/// it does, in `bf16` where there are instructions for it but no tiles; with AVX2 it does not. Others were not measured.
pub(crate) fn pays(precision: Precision) -> bool {
    let restricted = RESTRICTIONS.iter().any(|name| env::var_os(name).is_some());
    let fixed = match precision {
        Precision::F32 => has_avx512(),
        Precision::Bf16 => has_avx512() && attention::is_available(precision),
        Precision::F16 => false,
    };
    fixed && !restricted && is_available()
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

/// Whether a kernel of this shape can keep one layout. That of 1×1 depends on the size of the picture everywhere.
pub(crate) fn keeps(shape: &[usize]) -> bool {
    shape[2..].iter().product::<usize>() > 1
}

/// Packs `weight [outputs, inputs, height, width]` in the memory of a CPU.
pub(crate) fn pack(weight: &Tensor) -> Result<Tensor, TchError> {
    let (_, inputs, height, width) = weight.size4()?;
    let size: &[i64] = &[1, inputs, SIDE, SIDE];
    let opaque = weight.f_to_mkldnn(None::<Kind>)?;
    opaque.f_mkldnn_reorder_conv2d_weight([height / 2, width / 2], [1, 1], [1, 1], 1, size)
}

/// The convolution with a packed kernel.
pub(crate) fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: [i64; 2],
    padding: [i64; 2],
) -> Result<Tensor, TchError> {
    made(|message, length| {
        // SAFETY: the three tensors are borrowed for the call and stay as they are; `bias` may be null. `padding` and
        // `stride` are two numbers each. The message is as `made` wants it, and no exception passes the border.
        unsafe {
            smartedit_torch_convolution(
                x.as_ptr(),
                weight.as_ptr(),
                bias.map_or(ptr::null(), Tensor::as_ptr),
                padding.as_ptr(),
                stride.as_ptr(),
                message,
                length,
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use smartedit_core::engine::{Engine, Padding};
    use smartedit_core::tensor::HostTensor;
    use smartedit_core::weights::{Dtype, WeightFile};

    use super::*;
    use crate::{TorchEngine, TorchTensor};

    /// Batch, inputs, outputs, side of the picture and of the kernel, stride.
    const SIZES: [[usize; 6]; 7] = [
        [1, 4, 32, 8, 3, 1],
        [3, 32, 32, 4, 3, 1],
        [2, 32, 64, 9, 3, 2],
        [2, 17, 5, 7, 3, 1],
        [1, 32, 48, 32, 1, 1],
        [3, 64, 32, 1, 1, 1],
        [1, 3, 16, 56, 14, 14],
    ];

    fn wave(count: usize) -> impl Iterator<Item = f32> {
        (0..count).map(|index| (index as f32 * 0.7).sin())
    }

    fn file(directory: &std::path::Path, shape: [usize; 4]) -> WeightFile {
        let bytes: Vec<u8> = wave(shape.iter().product()).flat_map(f32::to_le_bytes).collect();
        let view = safetensors::tensor::TensorView::new(Dtype::F32, shape.to_vec(), &bytes).unwrap();
        let path = directory.join("weights.safetensors");
        safetensors::serialize_to_file([("kernel", view)], None, &path).unwrap();
        WeightFile::open(&path).unwrap()
    }

    #[test]
    fn packed_kernels_make_the_same_pictures() {
        assert!(is_available() || cfg!(not(target_arch = "x86_64")));
        // Also where they do not pay.
        let precisions = [Precision::F32, Precision::Bf16]
            .into_iter()
            .filter(|precision| is_available() && (*precision == Precision::F32 || pays(*precision)));
        for precision in precisions {
            for [batch, inputs, outputs, side, kernel, stride] in SIZES {
                let place = tempfile::tempdir().unwrap();
                let shape = [outputs, inputs, kernel, kernel];
                let file = file(place.path(), shape);
                let picture = ndarray::Array::from_iter(wave(batch * inputs * side * side));
                let picture = picture.into_shape_with_order((batch, inputs, side, side)).unwrap();
                let run = |engine: &TorchEngine, padding| -> (TorchTensor, HostTensor) {
                    let weight = engine.parameter(file.view("kernel", &shape).unwrap()).unwrap();
                    let x = engine.cast(&engine.upload(&HostTensor::from(picture.clone())).unwrap()).unwrap();
                    let out = engine.conv2d(&x, &weight, None, stride, padding).unwrap();
                    (weight, engine.download(&out).unwrap())
                };
                let plain = TorchEngine::cpu(precision).with_own_parameters();
                let packs = TorchEngine::cpu(precision).with_packed_kernels();
                let even = Padding::all(kernel / 2);
                let uneven = Padding { top: 0, left: 0, bottom: 1, right: 1 };
                for padding in [even, uneven] {
                    let (packed, found) = run(&packs, padding);
                    let (not_packed, expected) = run(&plain, padding);
                    assert_eq!(
                        (packed.tensor().is_mkldnn(), not_packed.tensor().is_mkldnn()),
                        (kernel > 1, false)
                    );
                    assert_eq!(found, expected, "{precision}, {shape:?}, {batch} of {side}×{side}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error_with_a_reason() {
        let place = tempfile::tempdir().unwrap();
        let engine = TorchEngine::cpu(Precision::F32);
        let weight =
            engine.parameter(file(place.path(), [2, 3, 3, 3]).view("kernel", &[2, 3, 3, 3]).unwrap());
        let picture = engine.upload(&HostTensor::from(ndarray::Array4::<f32>::zeros((1, 5, 8, 8)))).unwrap();
        let error = engine.conv2d(&picture, &weight.unwrap(), None, 1, Padding::all(1)).err().unwrap();
        assert!(error.to_string().contains("channels"), "{error}");
    }
}
