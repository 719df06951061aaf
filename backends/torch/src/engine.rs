//! The operations of [`Engine`], each one of libtorch's.

use std::num::NonZeroUsize;

use ndarray::{ArrayD, IxDyn};
use smartedit_core::engine::{Engine, EngineError, Padding, Precision, Result};
use smartedit_core::tensor::HostTensor;
use smartedit_core::weights::{Dtype, WeightView};
use tch::{Device, Kind, TchError, Tensor};

use crate::tensor::TorchTensor;
use crate::{attention, packed, threads};

type TchResult = std::result::Result<Tensor, TchError>;

/// libtorch on one device in one precision.
pub struct TorchEngine {
    device: Device,
    kind: Kind,
    threads: Option<NonZeroUsize>,
    own_parameters: bool,
    packs: bool,
    /// Whether attention is our own.
    attends: bool,
    observer: Option<AttentionObserver>,
}

/// What is called with the queries, the keys and the scale of every attention.
type AttentionObserver = Box<dyn Fn(&TorchTensor, &TorchTensor, f64) + Send + Sync>;

impl TorchEngine {
    /// An engine on the given device, which must exist.
    pub fn new(device: Device, precision: Precision) -> Self {
        let on_cpu = device == Device::Cpu;
        Self {
            device,
            kind: kind(precision),
            threads: None,
            own_parameters: false,
            packs: on_cpu && packed::pays(precision),
            attends: on_cpu && attention::is_available(precision),
            observer: None,
        }
    }

    /// An engine on the CPU.
    pub fn cpu(precision: Precision) -> Self {
        Self::new(Device::Cpu, precision)
    }

    /// Computes with this number of threads instead of all cores.
    #[must_use]
    pub fn with_threads(self, threads: Option<NonZeroUsize>) -> Self {
        Self { threads, ..self }
    }

    /// Copies parameters as they are instead of sharing the mapped file or packing them, and computes with operators of
    /// libtorch's alone. Needed where it records what operations read (gradients, traces): a record does not keep the file
    /// mapped.
    #[must_use]
    pub fn with_own_parameters(self) -> Self {
        Self { own_parameters: true, packs: false, attends: false, ..self }
    }

    /// Packs kernels though it may not pay.
    #[cfg(test)]
    pub(crate) fn with_packed_kernels(self) -> Self {
        Self { packs: true, ..self }
    }

    /// Calls `observer` with the queries `[batch, heads, n, d]`, the keys `[batch, heads, m, d]` and the scale of every
    /// attention, in the order in which networks compute them: training may supervise where a network looks.
    #[must_use]
    pub fn with_attention_observer(
        self,
        observer: impl Fn(&TorchTensor, &TorchTensor, f64) + Send + Sync + 'static,
    ) -> Self {
        Self { observer: Some(Box::new(observer)), ..self }
    }

    /// Runs an operation and names it in its error.
    fn run(
        &self,
        operation: &'static str,
        operands: &[&TorchTensor],
        f: impl FnOnce() -> TchResult,
    ) -> Result<TorchTensor> {
        threads::apply(self.threads);
        let tensor = f().map_err(|e| failed(operation, &e))?;
        Ok(TorchTensor::result(tensor, operands))
    }

    /// The same for an operation on one tensor.
    fn map(
        &self,
        operation: &'static str,
        x: &TorchTensor,
        f: impl FnOnce(&Tensor) -> TchResult,
    ) -> Result<TorchTensor> {
        self.run(operation, &[x], || f(x.tensor()))
    }

    /// Whether a parameter can be used where its file is mapped.
    fn shares(&self, view: &WeightView) -> bool {
        let aligned = (view.bytes().as_ptr() as usize).is_multiple_of(self.kind.elt_size_in_bytes());
        !self.own_parameters
            && self.device == Device::Cpu
            && kind_of(view.dtype()) == self.kind
            && aligned
            && cfg!(target_endian = "little")
            // Kernels of convolutions get a layout of their own.
            && view.shape().len() < 4
    }
}

impl Engine for TorchEngine {
    type Tensor = TorchTensor;

