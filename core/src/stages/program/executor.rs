//! Names and shapes between a stage and a program.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::{Axis, Slice, concatenate};

use super::language_model::{LOGITS_FROM, wanted_from};
use super::shapes::shapes;
use super::{Need, Runner, inputs, outputs};
use crate::engine::{EngineError, Result};
use crate::model::NetworkConfig;
use crate::stages::{Executor, Function};
use crate::tensor::{HostTensor, Tensors};

/// What operations of a program are called in errors.
const PROGRAM: &str = "program";

/// A program's names of the stage's inputs and outputs, where they differ.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// Of the inputs.
    pub inputs: &'a BTreeMap<String, String>,
    /// Of the outputs.
    pub outputs: &'a BTreeMap<String, String>,
}

/// A program behind the stage's own names.
pub(super) struct ProgramExecutor<R> {
    runner: R,
    config: NetworkConfig,
    inputs: Vec<Binding>,
    /// The stage's name and the program's.
    outputs: Vec<(&'static str, String)>,
}

/// An input of the stage.
struct Binding {
    name: &'static str,
    need: Need,
    /// The program's name and whether the program needs it; `None` if it does not take it.
    target: Option<(String, bool)>,
}

impl<R: Runner> ProgramExecutor<R> {
    /// Binds the stage's names to the program's.
    ///
    /// # Errors
    ///
    /// What does not fit.
    pub(super) fn new(
        runner: R,
        names: Names<'_>,
        config: &NetworkConfig,
    ) -> std::result::Result<Self, String> {
        let inputs = bind_inputs(&runner, names.inputs, &inputs(config))?;
        let outputs = bind_outputs(&runner, names.outputs, &outputs(config))?;
        Ok(Self { runner, config: config.clone(), inputs, outputs })
    }

    /// The inputs that are given, under the program's names.
    fn renamed(&self, inputs: &[Option<&HostTensor>]) -> Result<Tensors> {
        let mut renamed = Tensors::new();
        for (binding, value) in self.inputs.iter().zip(inputs.iter().copied().chain(std::iter::repeat(None)))
        {
            let name = binding.name;
            match (&binding.target, value) {
                (Some((target, _)), Some(value)) => renamed.insert(target, value.clone()),
                (Some((target, true)), None) => {
                    let message = format!("its input `{target}` is `{name}`, which is not given");
                    return Err(EngineError::new(PROGRAM, message));
                }
                (None, Some(_)) if binding.need != Need::Never => {
                    return Err(EngineError::new(PROGRAM, format!("it takes no `{name}`, which is given")));
                }
                (None, Some(_)) | (_, None) => {}
            }
        }
        Ok(renamed)
    }

    /// Whether the program gives the logits that are wanted, and not those of all positions.
    fn cuts(&self) -> bool {
        self.inputs.iter().any(|binding| binding.name == LOGITS_FROM && binding.target.is_some())
    }
}

impl<R: Runner> Executor for ProgramExecutor<R> {
    type Value = HostTensor;

    fn upload(&self, tensor: &HostTensor) -> Result<HostTensor> {
        Ok(tensor.clone())
    }

    fn download(&self, value: &HostTensor) -> Result<HostTensor> {
        Ok(value.clone())
    }

    fn narrow(&self, value: &HostTensor, axis: usize, start: usize, length: usize) -> Result<HostTensor> {
        if value.shape().get(axis).is_none_or(|&size| start.saturating_add(length) > size) {
            let message = format!("{:?} has no {length} entries from {start} on in {axis}", value.shape());
            return Err(EngineError::new("narrow", message));
        }
        let range = Slice::from(start..start + length);
        Ok(match value {
            HostTensor::F32(array) => array.slice_axis(Axis(axis), range).to_owned().into(),
            HostTensor::I64(array) => array.slice_axis(Axis(axis), range).to_owned().into(),
        })
    }

    fn join(&self, values: &[&HostTensor]) -> Result<HostTensor> {
        let failed = |message: &dyn std::fmt::Display| EngineError::new("join", message);
        let floats = values.iter().map(|value| match value {
            HostTensor::F32(array) => Ok(array.view()),
            HostTensor::I64(_) => Err(failed(&"floats are needed")),
        });
        let floats: Vec<_> = floats.collect::<Result<_>>()?;
        concatenate(Axis(0), &floats).map(HostTensor::from).map_err(|e| failed(&e))
    }

