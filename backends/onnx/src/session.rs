//! Recorded graphs as sessions of ONNX Runtime.

use std::sync::{Mutex, PoisonError};

use ort::editor::{self, Model, Node, ONNX_DOMAIN, Opset};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::operator;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Outlet, Shape, SymbolicDimensions, ValueType};
use ort::{Error, Result};
use smartedit_core::stage::{GraphOptimization, StageOptions};
use smartedit_core::weights::WeightView;

use crate::graph::Graph;
use crate::library::Runtime;
use crate::provider::Chosen;
use crate::recorder::{Attribute, MICROSOFT, Origin, Recorded};
use crate::value;

/// The version of ONNX's operators that are recorded.
pub(crate) const OPSET: u32 = 21;

/// How sessions are made.
pub(crate) struct Sessions<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) provider: &'a Chosen,
    pub(crate) options: &'a StageOptions,
}

impl Sessions<'_> {
    /// A builder with the stage's options.
    pub(crate) fn builder(&self) -> Result<SessionBuilder> {
        let level = match self.options.graph_optimization {
            GraphOptimization::Disabled => GraphOptimizationLevel::Disable,
            GraphOptimization::Basic => GraphOptimizationLevel::Level1,
            GraphOptimization::Extended => GraphOptimizationLevel::Level2,
            GraphOptimization::All => GraphOptimizationLevel::All,
        };
        let mut builder = SessionBuilder::new(self.runtime.environment())?
            .with_optimization_level(level)?
            .with_config_entry("session.force_spinning_stop", "1")?;
        if let Some(threads) = self.options.threads {
            builder = builder.with_intra_threads(threads.get())?;
        }
        self.provider.register(builder).map_err(|refusal| Error::new(refusal.to_string()))
    }

    /// A session of a recorded graph.
    pub(crate) fn of_graph(&self, graph: &Graph) -> Result<Runnable> {
        let mut recorded = editor::Graph::new()?;
        recorded.set_inputs(graph.inputs.iter().map(|input| outlet(graph.name_of(input), input)))?;
        recorded.set_outputs(graph.outputs.iter().map(|output| outlet(graph.name_of(output), output)))?;
        let mut views = Vec::new();
        for tensor in &graph.initializers {
            let (value, shared) = match tensor.origin() {
                Origin::Parameter(_, view) => {
                    views.push(view.clone());
                    value::parameter(view, tensor.element())?
                }
                Origin::Constant(constant) => (value::constant(constant, tensor.element())?, false),
                _ => continue,
            };
            recorded.add_initializer(graph.name_of(tensor), value, shared)?;
        }
        for (tensor, operator, inputs) in graph.operators() {
            let attributes = operator
                .attributes
                .iter()
                .map(|(name, value)| attribute(name, value))
                .collect::<Result<Vec<_>>>()?;
            let name = graph.name_of(tensor);
            let node = Node::new(operator.name, operator.domain, name, inputs, [name], attributes)?;
            recorded.add_node(node)?;
        }
        let mut model = Model::new([Opset::new(ONNX_DOMAIN, OPSET)?, Opset::new(MICROSOFT, 1)?])?;
        model.set_graph(recorded)?;
        Runnable::new(model.into_session(&self.builder()?)?, views, self.provider)
    }
}

/// A session that several threads may call, one after the other.
pub(crate) struct Runnable {
    session: Mutex<Session>,
    input_names: Vec<String>,
    /// Where outputs stay, if that is not host memory.
    card: Option<MemoryInfo<'static>>,
    /// Weights that the session refers to; dropped after it.
    _views: Vec<WeightView>,
}

impl Runnable {
    pub(crate) fn new(session: Session, views: Vec<WeightView>, provider: &Chosen) -> Result<Self> {
        let input_names = session.inputs().iter().map(|input| input.name().to_owned()).collect();
        let card = provider.card.map(|card| {
            MemoryInfo::new(AllocationDevice::CUDA, card, AllocatorType::Device, MemoryType::Default)
        });
        Ok(Self { session: Mutex::new(session), input_names, card: card.transpose()?, _views: views })
    }

    /// Runs the session on inputs in the graph's order; outputs stay on the device.
    pub(crate) fn run(&self, inputs: &[&DynValue]) -> Result<Vec<DynValue>> {
        let names = self.input_names.iter().map(String::as_str);
        self.run_named(&names.zip(inputs.iter().copied()).collect::<Vec<_>>())
    }

    /// Runs the session on named inputs; outputs, in the graph's order, stay on the device.
    pub(crate) fn run_named(&self, inputs: &[(&str, &DynValue)]) -> Result<Vec<DynValue>> {
        // A run that panicked left the session as it was: ONNX Runtime keeps no state between runs.
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(card) = &self.card else {
            let inputs: Vec<(&str, SessionInputValue<'_>)> =
                inputs.iter().map(|&(name, value)| (name, value.into())).collect();
            return Ok(session.run(inputs)?.into_iter().map(|(_, value)| value).collect());
        };
        let mut binding = session.create_binding()?;
        for &(name, value) in inputs {
            binding.bind_input(name, value)?;
        }
        let outputs: Vec<String> = session.outputs().iter().map(|output| output.name().to_owned()).collect();
        for name in outputs {
            binding.bind_output_to_device(name, card)?;
        }
        Ok(session.run_binding(&binding)?.into_iter().map(|(_, value)| value).collect())
    }
}

fn outlet(name: &str, tensor: &Recorded) -> Outlet {
    let shape = tensor.shape();
    let dtype = ValueType::Tensor {
        ty: tensor.element().into(),
        shape: Shape::new(shape.iter().map(|size| size.or_minus_one())),
        dimension_symbols: SymbolicDimensions::new(shape.iter().map(|size| size.symbol())),
    };
    Outlet::new(name, dtype)
}

fn attribute(name: &str, value: &Attribute) -> Result<operator::Attribute> {
    match value {
        Attribute::Int(value) => operator::Attribute::new(name, *value),
        Attribute::Float(value) => operator::Attribute::new(name, *value),
        Attribute::Text(value) => operator::Attribute::new(name, (*value).to_owned()),
        Attribute::Ints(values) => operator::Attribute::new(name, values.clone()),
    }
}
