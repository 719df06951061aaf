//! Parts of values: a graph of one operator, with the part as an input.

use ndarray::arr1;
use ort::value::{DynValue, ValueType};
use smartedit_core::engine::{EngineError, Result};
use smartedit_core::tensor::HostTensor;

use crate::graph::Graph;
use crate::recorder::{Element, ONNX, Operator, Origin, Recorded, Size};
use crate::session::{Runnable, Sessions};
use crate::value;

/// Cuts parts out of values of three and four dimensions.
pub(crate) struct Narrow {
    states: Runnable,
    keys_and_values: Runnable,
}

impl Narrow {
    pub(crate) fn new(sessions: &Sessions<'_>) -> Result<Self> {
        let element = sessions.options.precision.into();
        let of_rank =
            |rank| sessions.of_graph(&slice(rank, element)).map_err(|e| EngineError::new("narrow", e));
        Ok(Self { states: of_rank(3)?, keys_and_values: of_rank(4)? })
    }

    pub(crate) fn run(&self, x: &DynValue, axis: usize, start: usize, length: usize) -> Result<DynValue> {
        let failed = |message: String| EngineError::new("narrow", message);
        let shape = match x.dtype() {
            ValueType::Tensor { shape, .. } => shape,
            other => return Err(failed(format!("{other} is no tensor"))),
        };
        let runnable = match shape.len() {
            3 => &self.states,
            4 => &self.keys_and_values,
            rank => return Err(failed(format!("{rank} dimensions are not supported"))),
        };
        let size = shape.get(axis).and_then(|&size| usize::try_from(size).ok()).unwrap_or(0);
        if start + length > size {
            return Err(failed(format!("{} entries of dimension {axis} of {shape:?}", start + length)));
        }
        let bounds = [start, start + length, axis].map(|bound| {
            value::from_host(&HostTensor::from(arr1(&[bound as i64]))).map_err(|e| failed(e.to_string()))
        });
        let [starts, ends, axes] = bounds;
        let inputs = [x, &starts?, &ends?, &axes?];
        let mut outputs = runnable.run(&inputs).map_err(|e| failed(e.to_string()))?;
        outputs.pop().ok_or_else(|| failed("gave no output".to_owned()))
    }
}

fn slice(rank: usize, element: Element) -> Graph {
    let input = |name: &str, element, shape| Recorded::new(Origin::Input(name.to_owned()), element, shape);
    let sizes = |prefix: &str| (0..rank).map(|axis| Size::Named(format!("{prefix}{axis}"))).collect();
    let mut inputs = vec![input("x", element, sizes("size"))];
    inputs.extend(["starts", "ends", "axes"].map(|name| input(name, Element::I64, vec![Size::Known(1)])));
    let operator = Operator {
        name: "Slice",
        domain: ONNX,
        inputs: inputs.iter().cloned().map(Some).collect(),
        attributes: Vec::new(),
    };
    let part = Recorded::new(Origin::Operator(operator), element, sizes("part"));
    Graph::of(inputs, [("part".to_owned(), part)])
}
