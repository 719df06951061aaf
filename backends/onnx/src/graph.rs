//! What a function's outputs are computed from, in the order in which it was recorded.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use smartedit_core::engine::{EngineError, Result};
use smartedit_core::stages::{Network, Signature};

use crate::recorder::{ONNX, Operator, Origin, Recorded, Recorder};

/// A recorded function.
pub(crate) struct Graph {
    pub(crate) inputs: Vec<Recorded>,
    /// Parameters and constants.
    pub(crate) initializers: Vec<Recorded>,
    /// Outputs of operators, each after those it needs.
    pub(crate) nodes: Vec<Recorded>,
    pub(crate) outputs: Vec<Recorded>,
    names: HashMap<u64, String>,
}

impl Graph {
    /// Records a function of a network.
    pub(crate) fn record(
        recorder: &Recorder,
        network: &Network<Recorded>,
        signature: &Signature,
    ) -> Result<Self> {
        let inputs: Vec<Recorded> = signature.inputs.iter().map(|port| recorder.port(port)).collect();
        let given: Vec<Option<&Recorded>> = inputs.iter().map(Some).collect();
        let outputs = network.call(recorder, signature.function, &given)?;
        if outputs.len() != signature.outputs.len() {
            let message = format!("gave {} outputs of {}", outputs.len(), signature.outputs.len());
            return Err(EngineError::new(signature.function.name(), message));
        }
        let names = signature.outputs.iter().map(ToString::to_string);
        Ok(Self::of(inputs, names.zip(outputs)))
    }

    /// The graph of these outputs.
    pub(crate) fn of(inputs: Vec<Recorded>, outputs: impl IntoIterator<Item = (String, Recorded)>) -> Self {
        let mut names = HashMap::new();
        let outputs: Vec<Recorded> = outputs
            .into_iter()
            .map(|(name, tensor)| {
                let taken = names.contains_key(&tensor.id());
                let tensor = match tensor.origin() {
                    Origin::Operator(_) if !taken => tensor,
                    _ => identity(&tensor),
                };
                names.insert(tensor.id(), name);
                tensor
            })
            .collect();
        let needed = needed_for(&outputs);
        let mut graph = Self { inputs, initializers: Vec::new(), nodes: Vec::new(), outputs, names };
        let mut used = BTreeSet::new();
        for tensor in needed.into_values() {
            let id = tensor.id();
            let name = match tensor.origin() {
                Origin::Input(name) => name.clone(),
                Origin::Parameter(name, _) if !name.is_empty() => name.clone(),
                Origin::Parameter(..) => format!("parameter_{id}"),
                Origin::Constant(_) => format!("constant_{id}"),
                Origin::Operator(operator) => format!("{}_{id}", operator.name),
            };
            let name = if used.insert(name.clone()) { name } else { format!("{name}_{id}") };
            graph.names.entry(id).or_insert(name);
            match tensor.origin() {
                Origin::Input(_) => {}
                Origin::Parameter(..) | Origin::Constant(_) => graph.initializers.push(tensor),
                Origin::Operator(_) => graph.nodes.push(tensor),
            }
        }
        graph
    }

    /// The name of a tensor in the graph; empty if it is none of its tensors.
    pub(crate) fn name_of<'a>(&'a self, tensor: &'a Recorded) -> &'a str {
        match tensor.origin() {
            Origin::Input(name) => name,
            _ => self.names.get(&tensor.id()).map_or("", String::as_str),
        }
    }

    /// The operators with the names of their inputs, empty for one that is left out.
    pub(crate) fn operators(&self) -> impl Iterator<Item = (&Recorded, &Operator, Vec<&str>)> {
        self.nodes.iter().filter_map(|tensor| match tensor.origin() {
            Origin::Operator(operator) => {
                let inputs = operator.inputs.iter();
                let inputs = inputs.map(|input| input.as_ref().map_or("", |input| self.name_of(input)));
                Some((tensor, operator, inputs.collect()))
            }
            _ => None,
        })
    }
}

/// Everything that the outputs are computed from, by number: in the order in which it was recorded.
fn needed_for(outputs: &[Recorded]) -> BTreeMap<u64, Recorded> {
    let mut needed = BTreeMap::new();
    let mut open: Vec<Recorded> = outputs.to_vec();
    while let Some(tensor) = open.pop() {
        if needed.contains_key(&tensor.id()) {
            continue;
        }
        if let Origin::Operator(operator) = tensor.origin() {
            open.extend(operator.inputs.iter().flatten().cloned());
        }
        needed.insert(tensor.id(), tensor);
    }
    needed
}

fn identity(x: &Recorded) -> Recorded {
    let inputs = vec![Some(x.clone())];
    let operator = Operator { name: "Identity", domain: ONNX, inputs, attributes: Vec::new() };
    Recorded::new(Origin::Operator(operator), x.element(), x.shape().to_vec())
}
