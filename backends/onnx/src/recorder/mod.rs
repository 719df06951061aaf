//! An engine that writes operations down instead of executing them.
//!
//! A recorded tensor knows what it is computed from; [`Graph`](crate::graph::Graph) collects what outputs need.
//! Sizes are names where they differ from run to run, so that one recording serves every batch, length and
//! picture.

mod size;
mod tensor;

use ndarray::{Array1, ArrayD, IxDyn};
use smartedit_core::engine::{Engine, EngineError, Padding, Precision, Result};
use smartedit_core::stages::{Dim, Elements, Port};
use smartedit_core::tensor::HostTensor;
use smartedit_core::weights::{self, WeightFile, WeightSource, WeightView};

pub use self::size::Size;
pub(crate) use self::size::{broadcast, shown};
pub(crate) use self::tensor::{Attribute, Operator, Origin};
pub use self::tensor::{Element, Recorded};

/// The domain of ONNX's own operators.
pub(crate) const ONNX: &str = "";
/// The domain of ONNX Runtime's own operators.
pub(crate) const MICROSOFT: &str = "com.microsoft";

/// The operators that a recording may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operators {
    /// ONNX's own, which every runtime has.
    Standard,
    /// Also the fused ones of ONNX Runtime's CPU and CUDA providers.
    Fused,
}

/// Records operations in one precision.
#[derive(Debug, Clone, Copy)]
pub struct Recorder {
    precision: Precision,
    operators: Operators,
}

impl Recorder {
    /// A recorder of networks whose parameters and activations have this precision.
    pub fn new(precision: Precision, operators: Operators) -> Self {
        Self { precision, operators }
    }

    /// An input of a graph.
    pub fn input(&self, name: &str, element: Element, shape: Vec<Size>) -> Recorded {
        Recorded::new(Origin::Input(name.to_owned()), element, shape)
    }

    /// An input of a graph, as a function's port says.
    pub(crate) fn port(&self, port: &Port) -> Recorded {
        let element = match port.elements {
            Elements::F32 => Element::F32,
            Elements::Ids { .. } => Element::I64,
            Elements::Computed => self.precision.into(),
        };
        let size = |dim: &Dim| match *dim {
            Dim::Is(size) => Size::Known(size),
            Dim::Any(name) | Dim::MultipleOf(name, _) => Size::Named(name.to_owned()),
        };
        self.input(&port.name.to_string(), element, port.shape.iter().map(size).collect())
    }

    fn fused(self) -> bool {
        self.operators == Operators::Fused
    }

