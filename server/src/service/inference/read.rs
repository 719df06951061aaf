//! A request's tensors, checked against the model that it is for.

mod contents;
mod limits;

use std::collections::BTreeMap;

use bytes::Bytes;
use smartedit_core::stages::Dim;
use smartedit_core::tensor::HostTensor;
use smartedit_proto::inference::ModelInferRequest;
use smartedit_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};

use self::contents::Sent;
use super::catalog::{Contract, Spec};
use crate::config::Limits;
use crate::failure::{Violations, shortened};

/// Inputs, and outputs, of a request that are looked at: more than any model has.
const MAX_TENSORS: usize = 32;

/// The elements of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Numbers.
    Numbers(HostTensor),
    /// Byte strings, in row-major order.
    Strings(Vec<Bytes>),
}

/// The tensors of a request.
pub(super) struct Tensors {
    /// Every input that is given, by name.
    pub(super) inputs: BTreeMap<&'static str, Value>,
    /// The outputs that are wanted, in the order of the answer.
    pub(super) wanted: Vec<&'static str>,
    /// Whether elements are sent as bytes, and the answer's are to be.
    pub(super) raw: bool,
}

impl Tensors {
    /// Reads the tensors of a request for a model and adds what is wrong with them.
    pub(super) fn read(
        contract: &Contract,
        request: &mut ModelInferRequest,
        limits: &Limits,
        violations: &mut Violations,
    ) -> Self {
        let sent = std::mem::take(&mut request.inputs);
        let raw_contents = std::mem::take(&mut request.raw_input_contents);
        let wanted = wanted(contract, &request.outputs, violations);
        let raw = !raw_contents.is_empty();
        let mut inputs =
            Inputs { contract, limits, violations, sizes: BTreeMap::new(), read: BTreeMap::new() };
        if sent.len() > MAX_TENSORS {
            inputs.violations.add("inputs", format!("are {}, at most {MAX_TENSORS} are read", sent.len()));
        } else if raw && raw_contents.len() != sent.len() {
            let message = format!("has {} entries for {} inputs", raw_contents.len(), sent.len());
            inputs.violations.add("raw_input_contents", message);
        } else {
            let mut raw_contents = raw_contents.into_iter();
            for tensor in sent {
                inputs.add(tensor, raw_contents.next());
            }
            inputs.find_missing();
        }
        Self {
            inputs: inputs.read.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
            wanted,
            raw,
        }
    }
}

/// The inputs of a request, as far as they are read.
struct Inputs<'a> {
    contract: &'a Contract,
    limits: &'a Limits,
    violations: &'a mut Violations,
    /// The size of every dimension that has a name.
    sizes: BTreeMap<&'static str, usize>,
    /// Every input that was sent; `None` if it cannot be used.
    read: BTreeMap<&'static str, Option<Value>>,
}

impl Inputs<'_> {
    fn add(&mut self, tensor: InferInputTensor, raw: Option<Bytes>) {
        let contract = self.contract;
        let Some(spec) = contract.inputs.iter().find(|spec| spec.name == tensor.name) else {
            let names = Contract::names(&contract.inputs);
            let message = format!("is no input of model `{}`; there are {names}", contract.name);
            self.violations.add(format!("inputs.{}", shortened(&tensor.name)), message);
            return;
        };
        let value = match self.value(spec, tensor, raw) {
            _ if self.read.contains_key(spec.name) => Err("is given twice".to_owned()),
            value => value,
        };
        let value = value.map_err(|message| self.violations.add(field(spec), message)).ok();
        self.read.insert(spec.name, value);
    }

    fn value(&mut self, spec: &Spec, tensor: InferInputTensor, raw: Option<Bytes>) -> Result<Value, String> {
        if let Some(key) = tensor.parameters.keys().min() {
            return Err(match key.starts_with("shared_memory") {
                true => "is in shared memory, which is not offered".to_owned(),
                false => format!("has the parameter `{}`; an input takes none", shortened(key)),
            });
        }
        let (found, needed) = (&tensor.datatype, spec.datatype.name());
        if found != needed {
            let found = shortened(found);
            return Err(format!("has datatype `{found}`; model `{}` takes {needed}", self.contract.name));
        }
        let shape = self.shape(spec, &tensor.shape)?;
        Sent::new(tensor.contents, raw)?.value(spec.datatype, &shape)
    }

    /// The shape of an input, which must be what the model takes, what other inputs need, and within the limits.
    fn shape(&mut self, spec: &Spec, found: &[i64]) -> Result<Vec<usize>, String> {
        let shape: Option<Vec<usize>> = found.iter().map(|size| usize::try_from(*size).ok()).collect();
        let fits = |shape: &Vec<usize>| {
            shape.len() == spec.shape.len()
                && shape.iter().zip(&spec.shape).all(|(size, dim)| dim.admits(*size))
        };
        let Some(shape) = shape.filter(fits) else {
            let needed: Vec<String> = spec.shape.iter().map(ToString::to_string).collect();
            let found: Vec<_> = found.iter().take(8).collect();
            return Err(format!(
                "has shape {found:?}; model `{}` takes [{}]",
                self.contract.name,
                needed.join(", ")
            ));
        };
        for (&size, dim) in shape.iter().zip(&spec.shape) {
            let (Dim::Any(name) | Dim::MultipleOf(name, _)) = *dim else { continue };
            let first = *self.sizes.entry(name).or_insert(size);
            if first != size {
                return Err(format!("has {name} {size}, where another input has {first}"));
            }
        }
        limits::check(spec, &shape, self.limits)?;
        Ok(shape)
    }

    fn find_missing(&mut self) {
        for spec in self.contract.inputs.iter().filter(|spec| !spec.optional) {
            if !self.read.contains_key(spec.name) {
                self.violations
                    .add(field(spec), format!("is missing; model `{}` needs it", self.contract.name));
            }
        }
    }
}

fn field(spec: &Spec) -> String {
    format!("inputs.{}", spec.name)
}

/// The outputs that a request asks for; all, if it asks for none.
fn wanted(
    contract: &Contract,
    asked: &[InferRequestedOutputTensor],
    violations: &mut Violations,
) -> Vec<&'static str> {
    if asked.is_empty() {
        return contract.outputs.iter().map(|spec| spec.name).collect();
    }
    let mut wanted = Vec::new();
    if asked.len() > MAX_TENSORS {
        violations.add("outputs", format!("are {}, at most {MAX_TENSORS} are read", asked.len()));
        return wanted;
    }
    for output in asked {
        let message = match contract.outputs.iter().find(|spec| spec.name == output.name) {
            None => {
                let names = Contract::names(&contract.outputs);
                format!("is no output of model `{}`; there are {names}", contract.name)
            }
            Some(spec) if wanted.contains(&spec.name) => "is asked for twice".to_owned(),
            Some(spec) => match output.parameters.keys().min() {
                Some(key) => format!("has the parameter `{}`; an output takes none", shortened(key)),
                None => {
                    wanted.push(spec.name);
                    continue;
                }
            },
        };
        violations.add(format!("outputs.{}", shortened(&output.name)), message);
    }
    wanted
}

#[cfg(test)]
mod tests;
