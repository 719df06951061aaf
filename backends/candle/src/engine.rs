//! The operations of [`Engine`], each on the CPU kernels where operands lie in host memory, else on candle's.

use candle_core::{D, DType, Device, Result as CandleResult, Tensor};
use half::bf16;
use ndarray::{ArrayD, IxDyn};
use smartedit_core::engine::{Engine, EngineError, Padding, Precision, Result};
use smartedit_core::tensor::HostTensor;
use smartedit_core::weights::{Dtype, WeightView};

use crate::cpu::{self, AttentionShape, Binary, ConvShape, Function};
use crate::tensor::{CandleTensor, Elements, from_f32, host_view, widened};
use crate::weight::MappedWeight;

/// candle on one device in one precision.
pub struct CandleEngine {
    device: Device,
    dtype: DType,
}

impl CandleEngine {
    /// An engine on the given device.
    pub fn new(device: Device, precision: Precision) -> Self {
        let dtype = match precision {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
            Precision::F16 => DType::F16,
        };
        Self { device, dtype }
    }

    /// An engine on the CPU.
    pub fn cpu(precision: Precision) -> Self {
        Self::new(Device::Cpu, precision)
    }
}

impl Engine for CandleEngine {
    type Tensor = CandleTensor;

    fn parameter(&self, view: WeightView) -> Result<CandleTensor> {
        // Vectors are small, and used where a tensor of candle's is needed.
        let stays = self.device.is_cpu() && view.shape().len() > 1;
        let view = if stays {
            match MappedWeight::new(view, self.dtype) {
                Ok(weight) => return Ok(CandleTensor::Mapped(weight)),
                Err(view) => view,
            }
        } else {
            view
        };
        copy_parameter(&view, &self.device).and_then(|tensor| tensor.to_dtype(self.dtype)).op("parameter")
    }

    fn upload(&self, tensor: &HostTensor) -> Result<CandleTensor> {
        let copied =
            match tensor {
                HostTensor::F32(array) => Tensor::from_iter(array.iter().copied(), &self.device)
                    .and_then(|t| t.reshape(array.shape())),
                HostTensor::I64(array) => Tensor::from_iter(array.iter().copied(), &self.device)
                    .and_then(|t| t.reshape(array.shape())),
            };
        copied.op("upload")
    }

    fn cast(&self, x: &CandleTensor) -> Result<CandleTensor> {
        x.tensor().and_then(|x| x.to_dtype(self.dtype)).op("cast")
    }

    fn download(&self, x: &CandleTensor) -> Result<HostTensor> {
        download(x).map_err(|e| EngineError::new("download", e))
    }

    fn linear(
        &self,
        x: &CandleTensor,
        weight: &CandleTensor,
        bias: Option<&CandleTensor>,
    ) -> Result<CandleTensor> {
        linear(x, weight, bias).op("linear")
    }

    fn conv2d(
        &self,
        x: &CandleTensor,
        weight: &CandleTensor,
        bias: Option<&CandleTensor>,
        stride: usize,
        padding: Padding,
    ) -> Result<CandleTensor> {
        conv2d(x, weight, bias, stride, padding).op("conv2d")
    }

    fn embedding(&self, table: &CandleTensor, ids: &CandleTensor) -> Result<CandleTensor> {
        embedding(table, ids).op("embedding")
    }

    fn layer_norm(
        &self,
        x: &CandleTensor,
        weight: &CandleTensor,
        bias: &CandleTensor,
        eps: f64,
    ) -> Result<CandleTensor> {
        layer_norm(x, weight, bias, eps as f32).op("layer_norm")
    }

    fn rms_norm(&self, x: &CandleTensor, weight: &CandleTensor, eps: f64) -> Result<CandleTensor> {
        rms_norm(x, weight, eps as f32).op("rms_norm")
    }

    fn group_norm(
        &self,
        x: &CandleTensor,
        groups: usize,
        weight: &CandleTensor,
        bias: &CandleTensor,
        eps: f64,
    ) -> Result<CandleTensor> {
        group_norm(x, groups, weight, bias, eps as f32).op("group_norm")
    }