    fn operator(
        self,
        name: &'static str,
        inputs: &[&Recorded],
        attributes: Vec<(&'static str, Attribute)>,
        shape: Vec<Size>,
    ) -> Recorded {
        let element = inputs.first().map_or(Element::F32, |x| x.element());
        self.of_domain(ONNX, name, inputs, attributes, element, shape)
    }

    fn of_domain(
        self,
        domain: &'static str,
        name: &'static str,
        inputs: &[&Recorded],
        attributes: Vec<(&'static str, Attribute)>,
        element: Element,
        shape: Vec<Size>,
    ) -> Recorded {
        let inputs = inputs.iter().map(|&x| Some(x.clone())).collect();
        Recorded::new(Origin::Operator(Operator { name, domain, inputs, attributes }), element, shape)
    }

    /// An operator that works element by element.
    fn function(self, name: &'static str, x: &Recorded) -> Recorded {
        self.operator(name, &[x], vec![], x.shape().to_vec())
    }

    fn integers(self, values: &[i64]) -> Recorded {
        let shape = vec![Size::Known(values.len())];
        let values = HostTensor::from(Array1::from(values.to_vec()));
        Recorded::new(Origin::Constant(values), Element::I64, shape)
    }

    fn scalar(self, value: f64, element: Element) -> Recorded {
        let value = HostTensor::F32(ArrayD::from_elem(IxDyn(&[]), value as f32));
        Recorded::new(Origin::Constant(value), element, vec![])
    }

    fn filled(self, value: f32, length: usize, element: Element) -> Recorded {
        let value = HostTensor::from(Array1::from_elem(length, value));
        Recorded::new(Origin::Constant(value), element, vec![Size::Known(length)])
    }

    /// Floats in another element type.
    fn converted(self, x: &Recorded, element: Element) -> Recorded {
        if x.element() == element {
            return x.clone();
        }
        if let Origin::Constant(value) = x.origin() {
            return Recorded::new(Origin::Constant(value.clone()), element, x.shape().to_vec());
        }
        let to = Attribute::Int(element.onnx().into());
        self.of_domain(ONNX, "Cast", &[x], vec![("to", to)], element, x.shape().to_vec())
    }

    /// The sizes of some dimensions as a tensor.
    fn sizes(self, x: &Recorded, range: std::ops::Range<usize>) -> Recorded {
        let known: Option<Vec<i64>> = x.shape()[range.clone()]
            .iter()
            .map(|size| match size {
                Size::Known(_) => Some(size.or_minus_one()),
                Size::Named(_) => None,
            })
            .collect();
        if let Some(known) = known {
            return self.integers(&known);
        }
        let attributes =
            vec![("start", Attribute::Int(range.start as i64)), ("end", Attribute::Int(range.end as i64))];
        let length = vec![Size::Known(range.len())];
        self.of_domain(ONNX, "Shape", &[x], attributes, Element::I64, length)
    }

    fn joined(self, parts: &[&Recorded], shape: Vec<Size>, axis: usize) -> Recorded {
        self.operator("Concat", parts, vec![("axis", Attribute::Int(axis as i64))], shape)
    }

    /// Sizes of the first two dimensions of one tensor and of height and width of another.
    fn resized(self, x: &Recorded, like: &Recorded) -> Recorded {
        let (channels, size) = (self.sizes(x, 0..2), self.sizes(like, 2..4));
        self.joined(&[&channels, &size], vec![Size::Known(4)], 0)
    }

    /// A new shape: 0 keeps a size, −1 takes what is left.
    fn reshape(self, x: &Recorded, target: &[i64], shape: Vec<Size>) -> Recorded {
        self.operator("Reshape", &[x, &self.integers(target)], vec![], shape)
    }

    fn permute(self, x: &Recorded, order: &[usize]) -> Recorded {
        self.permute_whole(x, order, None)
    }

    fn permute_whole(self, x: &Recorded, order: &[usize], whole: Option<Recorded>) -> Recorded {
        let shape = order.iter().map(|&axis| x.shape()[axis].clone()).collect();
        let order = order.iter().map(|&axis| axis as i64).collect();
        let operator = Operator {
            name: "Transpose",
            domain: ONNX,
            inputs: vec![Some(x.clone())],
            attributes: vec![("perm", Attribute::Ints(order))],
        };
        Recorded::of_whole(Origin::Operator(operator), x.element(), shape, whole)
    }

    fn elementwise(
        self,
        operation: &'static str,
        name: &'static str,
        a: &Recorded,
        b: &Recorded,
    ) -> Result<Recorded> {
        let shape = broadcast(a.shape(), b.shape()).filter(|_| a.element() == b.element());
        let shape = shape.ok_or_else(|| mismatch(operation, &[a, b]))?;
        Ok(self.operator(name, &[a, b], vec![], shape))
    }

    fn resize(
        self,
        x: &Recorded,
        sizes: &Recorded,
        attributes: Vec<(&'static str, Attribute)>,
        shape: Vec<Size>,
    ) -> Recorded {
        let inputs = vec![Some(x.clone()), None, None, Some(sizes.clone())];
        let operator = Operator { name: "Resize", domain: ONNX, inputs, attributes };
        Recorded::new(Origin::Operator(operator), x.element(), shape)
    }

    /// `x · σ(alpha · x)`.
    fn swish(self, x: &Recorded, alpha: f32) -> Recorded {
        let attributes = vec![("alpha", Attribute::Float(alpha))];
        self.of_domain(MICROSOFT, "QuickGelu", &[x], attributes, x.element(), x.shape().to_vec())
    }

    /// `[batch, n, heads · d]` → `[batch, heads, n, d]`, which remembers where it comes from.
    fn heads(self, x: &Recorded, heads: usize) -> Result<Recorded> {
        let [batch, length, size] = dims("split_heads", x)?;
        let head_dim = match size {
            Size::Known(size) if heads > 0 && size.is_multiple_of(heads) => Size::Known(size / heads),
            _ => return Err(wrong("split_heads", x, &format!("[batch, n, a multiple of {heads}]"))),
        };
        let shape = vec![batch.clone(), length.clone(), Size::Known(heads), head_dim.clone()];
        let split = self.reshape(x, &[0, 0, heads as i64, head_dim.or_minus_one()], shape);
        Ok(self.permute_whole(&split, &[0, 2, 1, 3], Some(x.clone())))
    }

    /// ONNX Runtime's attention, where the number of heads is known.
    fn fused_attention(
        self,
        q: &Recorded,
        k: &Recorded,
        v: &Recorded,
        scale: f64,
        mask: Option<&Recorded>,
    ) -> Result<Option<Recorded>> {
        let (Size::Known(heads), Size::Known(_)) = (&q.shape()[1], &q.shape()[3]) else { return Ok(None) };
        let query = self.merge_heads(q)?;
        let (key, value) = match (k.whole(), v.whole()) {
            (Some(key), Some(value)) => (key, value),
            _ => (k, v),
        };
        let mut inputs = vec![Some(query.clone()), Some(key.clone()), Some(value.clone())];
        if let Some(mask) = mask {
            inputs.extend([None, None, Some(self.unsqueeze(&self.unsqueeze(mask, 0)?, 0)?)]);
        }
        let attributes =
            vec![("num_heads", Attribute::Int(*heads as i64)), ("scale", Attribute::Float(scale as f32))];
        let operator = Operator { name: "MultiHeadAttention", domain: MICROSOFT, inputs, attributes };
        let shape = query.shape().to_vec();
        let attended = Recorded::new(Origin::Operator(operator), q.element(), shape);
        self.heads(&attended, *heads).map(Some)
    }
}

impl Engine for Recorder {
    type Tensor = Recorded;

    fn parameter(&self, view: WeightView) -> Result<Recorded> {
        let shape = view.shape().iter().map(|&size| Size::Known(size)).collect();
        Ok(Recorded::new(Origin::Parameter(String::new(), view), self.precision.into(), shape))
    }

    fn upload(&self, tensor: &HostTensor) -> Result<Recorded> {
        let element = match tensor {
            HostTensor::F32(_) => Element::F32,
            HostTensor::I64(_) => Element::I64,
        };
        let shape = tensor.shape().iter().map(|&size| Size::Known(size)).collect();
        Ok(Recorded::new(Origin::Constant(tensor.clone()), element, shape))
    }

    fn cast(&self, x: &Recorded) -> Result<Recorded> {
        Ok(match x.element() {
            Element::I64 => x.clone(),
            _ => self.converted(x, self.precision.into()),
        })
    }

    fn download(&self, _: &Recorded) -> Result<HostTensor> {
        Err(EngineError::new("download", "a recorded tensor has no value before its graph runs"))
    }

    fn linear(&self, x: &Recorded, weight: &Recorded, bias: Option<&Recorded>) -> Result<Recorded> {
        let [outputs, inputs] = dims("linear", weight)?;
        let Some((width, leading)) = x.shape().split_last() else {
            return Err(mismatch("linear", &[x, weight]));
        };
        width.merged(inputs).ok_or_else(|| mismatch("linear", &[x, weight]))?;
        let shape: Vec<Size> = leading.iter().chain([outputs]).cloned().collect();
        let product = if self.fused() {
            let attributes = vec![("transB", Attribute::Int(1))];
            self.of_domain(MICROSOFT, "FusedMatMul", &[x, weight], attributes, x.element(), shape)
        } else {
            self.operator("MatMul", &[x, &self.permute(weight, &[1, 0])], vec![], shape)
        };
        match bias {
            Some(bias) => self.elementwise("linear", "Add", &product, bias),
            None => Ok(product),
        }
    }

    fn conv2d(
        &self,
        x: &Recorded,
        weight: &Recorded,
        bias: Option<&Recorded>,
        stride: usize,
        padding: Padding,
    ) -> Result<Recorded> {
        let [batch, channels, height, width] = dims("conv2d", x)?;
        let [outputs, inputs, kernel_height, kernel_width] = dims("conv2d", weight)?;
        let unfit = || mismatch("conv2d", &[x, weight]);
        channels.merged(inputs).ok_or_else(unfit)?;
        let (Size::Known(kernel_height), Size::Known(kernel_width)) = (kernel_height, kernel_width) else {
            return Err(wrong("conv2d", weight, "a kernel of known size"));
        };
        let Padding { top, left, bottom, right } = padding;
        let shape = vec![
            batch.clone(),
            outputs.clone(),
            height.convolved(*kernel_height, stride, top + bottom).ok_or_else(unfit)?,
            width.convolved(*kernel_width, stride, left + right).ok_or_else(unfit)?,
        ];
        let ints = |values: &[usize]| Attribute::Ints(values.iter().map(|&value| value as i64).collect());
        let attributes = vec![
            ("kernel_shape", ints(&[*kernel_height, *kernel_width])),
            ("strides", ints(&[stride, stride])),
            ("pads", ints(&[top, left, bottom, right])),
        ];
        let inputs: Vec<&Recorded> = [x, weight].into_iter().chain(bias).collect();
        Ok(self.operator("Conv", &inputs, attributes, shape))
    }

    fn embedding(&self, table: &Recorded, ids: &Recorded) -> Result<Recorded> {
        let [_, width] = dims("embedding", table)?;
        let shape = ids.shape().iter().chain([width]).cloned().collect();
        Ok(self.operator("Gather", &[table, ids], vec![("axis", Attribute::Int(0))], shape))
    }

    fn layer_norm(&self, x: &Recorded, weight: &Recorded, bias: &Recorded, eps: f64) -> Result<Recorded> {
        self.check_width("layer_norm", x, weight)?;
        self.check_width("layer_norm", x, bias)?;
        let attributes = vec![("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(eps as f32))];
        Ok(self.operator("LayerNormalization", &[x, weight, bias], attributes, x.shape().to_vec()))
    }

    fn rms_norm(&self, x: &Recorded, weight: &Recorded, eps: f64) -> Result<Recorded> {
        self.check_width("rms_norm", x, weight)?;
        if self.fused() {
            let attributes = vec![("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(eps as f32))];
            let shape = x.shape().to_vec();
            return Ok(self.operator("SimplifiedLayerNormalization", &[x, weight], attributes, shape));
        }
        let wide = self.converted(x, Element::F32);
        let mut mean_shape = x.shape().to_vec();
        mean_shape.truncate(mean_shape.len() - 1);
        mean_shape.push(Size::Known(1));
        let square = self.mul(&wide, &wide)?;
        let mean = self.operator("ReduceMean", &[&square, &self.integers(&[-1])], vec![], mean_shape);
        let root = self.function("Sqrt", &self.add(&mean, &self.scalar(eps, Element::F32))?);
        let normed = self.elementwise("rms_norm", "Div", &wide, &root)?;
        self.mul(&self.converted(&normed, x.element()), weight)
    }

    fn group_norm(
        &self,
        x: &Recorded,
        groups: usize,
        weight: &Recorded,
        bias: &Recorded,
        eps: f64,
    ) -> Result<Recorded> {
        let [batch, channels, height, width] = dims("group_norm", x)?;
        for parameter in [weight, bias] {
            let [size] = dims("group_norm", parameter)?;
            channels.merged(size).ok_or_else(|| mismatch("group_norm", &[x, parameter]))?;
        }
        if matches!(channels, Size::Known(channels) if groups == 0 || !channels.is_multiple_of(groups)) {
            return Err(wrong("group_norm", x, &format!("channels in {groups} groups")));
        }
        let size = channels.times(&height.times(width));
        let grouped = vec![batch.clone(), Size::Known(groups), size];
        let grouped = self.reshape(x, &[0, groups as i64, -1], grouped);
        let one = self.filled(1.0, groups, x.element());
        let zero = self.filled(0.0, groups, x.element());
        let attributes = vec![("epsilon", Attribute::Float(eps as f32))];
        let shape = grouped.shape().to_vec();
        let normed = self.operator("InstanceNormalization", &[&grouped, &one, &zero], attributes, shape);
        let normed = self.operator("Reshape", &[&normed, &self.sizes(x, 0..4)], vec![], x.shape().to_vec());
        let channel = |parameter: &Recorded| {
            let shape = [parameter.shape()[0].clone(), Size::Known(1), Size::Known(1)];
            self.operator("Unsqueeze", &[parameter, &self.integers(&[1, 2])], vec![], shape.to_vec())
        };
        self.add(&self.mul(&normed, &channel(weight))?, &channel(bias))
    }

    fn sigmoid(&self, x: &Recorded) -> Result<Recorded> {
        Ok(self.function("Sigmoid", x))
    }

    fn relu(&self, x: &Recorded) -> Result<Recorded> {
        Ok(self.function("Relu", x))
    }

    fn gelu(&self, x: &Recorded) -> Result<Recorded> {
        Ok(self.function("Gelu", x))
    }

    fn sin(&self, x: &Recorded) -> Result<Recorded> {
        Ok(self.function("Sin", x))
    }

    fn cos(&self, x: &Recorded) -> Result<Recorded> {
        Ok(self.function("Cos", x))
    }

    fn add(&self, a: &Recorded, b: &Recorded) -> Result<Recorded> {
        self.elementwise("add", "Add", a, b)
    }

    fn mul(&self, a: &Recorded, b: &Recorded) -> Result<Recorded> {
        self.elementwise("mul", "Mul", a, b)
    }

    fn scale(&self, x: &Recorded, factor: f64) -> Result<Recorded> {
        self.mul(x, &self.scalar(factor, x.element()))
    }

    fn matmul(&self, a: &Recorded, b: &Recorded) -> Result<Recorded> {
        let unfit = || mismatch("matmul", &[a, b]);
        let ([leading_a @ .., rows, inner_a], [leading_b @ .., inner_b, columns]) = (a.shape(), b.shape())
        else {
            return Err(unfit());
        };
        inner_a.merged(inner_b).ok_or_else(unfit)?;
        let mut shape = broadcast(leading_a, leading_b).ok_or_else(unfit)?;
        shape.extend([rows.clone(), columns.clone()]);
        Ok(self.operator("MatMul", &[a, b], vec![], shape))
    }

    fn softmax(&self, x: &Recorded) -> Result<Recorded> {
        let wide = self.converted(x, Element::F32);
        let axis = vec![("axis", Attribute::Int(-1))];
        let softmax = self.operator("Softmax", &[&wide], axis, x.shape().to_vec());
        Ok(self.converted(&softmax, x.element()))
    }

    fn transpose(&self, x: &Recorded) -> Result<Recorded> {
        let rank = x.shape().len();
        if rank < 2 {
            return Err(wrong("transpose", x, "two dimensions"));
        }
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(rank - 1, rank - 2);
        Ok(self.permute(x, &order))
    }

    fn concat(&self, parts: &[&Recorded], axis: usize) -> Result<Recorded> {
        let unfit = || mismatch("concat", parts);
        let (first, rest) = parts.split_first().ok_or_else(unfit)?;
        let mut shape = first.shape().to_vec();
        for part in rest {
            if part.shape().len() != shape.len() || part.element() != first.element() {
                return Err(unfit());
            }
            for (index, (size, other)) in shape.iter_mut().zip(part.shape()).enumerate() {
                *size =
                    if index == axis { size.plus(other) } else { size.merged(other).ok_or_else(unfit)? };
            }
        }
        if axis >= shape.len() {
            return Err(wrong("concat", first, &format!("a dimension {axis}")));
        }
        Ok(self.joined(parts, shape, axis))
    }

    fn narrow(&self, x: &Recorded, axis: usize, start: usize, length: usize) -> Result<Recorded> {
        let mut shape = x.shape().to_vec();
        match shape.get_mut(axis) {
            Some(Size::Known(size)) if start + length > *size => {
                return Err(wrong("narrow", x, &format!("{} entries of dimension {axis}", start + length)));
            }
            Some(size) => *size = Size::Known(length),
            None => return Err(wrong("narrow", x, &format!("a dimension {axis}"))),
        }
        let bounds = [start, start + length, axis].map(|value| self.integers(&[value as i64]));
        let [starts, ends, axes] = &bounds;
        Ok(self.operator("Slice", &[x, starts, ends, axes], vec![], shape))
    }

    fn unsqueeze(&self, x: &Recorded, axis: usize) -> Result<Recorded> {
        let mut shape = x.shape().to_vec();
        if axis > shape.len() {
            return Err(wrong("unsqueeze", x, &format!("{axis} dimensions")));
        }
        shape.insert(axis, Size::Known(1));
        Ok(self.operator("Unsqueeze", &[x, &self.integers(&[axis as i64])], vec![], shape))
    }

    fn broadcast_batch_like(&self, x: &Recorded, like: &Recorded) -> Result<Recorded> {
        let (Some(one), Some(batch)) = (x.shape().first(), like.shape().first()) else {
            return Err(mismatch("broadcast_batch_like", &[x, like]));
        };
        one.merged(&Size::Known(1)).ok_or_else(|| mismatch("broadcast_batch_like", &[x, like]))?;
        let mut shape = x.shape().to_vec();
        shape[0] = batch.clone();
        let rest = self.integers(&vec![1; shape.len() - 1]);
        let target = [&self.sizes(like, 0..1), &rest];
        let target = self.joined(&target, vec![Size::Known(shape.len())], 0);
        Ok(self.operator("Expand", &[x, &target], vec![], shape))
    }

    fn split_heads(&self, x: &Recorded, heads: usize) -> Result<Recorded> {
        self.heads(x, heads)
    }

    fn merge_heads(&self, x: &Recorded) -> Result<Recorded> {
        if let Some(whole) = x.whole() {
            return Ok(whole.clone());
        }
        let [batch, heads, length, head_dim] = dims("merge_heads", x)?;
        let size = heads.times(head_dim);
        let shape = vec![batch.clone(), length.clone(), size.clone()];
        Ok(self.reshape(&self.permute(x, &[0, 2, 1, 3]), &[0, 0, size.or_minus_one()], shape))
    }

    fn flatten_spatial(&self, x: &Recorded) -> Result<Recorded> {
        let [batch, channels, height, width] = dims("flatten_spatial", x)?;
        let shape = vec![batch.clone(), channels.clone(), height.times(width)];
        Ok(self.permute(&self.reshape(x, &[0, 0, -1], shape), &[0, 2, 1]))
    }

    fn unflatten_spatial(&self, x: &Recorded, like: &Recorded) -> Result<Recorded> {
        let [batch, cells, channels] = dims("unflatten_spatial", x)?;
        let [_, _, height, width] = dims("unflatten_spatial", like)?;
        height.times(width).merged(cells).ok_or_else(|| mismatch("unflatten_spatial", &[x, like]))?;
        let shape = vec![batch.clone(), channels.clone(), height.clone(), width.clone()];
        let planes = self.permute(x, &[0, 2, 1]);
        let keep = self.integers(&[0, 0]);
        let target = self.joined(&[&keep, &self.sizes(like, 2..4)], vec![Size::Known(4)], 0);
        Ok(self.operator("Reshape", &[&planes, &target], vec![], shape))
    }

    fn unflatten_square(&self, x: &Recorded, side: usize) -> Result<Recorded> {
        let [batch, cells, channels] = dims("unflatten_square", x)?;
        cells
            .merged(&Size::Known(side * side))
            .ok_or_else(|| wrong("unflatten_square", x, &format!("[batch, {side} · {side}, channels]")))?;
        let shape = vec![batch.clone(), channels.clone(), Size::Known(side), Size::Known(side)];
        Ok(self.reshape(&self.permute(x, &[0, 2, 1]), &[0, 0, side as i64, side as i64], shape))
    }

    fn pixel_shuffle(&self, x: &Recorded, factor: usize) -> Result<Recorded> {
        let [batch, channels, height, width] = dims("pixel_shuffle", x)?;
        let squares = factor * factor;
        let channels = match channels {
            Size::Known(channels) if factor > 0 && channels.is_multiple_of(squares) => channels / squares,
            other => {
                let message = format!("{other} channels do not divide into squares of {factor}x{factor}");
                return Err(EngineError::new("pixel_shuffle", message));
            }
        };
        let times = Size::Known(factor);
        let shape = vec![batch.clone(), Size::Known(channels), height.times(&times), width.times(&times)];
        let attributes = vec![("blocksize", Attribute::Int(factor as i64)), ("mode", Attribute::Text("CRD"))];
        Ok(self.operator("DepthToSpace", &[x], attributes, shape))
    }

    fn upsample_nearest_2x(&self, x: &Recorded) -> Result<Recorded> {
        let [batch, channels, height, width] = dims("upsample_nearest_2x", x)?;
        let two = Size::Known(2);
        let shape = vec![batch.clone(), channels.clone(), height.times(&two), width.times(&two)];
        let scales = HostTensor::from(Array1::from(vec![1.0f32, 1.0, 2.0, 2.0]));
        let scales = Recorded::new(Origin::Constant(scales), Element::F32, vec![Size::Known(4)]);
        let inputs = vec![Some(x.clone()), None, Some(scales)];
        let operator = Operator { name: "Resize", domain: ONNX, inputs, attributes: nearest() };
        Ok(Recorded::new(Origin::Operator(operator), x.element(), shape))
    }

    fn upsample_nearest_like(&self, x: &Recorded, like: &Recorded) -> Result<Recorded> {
        let shape = spatial_like("upsample_nearest_like", x, like)?;
        Ok(self.resize(x, &self.resized(x, like), nearest(), shape))
    }

    fn resize_bilinear_like(&self, x: &Recorded, like: &Recorded) -> Result<Recorded> {
        let shape = spatial_like("resize_bilinear_like", x, like)?;
        let attributes = vec![
            ("mode", Attribute::Text("linear")),
            ("coordinate_transformation_mode", Attribute::Text("half_pixel")),
        ];
        Ok(self.resize(x, &self.resized(x, like), attributes, shape))
    }

    fn silu(&self, x: &Recorded) -> Result<Recorded> {
        if self.fused() { Ok(self.swish(x, 1.0)) } else { self.mul(x, &self.sigmoid(x)?) }
    }

    fn quick_gelu(&self, x: &Recorded) -> Result<Recorded> {
        if self.fused() {
            return Ok(self.swish(x, 1.702));
        }
        self.mul(x, &self.sigmoid(&self.scale(x, 1.702)?)?)
    }

    fn attention(
        &self,
        q: &Recorded,
        k: &Recorded,
        v: &Recorded,
        scale: f64,
        mask: Option<&Recorded>,
    ) -> Result<Recorded> {
        for tensor in [q, k, v] {
            let [_, _, _, _] = dims("attention", tensor)?;
        }
        if self.fused()
            && let Some(attended) = self.fused_attention(q, k, v, scale, mask)?
        {
            return Ok(attended);
        }
        let mut scores = self.matmul(&self.scale(q, scale)?, &self.transpose(k)?)?;
        if let Some(mask) = mask {
            scores = self.add(&scores, mask)?;
        }
        self.matmul(&self.softmax(&scores)?, v)
    }
}

impl Recorder {
    fn check_width(&self, operation: &'static str, x: &Recorded, weight: &Recorded) -> Result<()> {
        let fits = match (x.shape().last(), weight.shape()) {
            (Some(width), [size]) => width.merged(size).is_some(),
            _ => false,
        };
        if fits { Ok(()) } else { Err(mismatch(operation, &[x, weight])) }
    }
}

/// Parameters of a file, recorded under their own names.
pub(crate) struct RecordedWeights<'a> {
    pub(crate) recorder: Recorder,
    pub(crate) file: &'a WeightFile,
}

impl WeightSource<Recorded> for RecordedWeights<'_> {
    fn parameter(&self, name: &str, shape: &[usize]) -> weights::Result<Recorded> {
        let view = self.file.view(name, shape)?;
        let element = self.recorder.precision.into();
        let shape = shape.iter().map(|&size| Size::Known(size)).collect();
        Ok(Recorded::new(Origin::Parameter(name.to_owned(), view), element, shape))
    }

    fn host(&self, name: &str, shape: &[usize]) -> weights::Result<ArrayD<f32>> {
        let data = self.file.view(name, shape)?.to_f32();
        ArrayD::from_shape_vec(IxDyn(shape), data).map_err(|e| weights::WeightsError::Config(e.to_string()))
    }

    fn constant(&self, name: &str, value: HostTensor) -> weights::Result<Recorded> {
        self.recorder
            .upload(&value)
            .and_then(|tensor| self.recorder.cast(&tensor))
            .map_err(|source| weights::WeightsError::Engine { name: name.to_owned(), source })
    }
}

/// PyTorch's `interpolate(mode="nearest")`.
fn nearest() -> Vec<(&'static str, Attribute)> {
    vec![
        ("mode", Attribute::Text("nearest")),
        ("coordinate_transformation_mode", Attribute::Text("asymmetric")),
        ("nearest_mode", Attribute::Text("floor")),
    ]
}

fn spatial_like(operation: &'static str, x: &Recorded, like: &Recorded) -> Result<Vec<Size>> {
    let [batch, channels, _, _] = dims(operation, x)?;
    let [_, _, height, width] = dims(operation, like)?;
    Ok([batch, channels, height, width].map(Size::clone).to_vec())
}

fn dims<'a, const N: usize>(operation: &'static str, x: &'a Recorded) -> Result<[&'a Size; N]> {
    let sizes: Vec<&Size> = x.shape().iter().collect();
    sizes.try_into().map_err(|_| wrong(operation, x, &format!("{N} dimensions")))
}

fn wrong(operation: &'static str, x: &Recorded, needed: &str) -> EngineError {
    EngineError::new(operation, format!("{needed} is needed, not {}", shown(x.shape())))
}

fn mismatch(operation: &'static str, tensors: &[&Recorded]) -> EngineError {
    let described: Vec<String> =
        tensors.iter().map(|x| format!("{:?} {}", x.element(), shown(x.shape()))).collect();
    EngineError::new(operation, format!("{} do not fit together", described.join(" and ")))
}
