//! Operations one by one, for tests and for comparison: each is recorded and run by itself.

use smartedit_core::engine::{Engine, EngineError, Padding, Precision, Result};
use smartedit_core::stage::StageOptions;
use smartedit_core::tensor::HostTensor;
use smartedit_core::weights::WeightView;

use crate::graph::Graph;
use crate::library::{LibraryError, Runtime};
use crate::provider::Chosen;
use crate::recorder::{Element, Operators, Recorded, Recorder, Size};
use crate::session::Sessions;
use crate::value;

/// An engine in `f32` on ONNX Runtime's CPU provider that runs every operation when it is called.
///
/// Every call makes a session, so this is slow; stages are recorded whole by
/// [`OnnxBackend`](crate::OnnxBackend). Each operation is recorded with the sizes that differ from run to run
/// unknown, as in a recorded network.
pub struct ImmediateEngine {
    recorder: Recorder,
    runtime: Runtime,
    provider: Chosen,
    options: StageOptions,
}

/// A tensor in host memory.
#[derive(Clone)]
pub struct ImmediateTensor(HostTensor);

impl ImmediateEngine {
    /// The engine on the library that is found, with standard operators or fused ones.
    ///
    /// # Errors
    ///
    /// There is no library that can be used.
    pub fn new(operators: Operators) -> std::result::Result<Self, LibraryError> {
        let (runtime, options) = (Runtime::load(None)?, StageOptions::default());
        let provider = Chosen::wanted(&options)
            .and_then(|wanted| Chosen::first(&runtime, wanted, options.precision))
            .map_err(|refusal| LibraryError::NotFound(refusal.to_string()))?;
        Ok(Self { recorder: Recorder::new(Precision::F32, operators), runtime, provider, options })
    }

    fn run(
        &self,
        operation: &'static str,
        inputs: &[&ImmediateTensor],
        record: impl Fn(&Recorder, &[Recorded]) -> Result<Recorded>,
    ) -> Result<ImmediateTensor> {
        self.run_varying(operation, &[0, 2, 3], inputs, record)
    }

    /// `axes` are the dimensions of tensors with four that differ from run to run in a network.
    fn run_varying(
        &self,
        operation: &'static str,
        axes: &[usize],
        inputs: &[&ImmediateTensor],
        record: impl Fn(&Recorder, &[Recorded]) -> Result<Recorded>,
    ) -> Result<ImmediateTensor> {
        let known = |_: usize, _: usize, size: usize| Size::Known(size);
        record(&self.recorder, &self.inputs(inputs, known))?;
        let varying = |input: usize, axis: usize, size: usize| match (inputs[input].rank(), axis) {
            (4, axis) if axes.contains(&axis) => Size::Named(format!("size_{input}_{axis}")),
            (3, 0 | 1) => Size::Named(format!("size_{input}_{axis}")),
            _ => Size::Known(size),
        };
        let recorded = self.inputs(inputs, varying);
        let output = record(&self.recorder, &recorded)?;
        let graph = Graph::of(recorded, [("output".to_owned(), output)]);
        let sessions = Sessions { runtime: &self.runtime, provider: &self.provider, options: &self.options };
        let run = || {
            let values: Vec<_> =
                inputs.iter().map(|input| value::from_host(&input.0)).collect::<ort::Result<_>>()?;
            let outputs = sessions.of_graph(&graph)?.run(&values.iter().collect::<Vec<_>>())?;
            outputs.iter().map(value::to_host).collect::<ort::Result<Vec<_>>>()
        };
        let output = run().map_err(|e| EngineError::new(operation, e))?.pop();
        output.map(ImmediateTensor).ok_or_else(|| EngineError::new(operation, "gave no output"))
    }

    fn inputs(
        &self,
        tensors: &[&ImmediateTensor],
        size: impl Fn(usize, usize, usize) -> Size,
    ) -> Vec<Recorded> {
        let input = |(index, tensor): (usize, &&ImmediateTensor)| {
            let element = match tensor.0 {
                HostTensor::F32(_) => Element::F32,
                HostTensor::I64(_) => Element::I64,
            };
            let shape = tensor.0.shape().iter().enumerate();
            let shape = shape.map(|(axis, &known)| size(index, axis, known)).collect();
            self.recorder.input(&format!("input_{index}"), element, shape)
        };
        tensors.iter().enumerate().map(input).collect()
    }
}

impl ImmediateTensor {
    fn rank(&self) -> usize {
        self.0.shape().len()
    }
}