    fn sigmoid(&self, x: &CandleTensor) -> Result<CandleTensor> {
        function(x, Function::Sigmoid, candle_nn::ops::sigmoid).op("sigmoid")
    }

    fn silu(&self, x: &CandleTensor) -> Result<CandleTensor> {
        function(x, Function::Silu, Tensor::silu).op("silu")
    }

    fn quick_gelu(&self, x: &CandleTensor) -> Result<CandleTensor> {
        let on_device = |x: &Tensor| x * candle_nn::ops::sigmoid(&(x * 1.702)?)?;
        function(x, Function::QuickGelu, on_device).op("quick_gelu")
    }

    fn relu(&self, x: &CandleTensor) -> Result<CandleTensor> {
        x.tensor().and_then(|x| x.relu()).op("relu")
    }

    fn gelu(&self, x: &CandleTensor) -> Result<CandleTensor> {
        function(x, Function::Gelu, Tensor::gelu_erf).op("gelu")
    }

    fn geglu(&self, x: &CandleTensor, size: usize) -> Result<CandleTensor> {
        geglu(x, size).op("geglu")
    }

    fn sin(&self, x: &CandleTensor) -> Result<CandleTensor> {
        x.tensor().and_then(|x| x.sin()).op("sin")
    }

    fn cos(&self, x: &CandleTensor) -> Result<CandleTensor> {
        x.tensor().and_then(|x| x.cos()).op("cos")
    }

    fn add(&self, a: &CandleTensor, b: &CandleTensor) -> Result<CandleTensor> {
        join(a, b, Binary::Add, Tensor::broadcast_add).op("add")
    }

    fn mul(&self, a: &CandleTensor, b: &CandleTensor) -> Result<CandleTensor> {
        join(a, b, Binary::Mul, Tensor::broadcast_mul).op("mul")
    }

    fn scale(&self, x: &CandleTensor, factor: f64) -> Result<CandleTensor> {
        x.tensor().and_then(|x| x * factor).op("scale")
    }

    fn matmul(&self, a: &CandleTensor, b: &CandleTensor) -> Result<CandleTensor> {
        binary(a, b, |a, b| a.contiguous()?.matmul(&b.contiguous()?)).op("matmul")
    }

    fn softmax(&self, x: &CandleTensor) -> Result<CandleTensor> {
        let softmax = |x: Tensor| {
            let wide = x.to_dtype(DType::F32)?.contiguous()?;
            candle_nn::ops::softmax_last_dim(&wide)?.to_dtype(x.dtype())
        };
        x.tensor().and_then(softmax).op("softmax")
    }

    fn transpose(&self, x: &CandleTensor) -> Result<CandleTensor> {
        x.tensor().and_then(|x| x.transpose(D::Minus1, D::Minus2)).op("transpose")
    }

    fn concat(&self, parts: &[&CandleTensor], axis: usize) -> Result<CandleTensor> {
        let tensors: CandleResult<Vec<Tensor>> = parts.iter().map(|part| part.tensor()).collect();
        tensors.and_then(|tensors| Tensor::cat(&tensors, axis)).op("concat")
    }

    fn narrow(&self, x: &CandleTensor, axis: usize, start: usize, length: usize) -> Result<CandleTensor> {
        x.tensor().and_then(|x| x.narrow(axis, start, length)).op("narrow")
    }

    fn unsqueeze(&self, x: &CandleTensor, axis: usize) -> Result<CandleTensor> {
        x.tensor().and_then(|x| x.unsqueeze(axis)).op("unsqueeze")
    }

    fn broadcast_batch_like(&self, x: &CandleTensor, like: &CandleTensor) -> Result<CandleTensor> {
        let expand = |x: Tensor| {
            let mut dims = x.dims().to_vec();
            match (dims.first_mut(), like.dims().first()) {
                (Some(size), Some(&batch)) => *size = batch,
                _ => candle_core::bail!("a scalar has no batch"),
            }
            x.broadcast_as(dims)?.contiguous()
        };
        x.tensor().and_then(expand).op("broadcast_batch_like")
    }