    fn parameter(&self, view: WeightView) -> Result<TorchTensor> {
        if self.shares(&view) {
            return TorchTensor::mapped(view, self.kind).map_err(|e| failed("parameter", &e));
        }
        self.run("parameter", &[], || {
            let copy = Tensor::f_from_data_size(view.bytes(), &sizes(view.shape()), kind_of(view.dtype()))?;
            let tensor = copy.f_to_device(self.device)?.f_to_kind(self.kind)?;
            match view.shape() {
                kernel @ [_, _, _, _] if self.packs && packed::keeps(kernel) => packed::pack(&tensor),
                [_, _, _, _] => channels_last(&tensor),
                _ => Ok(tensor),
            }
        })
    }

    fn upload(&self, tensor: &HostTensor) -> Result<TorchTensor> {
        self.run("upload", &[], || upload(tensor)?.f_to_device(self.device))
    }

    fn cast(&self, x: &TorchTensor) -> Result<TorchTensor> {
        self.map("cast", x, |x| x.f_to_kind(self.kind))
    }

    fn download(&self, x: &TorchTensor) -> Result<HostTensor> {
        threads::apply(self.threads);
        download(x.tensor()).map_err(|e| failed("download", &e))
    }

    fn linear(
        &self,
        x: &TorchTensor,
        weight: &TorchTensor,
        bias: Option<&TorchTensor>,
    ) -> Result<TorchTensor> {
        self.map("linear", x, |x| x.f_linear(weight.tensor(), bias.map(TorchTensor::tensor)))
    }

    fn conv2d(
        &self,
        x: &TorchTensor,
        weight: &TorchTensor,
        bias: Option<&TorchTensor>,
        stride: usize,
        padding: Padding,
    ) -> Result<TorchTensor> {
        self.map("conv2d", x, |x| conv2d(x, weight.tensor(), bias.map(TorchTensor::tensor), stride, padding))
    }

    fn embedding(&self, table: &TorchTensor, ids: &TorchTensor) -> Result<TorchTensor> {
        self.map("embedding", table, |table| Tensor::f_embedding(table, ids.tensor(), -1, false, false))
    }

    fn layer_norm(
        &self,
        x: &TorchTensor,
        weight: &TorchTensor,
        bias: &TorchTensor,
        eps: f64,
    ) -> Result<TorchTensor> {
        self.map("layer_norm", x, |x| {
            x.f_layer_norm(weight.tensor().size(), Some(weight.tensor()), Some(bias.tensor()), eps, true)
        })
    }

    fn rms_norm(&self, x: &TorchTensor, weight: &TorchTensor, eps: f64) -> Result<TorchTensor> {
        self.map("rms_norm", x, |x| x.f_rms_norm(weight.tensor().size(), Some(weight.tensor()), eps))
    }

    fn group_norm(
        &self,
        x: &TorchTensor,
        groups: usize,
        weight: &TorchTensor,
        bias: &TorchTensor,
        eps: f64,
    ) -> Result<TorchTensor> {
        self.map("group_norm", x, |x| {
            x.f_group_norm(int(groups), Some(weight.tensor()), Some(bias.tensor()), eps, true)
        })
    }

    fn sigmoid(&self, x: &TorchTensor) -> Result<TorchTensor> {
        self.map("sigmoid", x, Tensor::f_sigmoid)
    }

    fn silu(&self, x: &TorchTensor) -> Result<TorchTensor> {
        self.map("silu", x, Tensor::f_silu)
    }

    fn relu(&self, x: &TorchTensor) -> Result<TorchTensor> {
        self.map("relu", x, Tensor::f_relu)
    }

    fn gelu(&self, x: &TorchTensor) -> Result<TorchTensor> {
        self.map("gelu", x, |x| x.f_gelu("none"))
    }

    fn sin(&self, x: &TorchTensor) -> Result<TorchTensor> {
        self.map("sin", x, Tensor::f_sin)
    }

    fn cos(&self, x: &TorchTensor) -> Result<TorchTensor> {
        self.map("cos", x, Tensor::f_cos)
    }

    fn add(&self, a: &TorchTensor, b: &TorchTensor) -> Result<TorchTensor> {
        self.map("add", a, |a| a.f_add(b.tensor()))
    }

    fn mul(&self, a: &TorchTensor, b: &TorchTensor) -> Result<TorchTensor> {
        self.map("mul", a, |a| a.f_mul(b.tensor()))
    }

    fn scale(&self, x: &TorchTensor, factor: f64) -> Result<TorchTensor> {
        self.map("scale", x, |x| x.f_mul_scalar(factor))
    }

