//! Tensors of this engine: libtorch's, which may lie in a mapped weight file.

use std::sync::Arc;

use smartedit_core::weights::WeightView;
use tch::{TchError, Tensor};

/// A tensor of libtorch's. Cloning shares the elements.
#[derive(Clone)]
pub struct TorchTensor(Arc<Shared>);

/// A tensor and what must live as long as it does. Nothing ever changes it.
struct Shared {
    tensor: Tensor,
    /// The weight in whose mapped bytes the elements lie, if they do.
    weight: Option<Arc<WeightView>>,
}

// SAFETY: `at::Tensor` is a pointer with an atomic reference count to a `TensorImpl`, which libtorch lets any
// number of threads read at a time. What it forbids is to change a tensor while others read it: elements, shape,
// strides, `requires_grad`, `set_data`. `Shared` is private to this module, hands out `&Tensor` to this crate
// alone, and this crate calls no function on such a reference that changes the tensor behind it (those of tch that
// end in an underscore or are named `set_…`). Errors of libtorch reach tch through a variable per thread. `Send`
// holds for `tch::Tensor` itself.
#[allow(unsafe_code)]
unsafe impl Sync for Shared {}

impl From<Tensor> for TorchTensor {
    fn from(tensor: Tensor) -> Self {
        Self(Arc::new(Shared { tensor, weight: None }))
    }
}

impl TorchTensor {
    /// The result of an operation on `operands`. Where it shares the memory of a mapped weight among them, as views
    /// do, it keeps the file mapped.
    pub(crate) fn result(tensor: Tensor, operands: &[&Self]) -> Self {
        let mut weights = operands.iter().filter_map(|operand| operand.0.weight.as_ref()).peekable();
        let weight =
            weights.peek().is_some().then(|| tensor.data_ptr().cast_const().cast()).and_then(|start| {
                weights.find(|weight| weight.bytes().as_ptr_range().contains(&start)).cloned()
            });
        Self(Arc::new(Shared { tensor, weight }))
    }

    /// A tensor whose elements stay where the weight's file is mapped.
    ///
    /// The caller makes sure that `kind` is the weight's element type, that the bytes are aligned for it and
    /// that this machine is little-endian.
    pub(crate) fn mapped(view: WeightView, kind: tch::Kind) -> Result<Self, TchError> {
        let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        // SAFETY: the bytes hold one element of `kind` for each index of the shape, in row-major order (safetensors
        // checks sizes), and every bit pattern is a float. They are mapped read-only, and nothing in this crate
        // writes to a tensor. They stay mapped while `weight` lives, which every tensor that shares them holds,
        // this one and the results of operations on it; the tensor itself leaves this crate only as a copy.
        // What libtorch keeps by itself, a graph of gradients or of a trace, is the reason for
        // `TorchEngine::with_own_parameters`.
        #[allow(unsafe_code)]
        let tensor =
            unsafe { Tensor::f_from_blob(view.bytes().as_ptr(), &shape, &[], kind, tch::Device::Cpu) }?;
        Ok(Self(Arc::new(Shared { tensor, weight: Some(Arc::new(view)) })))
    }

    /// libtorch's tensor.
    pub(crate) fn tensor(&self) -> &Tensor {
        &self.0.tensor
    }

    /// Whether the elements lie in a mapped weight file.
    #[cfg(test)]
    pub(crate) fn is_mapped(&self) -> bool {
        self.0.weight.is_some()
    }

    /// The tensor for use with `tch`: it shares its elements with this one, unless they lie in a mapped weight file
    /// and are copied.
    ///
    /// # Errors
    ///
    /// libtorch has no memory for a copy.
    pub fn to_tensor(&self) -> Result<Tensor, TchError> {
        match self.0.weight {
            Some(_) => self.0.tensor.f_to_dtype(self.0.tensor.f_kind()?, false, true),
            None => self.0.tensor.f_alias(),
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use safetensors::tensor::TensorView;
    use smartedit_core::engine::{Engine, Precision};
    use smartedit_core::tensor::HostTensor;
    use smartedit_core::weights::{Dtype, WeightFile};

    use crate::TorchEngine;

    /// A file with one weight `[2, 4]` of each element type, holding 0, ¼, ½ and so on.
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

    fn row(values: [f32; 4]) -> HostTensor {
        HostTensor::from(ndarray::arr2(&[values]))
    }

    #[test]
    fn weights_of_the_engine_s_precision_stay_in_the_file_and_others_are_converted() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = file(directory.path());
        for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
            let engine = TorchEngine::cpu(precision);
            for name in ["f32", "bf16", "f16"] {
                let view = file.view(name, &[2, 4]).expect("the tensor is there");
                let mapped = view.bytes().as_ptr();
                let weight = engine.parameter(view).expect("the weight can be had");
                assert_eq!(weight.is_mapped(), name == precision.to_string());
                assert_eq!(weight.tensor().data_ptr().cast_const().cast() == mapped, weight.is_mapped());
                let x = engine.upload(&row([1.0, 2.0, 3.0, 4.0])).and_then(|x| engine.cast(&x));
                let product = x.and_then(|x| engine.linear(&x, &weight, None));
                let product = product.and_then(|y| engine.download(&y)).expect("a product");
                let expected = HostTensor::from(ndarray::arr2(&[[5.0f32, 15.0]]));
                assert_eq!(product, expected, "{name} in {precision}");
            }
        }
    }

    #[test]
    fn views_of_a_weight_keep_its_file_mapped_and_results_do_not() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = file(directory.path());
        let engine = TorchEngine::cpu(Precision::F32);
        let weight = engine.parameter(file.view("f32", &[2, 4]).expect("the tensor is there"));
        drop(file);
        let last = weight.and_then(|weight| {
            assert!(!engine.scale(&weight, 2.0)?.is_mapped());
            let view = engine.narrow(&engine.cast(&weight)?, 0, 1, 1)?;
            engine.transpose(&engine.transpose(&engine.unsqueeze(&view, 0)?)?)
        });
        let last = last.expect("a view");
        assert!(last.is_mapped());
        let found = engine.download(&last).expect("a download");
        assert_eq!(found, HostTensor::from(ndarray::arr3(&[[[1.0f32, 1.25, 1.5, 1.75]]])));
        let copy = last.to_tensor().expect("a copy");
        assert_ne!(copy.data_ptr(), last.tensor().data_ptr());
    }

    #[test]
    fn parameters_of_one_s_own_share_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = file(directory.path());
        let engine = TorchEngine::cpu(Precision::F32).with_own_parameters();
        let weight = engine.parameter(file.view("f32", &[2, 4]).expect("the tensor is there"));
        assert!(!weight.expect("the weight can be had").is_mapped());
    }
}