    fn split_heads(&self, x: &CandleTensor, heads: usize) -> Result<CandleTensor> {
        let split = |x: Tensor| {
            let (batch, length, size) = x.dims3()?;
            swap_middle(&x.reshape((batch, length, heads, size / heads.max(1)))?)
        };
        x.tensor().and_then(split).op("split_heads")
    }

    fn merge_heads(&self, x: &CandleTensor) -> Result<CandleTensor> {
        let merge = |x: Tensor| {
            let (batch, heads, length, head_dim) = x.dims4()?;
            swap_middle(&x)?.reshape((batch, length, heads * head_dim))
        };
        x.tensor().and_then(merge).op("merge_heads")
    }

    fn flatten_spatial(&self, x: &CandleTensor) -> Result<CandleTensor> {
        x.tensor().and_then(|x| transpose(&x.flatten_from(2)?)).op("flatten_spatial")
    }

    fn unflatten_spatial(&self, x: &CandleTensor, like: &CandleTensor) -> Result<CandleTensor> {
        let unflatten = |x: Tensor| {
            let (height, width) = spatial(like)?;
            unflatten(&x, height, width)
        };
        x.tensor().and_then(unflatten).op("unflatten_spatial")
    }

    fn unflatten_square(&self, x: &CandleTensor, side: usize) -> Result<CandleTensor> {
        x.tensor().and_then(|x| unflatten(&x, side, side)).op("unflatten_square")
    }

    fn pixel_shuffle(&self, x: &CandleTensor, factor: usize) -> Result<CandleTensor> {
        x.tensor().and_then(|x| candle_nn::ops::pixel_shuffle(&x, factor)).op("pixel_shuffle")
    }

    fn upsample_nearest_2x(&self, x: &CandleTensor) -> Result<CandleTensor> {
        let double = |(height, width)| resize(x, (2 * height, 2 * width), cpu::nearest);
        spatial(x).and_then(double).op("upsample_nearest_2x")
    }

    fn upsample_nearest_like(&self, x: &CandleTensor, like: &CandleTensor) -> Result<CandleTensor> {
        spatial(like).and_then(|size| resize(x, size, cpu::nearest)).op("upsample_nearest_like")
    }

    fn resize_bilinear_like(&self, x: &CandleTensor, like: &CandleTensor) -> Result<CandleTensor> {
        spatial(like).and_then(|size| resize(x, size, cpu::bilinear)).op("resize_bilinear_like")
    }

    fn attention(
        &self,
        q: &CandleTensor,
        k: &CandleTensor,
        v: &CandleTensor,
        scale: f64,
        mask: Option<&CandleTensor>,
    ) -> Result<CandleTensor> {
        if q.on_cpu() {
            return attention_on_cpu(q, k, v, scale as f32, mask).op("attention");
        }
        let mut scores = self.matmul(&self.scale(q, scale)?, &self.transpose(k)?)?;
        if let Some(mask) = mask {
            scores = self.add(&scores, mask)?;
        }
        self.matmul(&self.softmax(&scores)?, v)
    }
}