    fn matmul(&self, a: &TorchTensor, b: &TorchTensor) -> Result<TorchTensor> {
        self.map("matmul", a, |a| a.f_matmul(b.tensor()))
    }

    /// libtorch's kernels sum in `f32` whatever the element type.
    fn softmax(&self, x: &TorchTensor) -> Result<TorchTensor> {
        self.map("softmax", x, |x| x.f_softmax(-1, None))
    }

    fn transpose(&self, x: &TorchTensor) -> Result<TorchTensor> {
        self.map("transpose", x, |x| x.f_transpose(-2, -1))
    }

    fn concat(&self, parts: &[&TorchTensor], axis: usize) -> Result<TorchTensor> {
        let tensors: Vec<&Tensor> = parts.iter().map(|part| part.tensor()).collect();
        self.run("concat", parts, || Tensor::f_cat(&tensors, int(axis)))
    }

    fn narrow(&self, x: &TorchTensor, axis: usize, start: usize, length: usize) -> Result<TorchTensor> {
        self.map("narrow", x, |x| x.f_narrow(int(axis), int(start), int(length)))
    }

    fn unsqueeze(&self, x: &TorchTensor, axis: usize) -> Result<TorchTensor> {
        self.map("unsqueeze", x, |x| x.f_unsqueeze(int(axis)))
    }

    fn broadcast_batch_like(&self, x: &TorchTensor, like: &TorchTensor) -> Result<TorchTensor> {
        self.map("broadcast_batch_like", x, |x| {
            let mut size = x.size();
            match (size.first_mut(), like.tensor().size().first()) {
                (Some(size), Some(&batch)) => *size = batch,
                _ => return Err(TchError::Shape("a scalar has no batch".to_owned())),
            }
            x.f_expand(size, false)
        })
    }

    fn split_heads(&self, x: &TorchTensor, heads: usize) -> Result<TorchTensor> {
        self.map("split_heads", x, |x| {
            let (batch, length, size) = x.size3()?;
            let heads = int(heads);
            x.f_reshape([batch, length, heads, size / heads.max(1)])?.f_transpose(1, 2)
        })
    }

    fn merge_heads(&self, x: &TorchTensor) -> Result<TorchTensor> {
        self.map("merge_heads", x, |x| {
            let (batch, heads, length, head_dim) = x.size4()?;
            x.f_transpose(1, 2)?.f_reshape([batch, length, heads * head_dim])
        })
    }

    fn flatten_spatial(&self, x: &TorchTensor) -> Result<TorchTensor> {
        self.map("flatten_spatial", x, |x| {
            let (batch, channels, height, width) = x.size4()?;
            x.f_permute([0, 2, 3, 1])?.f_reshape([batch, height * width, channels])
        })
    }

    fn unflatten_spatial(&self, x: &TorchTensor, like: &TorchTensor) -> Result<TorchTensor> {
        self.map("unflatten_spatial", x, |x| {
            let [height, width] = spatial(like.tensor())?;
            unflatten(x, height, width)
        })
    }

    fn unflatten_square(&self, x: &TorchTensor, side: usize) -> Result<TorchTensor> {
        self.map("unflatten_square", x, |x| unflatten(x, int(side), int(side)))
    }

    fn pixel_shuffle(&self, x: &TorchTensor, factor: usize) -> Result<TorchTensor> {
        self.map("pixel_shuffle", x, |x| x.f_pixel_shuffle(int(factor)))
    }

    fn upsample_nearest_2x(&self, x: &TorchTensor) -> Result<TorchTensor> {
        self.map("upsample_nearest_2x", x, |x| {
            x.f_upsample_nearest2d(spatial(x)?.map(|size| 2 * size), None, None)
        })
    }

    fn upsample_nearest_like(&self, x: &TorchTensor, like: &TorchTensor) -> Result<TorchTensor> {
        self.map("upsample_nearest_like", x, |x| x.f_upsample_nearest2d(spatial(like.tensor())?, None, None))
    }

    fn resize_bilinear_like(&self, x: &TorchTensor, like: &TorchTensor) -> Result<TorchTensor> {
        self.map("resize_bilinear_like", x, |x| {
            x.f_upsample_bilinear2d(spatial(like.tensor())?, false, None, None)
        })
    }

