//! A user's `.onnx` file in the place of a network.

use ort::session::Session;
use ort::value::{DynValue, TensorElementType, ValueType};
use smartedit_core::engine::{EngineError, Result};
use smartedit_core::model::NetworkConfig;
use smartedit_core::stage::Program;
use smartedit_core::stages::program::{Input, Runner};
use smartedit_core::stages::{Dim, Elements, stateless};
use smartedit_core::tensor::Tensors;

use crate::recorder::Element;
use crate::session::{Runnable, Sessions};
use crate::value;

/// A graph that somebody else made.
pub(crate) struct OnnxFile {
    runnable: Runnable,
    inputs: Vec<Input>,
    elements: Vec<Element>,
    outputs: Vec<String>,
    batches: bool,
}

impl OnnxFile {
    /// Loads a file in the place of the network of `config`.
    ///
    /// # Errors
    ///
    /// Why the file cannot compute the stage.
    pub(crate) fn load(
        program: &Program,
        config: &NetworkConfig,
        sessions: &Sessions<'_>,
    ) -> std::result::Result<Self, String> {
        let session = sessions
            .builder()
            .and_then(|mut builder| builder.commit_from_file(&program.file))
            .map_err(|e| format!("ONNX Runtime does not take it: {e}"))?;
        let declared = declared(&session);
        check_inputs(program, config, &declared)?;
        let batches = declared.iter().all(Declared::is_open);
        let mut inputs = Vec::with_capacity(declared.len());
        let mut elements = Vec::with_capacity(declared.len());
        for Declared { name, dtype, required } in declared {
            elements.push(element(&dtype).map_err(|what| format!("its input `{name}` {what}"))?);
            inputs.push(Input { name, required });
        }
        let mut outputs = Vec::with_capacity(session.outputs().len());
        for output in session.outputs() {
            element(output.dtype()).map_err(|what| format!("its output `{}` {what}", output.name()))?;
            outputs.push(output.name().to_owned());
        }
        let runnable = Runnable::new(session, Vec::new(), sessions.provider).map_err(|e| e.to_string())?;
        Ok(Self { runnable, inputs, elements, outputs, batches })
    }

    fn run(&self, inputs: &Tensors) -> ort::Result<Tensors> {
        let mut given: Vec<(&str, DynValue)> = Vec::with_capacity(self.inputs.len());
        for (input, element) in self.inputs.iter().zip(&self.elements) {
            if let Some(tensor) = inputs.get(&input.name) {
                given.push((&input.name, value::constant(tensor, *element)?.into_dyn()));
            }
        }
        let given: Vec<(&str, &DynValue)> = given.iter().map(|(name, value)| (*name, value)).collect();
        let mut outputs = Tensors::new();
        for (name, value) in self.outputs.iter().zip(self.runnable.run_named(&given)?) {
            outputs.insert(name, value::to_host(&value)?);
        }
        Ok(outputs)
    }
}

impl Runner for OnnxFile {
    fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    fn outputs(&self) -> Option<&[String]> {
        Some(&self.outputs)
    }

    fn batches(&self) -> bool {
        self.batches
    }

    fn run(&self, inputs: &Tensors) -> Result<Tensors> {
        self.run(inputs).map_err(|e| EngineError::new("program", e))
    }
}

/// An input as the file declares it.
struct Declared {
    name: String,
    dtype: ValueType,
    required: bool,
}

impl Declared {
    /// Whether the file leaves the size of the first dimension open.
    fn is_open(&self) -> bool {
        // An open size is negative.
        self.dtype.tensor_shape().and_then(|shape| shape.first()).is_some_and(|&size| size < 0)
    }
}

/// Inputs, and initializers that may be given as inputs.
fn declared(session: &Session) -> Vec<Declared> {
    let inputs = session.inputs().iter().map(|input| Declared {
        name: input.name().to_owned(),
        dtype: input.dtype().clone(),
        required: true,
    });
    let initializers = session.overridable_initializers().into_iter().map(|initializer| Declared {
        name: initializer.name().to_owned(),
        dtype: initializer.dtype().clone(),
        required: false,
    });
    inputs.chain(initializers).collect()
}

fn element(dtype: &ValueType) -> std::result::Result<Element, String> {
    match dtype.tensor_type() {
        Some(TensorElementType::Float32) => Ok(Element::F32),
        Some(TensorElementType::Float16) => Ok(Element::F16),
        Some(TensorElementType::Bfloat16) => Ok(Element::Bf16),
        Some(TensorElementType::Int64) => Ok(Element::I64),
        Some(other) => Err(format!("has elements of type {other}; f32, f16, bf16 or i64 are needed")),
        None => Err(format!("is {dtype}; a tensor is needed")),
    }
}

/// Checks types and sizes of the inputs that stand for the stage's. Whether all are there is checked by whoever binds
/// the names.
fn check_inputs(
    program: &Program,
    config: &NetworkConfig,
    declared: &[Declared],
) -> std::result::Result<(), String> {
    for (base, integers, dims) in expected(config) {
        let name = program.inputs.get(base).map_or(base, String::as_str);
        let Some(input) = declared.iter().find(|input| input.name == name) else { continue };
        let is = match element(&input.dtype) {
            Ok(element) => (element == Element::I64) == integers,
            Err(_) => false,
        };
        let shape = input.dtype.tensor_shape().map(|shape| shape.to_vec()).unwrap_or_default();
        let fits = shape.len() == dims.len()
            && shape.iter().zip(&dims).all(|(&size, dim)| {
                // A size that the file leaves open is negative.
                usize::try_from(size).map_or(true, |size| dim.admits(size))
            });
        if !is || !fits {
            let sizes: Vec<String> = dims.iter().map(ToString::to_string).collect();
            let kind = if integers { "i64" } else { "floats" };
            return Err(format!(
                "its input `{name}` is {}; {kind} [{}] are needed",
                input.dtype,
                sizes.join(", ")
            ));
        }
    }
    Ok(())
}

/// Name, whether it holds integers, and dimensions of each of the stage's inputs.
fn expected(config: &NetworkConfig) -> Vec<(&'static str, bool, Vec<Dim>)> {
    if let NetworkConfig::LanguageModel(llama) = config {
        let features = vec![Dim::Is(1), Dim::Any("patches"), Dim::Is(llama.vision_size)];
        return vec![
            ("input_ids", true, vec![Dim::Is(1), Dim::Any("tokens")]),
            ("image_features", false, features),
            ("image_position", true, vec![Dim::Is(1)]),
        ];
    }
    let ports = stateless(config, true).into_iter().flat_map(|signature| signature.inputs);
    ports.map(|port| (port.name.base, matches!(port.elements, Elements::Ids { .. }), port.shape)).collect()
}