    /// Whatever the function, it is all that the program does. Of a language model, the logits are those that are wanted.
    fn call(&self, _: Function, inputs: &[Option<&HostTensor>]) -> Result<Vec<HostTensor>> {
        let outputs = self.runner.run(&self.renamed(inputs)?)?;
        let taken = |((name, own), expected): (&(&str, String), Vec<Option<usize>>)| {
            let failed = |message| Err(EngineError::new(PROGRAM, message));
            let tensor = match outputs.need(own) {
                Ok(tensor @ HostTensor::F32(_)) => tensor,
                Ok(HostTensor::I64(_)) => return failed(format!("its output `{own}` does not hold floats")),
                Err(missing) => return failed(format!("of its outputs, {missing}")),
            };
            let shape = tensor.shape();
            let fits = shape.len() == expected.len()
                && shape.iter().zip(&expected).all(|(size, expected)| expected.is_none_or(|e| e == *size));
            if !fits {
                let sizes: Vec<_> = expected
                    .iter()
                    .map(|size| size.map_or("*".to_owned(), |size| size.to_string()))
                    .collect();
                let needed = sizes.join(", ");
                return failed(format!("its output `{own}` has shape {shape:?}; `{name}` is [{needed}]"));
            }
            Ok(tensor.clone())
        };
        let (from, cuts) = (wanted_from(inputs), self.cuts());
        let expected = shapes(&self.config, inputs, if cuts { from } else { 0 });
        let mut outputs: Vec<HostTensor> =
            self.outputs.iter().zip(expected).map(taken).collect::<Result<_>>()?;
        if let (NetworkConfig::LanguageModel(_), false, Some(logits)) =
            (&self.config, cuts, outputs.get_mut(1))
        {
            *logits = self.narrow(logits, 1, from, logits.shape()[1].saturating_sub(from))?;
        }
        Ok(outputs)
    }
}

fn bind_inputs(
    runner: &impl Runner,
    names: &BTreeMap<String, String>,
    stage: &[(&'static str, Need)],
) -> std::result::Result<Vec<Binding>, String> {
    known(names, stage.iter().map(|(name, _)| *name), "input")?;
    let listed = || list(runner.inputs().iter().map(|input| input.name.as_str()));
    let mut bindings = Vec::with_capacity(stage.len());
    let mut taken = BTreeSet::new();
    for &(name, need) in stage {
        let mapped = names.get(name);
        let target = mapped.map_or(name, String::as_str);
        let input = runner.inputs().iter().find(|input| input.name == target);
        match input {
            Some(input) => {
                if !taken.insert(target) {
                    return Err(format!("its input `{target}` stands for two of the stage's"));
                }
                let target = Some((target.to_owned(), input.required));
                bindings.push(Binding { name, need, target });
            }
            None if need == Need::Always || mapped.is_some() => {
                return Err(format!("it has no input `{target}` for `{name}`; its inputs are {}", listed()));
            }
            None => bindings.push(Binding { name, need, target: None }),
        }
    }
    match runner.inputs().iter().find(|input| input.required && !taken.contains(input.name.as_str())) {
        Some(input) => Err(format!(
            "its input `{}` stands for none of the stage's, which are {}",
            input.name,
            list(stage.iter().map(|(name, _)| *name))
        )),
        None => Ok(bindings),
    }
}

fn bind_outputs(
    runner: &impl Runner,
    names: &BTreeMap<String, String>,
    stage: &[&'static str],
) -> std::result::Result<Vec<(&'static str, String)>, String> {
    known(names, stage.iter().copied(), "output")?;
    let bound = stage.iter().map(|&name| (name, names.get(name).map_or(name, String::as_str).to_owned()));
    let bound: Vec<_> = bound.collect();
    if let Some(given) = runner.outputs()
        && let Some((name, own)) = bound.iter().find(|(_, own)| !given.contains(own))
    {
        let given = list(given.iter().map(String::as_str));
        return Err(format!("it has no output `{own}` for `{name}`; its outputs are {given}"));
    }
    Ok(bound)
}

/// Fails if a name is mapped that the stage does not have.
fn known(
    names: &BTreeMap<String, String>,
    mut stage: impl Iterator<Item = &'static str> + Clone,
    what: &str,
) -> std::result::Result<(), String> {
    match names.keys().find(|name| !stage.clone().any(|known| known == name.as_str())) {
        Some(name) => {
            let known = list(stage.by_ref());
            Err(format!("the stage has no {what} `{name}`; its {what}s are {known}"))
        }
        None => Ok(()),
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