/// Names the operation in an error of candle's.
trait Named {
    fn op(self, operation: &'static str) -> Result<CandleTensor>;
}

impl Named for CandleResult<Tensor> {
    fn op(self, operation: &'static str) -> Result<CandleTensor> {
        self.map(CandleTensor::Owned).map_err(|e| EngineError::new(operation, e))
    }
}

fn binary(
    a: &CandleTensor,
    b: &CandleTensor,
    f: impl FnOnce(&Tensor, &Tensor) -> CandleResult<Tensor>,
) -> CandleResult<Tensor> {
    f(&a.tensor()?, &b.tensor()?)
}

/// Joins floats of one shape, or a picture with a number for each of its channels, on the CPU; all else is candle's.
fn join(
    a: &CandleTensor,
    b: &CandleTensor,
    function: Binary,
    on_device: impl FnOnce(&Tensor, &Tensor) -> CandleResult<Tensor>,
) -> CandleResult<Tensor> {
    let repeat = match (a.dims(), b.dims()) {
        (a, b) if a == b => Some(1),
        (&[batch, channels, height, width], b) if b == [batch, channels, 1, 1] => Some(height * width),
        _ => None,
    };
    let float = |x: &CandleTensor| matches!(x.dtype(), DType::F32 | DType::BF16 | DType::F16);
    match repeat {
        Some(repeat) if repeat > 0 && a.on_cpu() && b.on_cpu() && float(a) && a.dtype() == b.dtype() => {
            let out = with_f32(a, |a| with_f32(b, |b| Ok(cpu::join(function, a, b, repeat))))?;
            from_f32(out, a.dims(), a.dtype())
        }
        _ => binary(a, b, on_device),
    }
}

/// Runs `f` on the elements of a tensor in host memory, in row-major order.
fn with_elements<R>(x: &CandleTensor, f: impl FnOnce(Elements<'_>) -> CandleResult<R>) -> CandleResult<R> {
    match x {
        CandleTensor::Mapped(weight) => f(weight.elements()),
        CandleTensor::Owned(tensor) => {
            let tensor = tensor.contiguous()?;
            let view = host_view(&tensor)?;
            f(view.elements()?)
        }
    }
}

/// The same, converted to `f32`.
fn with_f32<R>(x: &CandleTensor, f: impl FnOnce(&[f32]) -> CandleResult<R>) -> CandleResult<R> {
    with_elements(x, |elements| {
        let mut scratch = Vec::new();
        f(widened(elements, &mut scratch))
    })
}

/// The same for an operand that need not be there.
fn with_optional<R>(
    x: Option<&CandleTensor>,
    f: impl FnOnce(Option<&[f32]>) -> CandleResult<R>,
) -> CandleResult<R> {
    match x {
        Some(x) => with_f32(x, |x| f(Some(x))),
        None => f(None),
    }
}

/// Runs `f` on operands in `bf16` and an optional bias in `f32`; not where an operand or the processor is of another
/// kind.
fn with_bf16(
    x: &CandleTensor,
    weight: &CandleTensor,
    bias: Option<&CandleTensor>,
    f: impl FnOnce(&[bf16], &[bf16], Option<&[f32]>) -> Vec<bf16>,
) -> CandleResult<Option<Vec<bf16>>> {
    if !cpu::has_bf16_products() {
        return Ok(None);
    }
    with_elements(x, |x| {
        with_elements(weight, |weight| match (x, weight) {
            (Elements::Bf16(x), Elements::Bf16(weight)) => {
                with_optional(bias, |bias| Ok(Some(f(x, weight, bias))))
            }
            _ => Ok(None),
        })
    })
}

fn function(
    x: &CandleTensor,
    function: Function,
    on_device: impl FnOnce(&Tensor) -> CandleResult<Tensor>,
) -> CandleResult<Tensor> {
    if !x.on_cpu() {
        return on_device(&x.tensor()?);
    }
    let out = with_f32(x, |x| Ok(cpu::apply(function, x)))?;
    from_f32(out, x.dims(), x.dtype())
}

fn geglu(x: &CandleTensor, size: usize) -> CandleResult<Tensor> {
    let mut dims = x.dims().to_vec();
    match dims.last_mut() {
        Some(last) if *last == 2 * size => *last = size,
        _ => candle_core::bail!("x {:?} does not consist of two halves of {size}", x.dims()),
    }
    if !x.on_cpu() {
        let x = x.tensor()?;
        return x.narrow(D::Minus1, 0, size)? * x.narrow(D::Minus1, size, size)?.gelu_erf()?;
    }
    let out = with_f32(x, |x| Ok(cpu::geglu(x, size)))?;
    from_f32(out, &dims, x.dtype())
}

fn linear(x: &CandleTensor, weight: &CandleTensor, bias: Option<&CandleTensor>) -> CandleResult<Tensor> {
    let &[outputs, inputs] = weight.dims() else {
        candle_core::bail!("the weight must have two dimensions, it has {:?}", weight.dims());
    };
    let mut dims = x.dims().to_vec();
    match dims.last_mut() {
        Some(last) if *last == inputs => *last = outputs,
        _ => candle_core::bail!("x {:?} does not fit the weight {:?}", x.dims(), weight.dims()),
    }
    if !x.on_cpu() {
        let rows: usize = x.dims().iter().rev().skip(1).product();
        let product = x.tensor()?.reshape((rows, inputs))?.matmul(&weight.tensor()?.t()?)?;
        let sum = match bias {
            Some(bias) => product.broadcast_add(&bias.tensor()?)?,
            None => product,
        };
        return sum.reshape(dims);
    }
    if let Some(out) = with_bf16(x, weight, bias, |x, w, b| cpu::linear_bf16(x, w, b, inputs, outputs))? {
        return Tensor::from_vec(out, dims, &Device::Cpu);
    }
    let out = with_f32(x, |x| {
        with_elements(weight, |weight| {
            with_optional(bias, |bias| Ok(cpu::linear(x, weight, bias, inputs, outputs)))
        })
    })?;
    from_f32(out, &dims, x.dtype())
}

fn conv2d(
    x: &CandleTensor,
    weight: &CandleTensor,
    bias: Option<&CandleTensor>,
    stride: usize,
    padding: Padding,
) -> CandleResult<Tensor> {
    let (&[batch, channels, height, width], &[outputs, inputs, kernel_height, kernel_width]) =
        (x.dims(), weight.dims())
    else {
        candle_core::bail!("x {:?} and weight {:?} must have four dimensions", x.dims(), weight.dims());
    };
    let kernel = (kernel_height, kernel_width);
    let shape = ConvShape { batch, channels, height, width, outputs, kernel, stride, padding };
    let size = shape.output_size().filter(|_| channels == inputs);
    let Some(size) = size else {
        candle_core::bail!("x {:?} does not fit the weight {:?}", x.dims(), weight.dims());
    };
    if !x.on_cpu() {
        let x = x.tensor()?.pad_with_zeros(2, padding.top, padding.bottom)?.pad_with_zeros(
            3,
            padding.left,
            padding.right,
        )?;
        let product = x.conv2d(&weight.tensor()?, 0, stride, 1, 1)?;
        return match bias {
            Some(bias) => product.broadcast_add(&bias.tensor()?.reshape((1, outputs, 1, 1))?),
            None => Ok(product),
        };
    }
    let dims = [batch, outputs, size.0, size.1];
    if let Some(out) = with_bf16(x, weight, bias, |x, w, b| cpu::conv2d_bf16(x, w, b, &shape, size))? {
        return Tensor::from_vec(out, &dims, &Device::Cpu);
    }
    let out = with_f32(x, |x| {
        with_f32(weight, |weight| with_optional(bias, |bias| Ok(cpu::conv2d(x, weight, bias, &shape, size))))
    })?;
    from_f32(out, &dims, x.dtype())
}

fn embedding(table: &CandleTensor, ids: &CandleTensor) -> CandleResult<Tensor> {
    let &[_, width] = table.dims() else {
        candle_core::bail!("the table must have two dimensions, it has {:?}", table.dims());
    };
    let mut dims = ids.dims().to_vec();
    dims.push(width);
    let ids = ids.tensor()?.flatten_all()?;
    if !table.on_cpu() {
        return table.tensor()?.index_select(&ids, 0)?.reshape(dims);
    }
    let ids = ids.to_vec1::<i64>()?;
    with_elements(table, |table| cpu::embedding(table, width, &ids, &dims))
}

fn last_dim_is(x: &CandleTensor, weight: &CandleTensor) -> CandleResult<()> {
    if x.dims().last() == weight.dims().first() && weight.dims().len() == 1 {
        return Ok(());
    }
    candle_core::bail!("x {:?} does not fit the weight {:?}", x.dims(), weight.dims())
}

fn layer_norm(
    x: &CandleTensor,
    weight: &CandleTensor,
    bias: &CandleTensor,
    eps: f32,
) -> CandleResult<Tensor> {
    last_dim_is(x, weight)?;
    if !x.on_cpu() {
        return candle_nn::ops::layer_norm(
            &x.tensor()?.contiguous()?,
            &weight.tensor()?,
            &bias.tensor()?,
            eps,
        );
    }
    let out = with_f32(x, |x| {
        with_f32(weight, |weight| with_f32(bias, |bias| Ok(cpu::layer_norm(x, weight, bias, eps))))
    })?;
    from_f32(out, x.dims(), x.dtype())
}

fn rms_norm(x: &CandleTensor, weight: &CandleTensor, eps: f32) -> CandleResult<Tensor> {
    last_dim_is(x, weight)?;
    if !x.on_cpu() {
        return candle_nn::ops::rms_norm(&x.tensor()?.contiguous()?, &weight.tensor()?, eps);
    }
    let out = with_f32(x, |x| with_f32(weight, |weight| Ok(cpu::rms_norm(x, weight, eps))))?;
    from_f32(out, x.dims(), x.dtype())
}

fn group_norm(
    x: &CandleTensor,
    groups: usize,
    weight: &CandleTensor,
    bias: &CandleTensor,
    eps: f32,
) -> CandleResult<Tensor> {
    let &[batch, channels, height, width] = x.dims() else {
        candle_core::bail!("x must have four dimensions, it has {:?}", x.dims());
    };
    if groups == 0 || channels % groups != 0 || weight.dims() != [channels] || bias.dims() != [channels] {
        candle_core::bail!("x {:?} does not fit {groups} groups and weight {:?}", x.dims(), weight.dims());
    }
    if !x.on_cpu() {
        let x = x.tensor()?;
        let wide = x.to_dtype(DType::F32)?.reshape((batch, groups, channels / groups * height * width))?;
        let centred = wide.broadcast_sub(&wide.mean_keepdim(2)?)?;
        let variance = centred.sqr()?.mean_keepdim(2)?;
        let normed = centred.broadcast_div(&(variance + f64::from(eps))?.sqrt()?)?;
        let normed = normed.reshape(x.dims())?.to_dtype(x.dtype())?;
        let scaled = normed.broadcast_mul(&weight.tensor()?.reshape((1, channels, 1, 1))?)?;
        return scaled.broadcast_add(&bias.tensor()?.reshape((1, channels, 1, 1))?);
    }
    let out = with_f32(x, |x| {
        with_f32(weight, |weight| {
            with_f32(bias, |bias| Ok(cpu::group_norm(x, groups, weight, bias, eps, height * width)))
        })
    })?;
    from_f32(out, x.dims(), x.dtype())
}

fn attention_on_cpu(
    q: &CandleTensor,
    k: &CandleTensor,
    v: &CandleTensor,
    scale: f32,
    mask: Option<&CandleTensor>,
) -> CandleResult<Tensor> {
    let (&[batch, heads, queries, head_dim], &[_, _, keys, _]) = (q.dims(), k.dims()) else {
        candle_core::bail!("q {:?} and k {:?} must have four dimensions", q.dims(), k.dims());
    };
    let context = [batch, heads, keys, head_dim];
    if k.dims() != context || v.dims() != context {
        candle_core::bail!("q {:?}, k {:?} and v {:?} do not fit", q.dims(), k.dims(), v.dims());
    }
    if mask.is_some_and(|mask| mask.dims() != [queries, keys]) {
        candle_core::bail!("the mask does not have the shape [{queries}, {keys}]");
    }
    let shape = AttentionShape { heads: batch * heads, queries, keys, head_dim };
    let out = with_f32(q, |q| {
        with_f32(k, |k| {
            with_f32(v, |v| with_optional(mask, |mask| Ok(cpu::attention(q, k, v, mask, scale, &shape))))
        })
    })?;
    from_f32(out, q.dims(), q.dtype())
}

/// `[batch, n, m]` → `[batch, m, n]`.
fn transpose(x: &Tensor) -> CandleResult<Tensor> {
    let (batch, rows, columns) = x.dims3()?;
    if !x.device().is_cpu() {
        return x.transpose(1, 2)?.contiguous();
    }
    let dims = [batch, columns, rows];
    with_elements(&x.clone().into(), |x| match x {
        Elements::F32(x) => Tensor::from_vec(cpu::transpose(x, rows, columns), &dims, &Device::Cpu),
        Elements::Bf16(x) => Tensor::from_vec(cpu::transpose(x, rows, columns), &dims, &Device::Cpu),
        Elements::F16(x) => Tensor::from_vec(cpu::transpose(x, rows, columns), &dims, &Device::Cpu),
    })
}

/// `[batch, n, m, d]` → `[batch, m, n, d]`.
fn swap_middle(x: &Tensor) -> CandleResult<Tensor> {
    let (batch, outer, inner, width) = x.dims4()?;
    if !x.device().is_cpu() {
        return x.transpose(1, 2)?.contiguous();
    }
    let dims = [batch, inner, outer, width];
    with_elements(&x.clone().into(), |x| match x {
        Elements::F32(x) => Tensor::from_vec(cpu::swap_middle(x, outer, inner, width), &dims, &Device::Cpu),
        Elements::Bf16(x) => Tensor::from_vec(cpu::swap_middle(x, outer, inner, width), &dims, &Device::Cpu),
        Elements::F16(x) => Tensor::from_vec(cpu::swap_middle(x, outer, inner, width), &dims, &Device::Cpu),
    })
}

fn spatial(x: &CandleTensor) -> CandleResult<(usize, usize)> {
    match x.dims() {
        &[_, _, height, width] if height > 0 && width > 0 => Ok((height, width)),
        dims => candle_core::bail!("[batch, channels, height, width] is needed, not {dims:?}"),
    }
}

fn unflatten(x: &Tensor, height: usize, width: usize) -> CandleResult<Tensor> {
    let (batch, _, channels) = x.dims3()?;
    transpose(x)?.reshape((batch, channels, height, width))
}

/// Resizes on the host, which is where a resize is cheapest to get exactly right.
fn resize(
    x: &CandleTensor,
    to: (usize, usize),
    f: impl Fn(&[f32], (usize, usize), (usize, usize)) -> Vec<f32>,
) -> CandleResult<Tensor> {
    let from = spatial(x)?;
    let tensor = x.tensor()?;
    let host = CandleTensor::Owned(tensor.to_device(&Device::Cpu)?);
    let out = with_f32(&host, |x| Ok(f(x, from, to)))?;
    let (batch, channels) = (x.dims()[0], x.dims()[1]);
    from_f32(out, &[batch, channels, to.0, to.1], tensor.dtype())?.to_device(tensor.device())
}

fn copy_parameter(view: &WeightView, device: &Device) -> CandleResult<Tensor> {
    let dtype = match view.dtype() {
        Dtype::BF16 => DType::BF16,
        Dtype::F16 => DType::F16,
        _ => DType::F32,
    };
    Tensor::from_raw_buffer(view.bytes(), dtype, view.shape(), device)
}

fn download(x: &CandleTensor) -> CandleResult<HostTensor> {
    let tensor = x.tensor()?;
    let shape = IxDyn(tensor.dims());
    let flat = tensor.flatten_all()?;
    let fits = |e: ndarray::ShapeError| candle_core::Error::Msg(e.to_string());
    if flat.dtype() == DType::I64 {
        let array = ArrayD::from_shape_vec(shape, flat.to_vec1::<i64>()?).map_err(fits)?;
        return Ok(HostTensor::I64(array));
    }
    let data = flat.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    Ok(HostTensor::F32(ArrayD::from_shape_vec(shape, data).map_err(fits)?))
}