    fn attention(
        &self,
        q: &TorchTensor,
        k: &TorchTensor,
        v: &TorchTensor,
        scale: f64,
        mask: Option<&TorchTensor>,
    ) -> Result<TorchTensor> {
        if let Some(observer) = &self.observer {
            observer(q, k, scale);
        }
        self.map("attention", q, |q| {
            let (k, v, mask) = (k.tensor(), v.tensor(), mask.map(TorchTensor::tensor));
            if self.attends && mask.is_none() && attention::takes(q, k, v) {
                return attention::attention(q, k, v, scale);
            }
            Tensor::f_scaled_dot_product_attention(q, k, v, mask, 0.0, false, scale, false)
        })
    }
}

fn failed(operation: &'static str, error: &TchError) -> EngineError {
    EngineError::new(operation, message(error))
}

/// What an error of libtorch's says, without its traces of C++ and TorchScript.
pub(crate) fn message(error: &TchError) -> String {
    let text = error.to_string();
    let cause = text.lines().find_map(|line| line.strip_prefix("RuntimeError: "));
    let own = text.trim_start_matches("Internal torch error: ");
    let first = own.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    cause.unwrap_or(first).to_owned()
}

/// A size as libtorch counts it.
fn int(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn sizes(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&size| int(size)).collect()
}

/// The element type of a precision.
pub(crate) fn kind(precision: Precision) -> Kind {
    match precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
        Precision::F16 => Kind::Half,
    }
}

fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::BF16 => Kind::BFloat16,
        Dtype::F16 => Kind::Half,
        _ => Kind::Float,
    }
}

/// `[a, b, c, d]` with `b` innermost in memory. What is so already is not copied.
fn channels_last(x: &Tensor) -> TchResult {
    x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])
}

fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, stride: usize, padding: Padding) -> TchResult {
    let Padding { top, left, bottom, right } = padding;
    let stride = [int(stride); 2];
    let x = channels_last(x)?;
    let (x, padding) = match (top, left) == (bottom, right) {
        true => (x, [int(top), int(left)]),
        false => (x.f_constant_pad_nd([left, right, top, bottom].map(int))?, [0, 0]),
    };
    match weight.is_mkldnn() {
        true => packed::conv2d(&x, weight, bias, stride, padding),
        false => x.f_conv2d(weight, bias, stride, padding, [1, 1], 1),
    }
}

/// Height and width of `[batch, channels, height, width]`.
fn spatial(x: &Tensor) -> std::result::Result<[i64; 2], TchError> {
    x.size4().map(|(_, _, height, width)| [height, width])
}

/// `[batch, height · width, channels]` → `[batch, channels, height, width]`, channels last.
fn unflatten(x: &Tensor, height: i64, width: i64) -> TchResult {
    let (batch, _, channels) = x.size3()?;
    x.f_reshape([batch, height, width, channels])?.f_permute([0, 3, 1, 2])
}

pub(crate) fn upload(tensor: &HostTensor) -> TchResult {
    let flat = match tensor {
        HostTensor::F32(array) => match array.as_slice() {
            Some(slice) => Tensor::f_from_slice(slice),
            None => Tensor::f_from_slice(&array.iter().copied().collect::<Vec<_>>()),
        },
        HostTensor::I64(array) => match array.as_slice() {
            Some(slice) => Tensor::f_from_slice(slice),
            None => Tensor::f_from_slice(&array.iter().copied().collect::<Vec<_>>()),
        },
    }?;
    flat.f_reshape(sizes(tensor.shape()))
}

pub(crate) fn download(x: &Tensor) -> std::result::Result<HostTensor, TchError> {
    let size = x.size();
    let shape = IxDyn(&size.iter().map(|&size| size as usize).collect::<Vec<_>>());
    let fits = |e: ndarray::ShapeError| TchError::Shape(e.to_string());
    let count = x.numel();
    if x.f_kind()? == Kind::Int64 {
        let mut data = vec![0i64; count];
        x.f_copy_data(&mut data, count)?;
        return Ok(HostTensor::I64(ArrayD::from_shape_vec(shape, data).map_err(fits)?));
    }
    let mut data = vec![0f32; count];
    x.f_to_kind(Kind::Float)?.f_copy_data(&mut data, count)?;
    Ok(HostTensor::F32(ArrayD::from_shape_vec(shape, data).map_err(fits)?))
}