/// Operations on one, two or three tensors and plain arguments.
macro_rules! operations {
    ($($name:ident($($tensor:ident),+ $(; $($argument:ident: $kind:ty),+)?);)+) => {
        $(fn $name(
            &self,
            $($tensor: &ImmediateTensor,)+
            $($($argument: $kind),+)?
        ) -> Result<ImmediateTensor> {
            self.run(stringify!($name), &[$($tensor),+], |recorder, inputs| match inputs {
                [$($tensor),+] => recorder.$name($($tensor,)+ $($($argument),+)?),
                _ => Err(EngineError::new(stringify!($name), "lacks an input")),
            })
        })+
    };
}

impl Engine for ImmediateEngine {
    type Tensor = ImmediateTensor;

    fn parameter(&self, view: WeightView) -> Result<ImmediateTensor> {
        HostTensor::from_f32(view.shape(), view.to_f32())
            .map(ImmediateTensor)
            .ok_or_else(|| EngineError::new("parameter", "the elements do not fill the shape"))
    }

    fn upload(&self, tensor: &HostTensor) -> Result<ImmediateTensor> {
        Ok(ImmediateTensor(tensor.clone()))
    }

    fn cast(&self, x: &ImmediateTensor) -> Result<ImmediateTensor> {
        Ok(x.clone())
    }

    fn download(&self, x: &ImmediateTensor) -> Result<HostTensor> {
        Ok(x.0.clone())
    }

    fn linear(
        &self,
        x: &ImmediateTensor,
        weight: &ImmediateTensor,
        bias: Option<&ImmediateTensor>,
    ) -> Result<ImmediateTensor> {
        let inputs: Vec<_> = [x, weight].into_iter().chain(bias).collect();
        self.run("linear", &inputs, |recorder, inputs| recorder.linear(&inputs[0], &inputs[1], inputs.get(2)))
    }

    fn conv2d(
        &self,
        x: &ImmediateTensor,
        weight: &ImmediateTensor,
        bias: Option<&ImmediateTensor>,
        stride: usize,
        padding: Padding,
    ) -> Result<ImmediateTensor> {
        let HostTensor::F32(kernel) = &weight.0 else {
            return Err(EngineError::new("conv2d", "a kernel of floats is needed"));
        };
        let inputs: Vec<_> = [x].into_iter().chain(bias).collect();
        self.run("conv2d", &inputs, |recorder, inputs| {
            let kernel = recorder.upload(&HostTensor::F32(kernel.clone()))?;
            recorder.conv2d(&inputs[0], &kernel, inputs.get(1), stride, padding)
        })
    }

    fn concat(&self, parts: &[&ImmediateTensor], axis: usize) -> Result<ImmediateTensor> {
        self.run("concat", parts, |recorder, parts| recorder.concat(&parts.iter().collect::<Vec<_>>(), axis))
    }

    fn attention(
        &self,
        q: &ImmediateTensor,
        k: &ImmediateTensor,
        v: &ImmediateTensor,
        scale: f64,
        mask: Option<&ImmediateTensor>,
    ) -> Result<ImmediateTensor> {
        let inputs: Vec<_> = [q, k, v].into_iter().chain(mask).collect();
        self.run_varying("attention", &[0, 2], &inputs, |recorder, inputs| {
            recorder.attention(&inputs[0], &inputs[1], &inputs[2], scale, inputs.get(3))
        })
    }

    operations! {
        embedding(table, ids);
        layer_norm(x, weight, bias; eps: f64);
        rms_norm(x, weight; eps: f64);
        sigmoid(x);
        relu(x);
        gelu(x);
        sin(x);
        cos(x);
        silu(x);
        quick_gelu(x);
        add(a, b);
        mul(a, b);
        scale(x; factor: f64);
        matmul(a, b);
        softmax(x);
        transpose(x);
        narrow(x; axis: usize, start: usize, length: usize);
        unsqueeze(x; axis: usize);
        broadcast_batch_like(x, like);
        split_heads(x; heads: usize);
        merge_heads(x);
        flatten_spatial(x);
        unflatten_spatial(x, like);
        unflatten_square(x; side: usize);
        pixel_shuffle(x; factor: usize);
        upsample_nearest_2x(x);
        upsample_nearest_like(x, like);
        resize_bilinear_like(x, like);
    }

    fn group_norm(
        &self,
        x: &ImmediateTensor,
        groups: usize,
        weight: &ImmediateTensor,
        bias: &ImmediateTensor,
        eps: f64,
    ) -> Result<ImmediateTensor> {
        self.run("group_norm", &[x, weight, bias], |recorder, inputs| {
            recorder.group_norm(&inputs[0], groups, &inputs[1], &inputs[2], eps)
        })
    }
}
