//! TorchScript files in the place of networks.

use std::num::NonZeroUsize;

use smartedit_core::engine::{EngineError, Result};
use smartedit_core::model::NetworkConfig;
use smartedit_core::stage::Program;
use smartedit_core::stages::program::{Input, Runner, output_names};
use smartedit_core::tensor::{HostTensor, Tensors};
use tch::jit::{CModule, IValue};
use tch::{Device, Kind, TchError, Tensor};

use crate::engine::{download, message, upload};
use crate::threads;

/// A module whose `forward` computes a stage.
///
/// It returns one tensor, a tuple of tensors in the order of the stage's outputs, or a dict of named tensors.
pub(crate) struct TorchScript {
    module: CModule,
    /// The arguments of `forward` that are tensors, in their order.
    inputs: Vec<Input>,
    /// How many of them, the first ones, have no default.
    without_default: usize,
    /// The names of the stage's outputs, in their order.
    outputs: Vec<String>,
    returns: Returns,
    device: Device,
    kind: Kind,
    threads: Option<NonZeroUsize>,
}

/// What `forward` takes and returns.
#[derive(Debug, PartialEq)]
struct Signature {
    inputs: Vec<Input>,
    without_default: usize,
    returns: Returns,
}

/// What `forward` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Returns {
    /// So many tensors, without names.
    Tensors(usize),
    /// Tensors by name.
    Dict,
}

impl TorchScript {
    /// Loads a module onto a device. It is given floats of `kind`.
    ///
    /// # Errors
    ///
    /// Why the file cannot compute a stage of `config`.
    pub(crate) fn load(
        program: &Program,
        config: &NetworkConfig,
        device: Device,
        kind: Kind,
        threads: Option<NonZeroUsize>,
    ) -> std::result::Result<Self, String> {
        let mut module = CModule::load_on_device(&program.file, device)
            .map_err(|e| format!("is not a TorchScript file: {}", message(&e)))?;
        module.f_set_eval().map_err(|e| message(&e))?;
        let Signature { inputs, without_default, returns } = signature(&module)?;
        let outputs = output_names(config, &program.outputs);
        if let Returns::Tensors(count) = returns
            && count != outputs.len()
        {
            let names = outputs.join("`, `");
            return Err(format!("`forward` returns {count} tensors; the stage's outputs are `{names}`"));
        }
        Ok(Self { module, inputs, without_default, outputs, returns, device, kind, threads })
    }

    fn forward(&self, inputs: &Tensors) -> std::result::Result<Tensors, TchError> {
        let last = self.inputs.iter().rposition(|input| inputs.get(&input.name).is_some());
        let given = self.inputs.iter().take(last.map_or(0, |last| last + 1).max(self.without_default));
        let arguments = given.map(|input| match inputs.get(&input.name) {
            Some(tensor) => self.argument(tensor).map(IValue::Tensor),
            None => Ok(IValue::None),
        });
        let arguments: Vec<IValue> = arguments.collect::<std::result::Result<_, _>>()?;
        // Parameters in a file may require gradients.
        let result = tch::no_grad(|| self.module.forward_is(&arguments))?;
        let mut outputs = Tensors::new();
        for (name, tensor) in self.named(result)? {
            outputs.insert(&name, download(&tensor)?);
        }
        Ok(outputs)
    }

    fn argument(&self, tensor: &HostTensor) -> std::result::Result<Tensor, TchError> {
        let copy = upload(tensor)?.f_to_device(self.device)?;
        match tensor {
            HostTensor::F32(_) => copy.f_to_kind(self.kind),
            HostTensor::I64(_) => Ok(copy),
        }
    }

    fn named(&self, result: IValue) -> std::result::Result<Vec<(String, Tensor)>, TchError> {
        let values = match result {
            IValue::GenericDict(entries) => {
                let named = entries
                    .into_iter()
                    .map(|(name, value)| Ok((String::try_from(name)?, Tensor::try_from(value)?)));
                return named.collect();
            }
            IValue::Tuple(values) => values,
            value => vec![value],
        };
        let named = self.outputs.iter().zip(values);
        named.map(|(name, value)| Ok((name.clone(), Tensor::try_from(value)?))).collect()
    }
}

impl Runner for TorchScript {
    fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    fn outputs(&self) -> Option<&[String]> {
        match self.returns {
            Returns::Tensors(_) => Some(&self.outputs),
            Returns::Dict => None,
        }
    }

    fn run(&self, inputs: &Tensors) -> Result<Tensors> {
        threads::apply(self.threads);
        self.forward(inputs).map_err(|e| EngineError::new("forward", message(&e)))
    }
}

/// The tensors that `forward` takes and what it returns.
///
/// tch does not show a method's schema; libtorch states it, before anything is computed, when a call does not
/// fit it.
fn signature(module: &CModule) -> std::result::Result<Signature, String> {
    /// More arguments than a stage can have.
    const TOO_MANY: usize = 64;
    let refused = match module.forward_is(&[const { IValue::None }; TOO_MANY]) {
        Ok(_) => return Err(format!("`forward` takes {TOO_MANY} arguments")),
        Err(error) => error,
    };
    let text = refused.to_string();
    match text.split_once("Declaration: ").map(|(_, rest)| rest.lines().next().unwrap_or_default()) {
        Some(declaration) => parse(declaration),
        None => Err(format!("`forward` cannot be called: {}", message(&refused))),
    }
}

/// Reads `forward(__torch__.Module self, Tensor a, Tensor? b=None) -> ((Tensor, Tensor))`. What is returned stands in
/// parentheses of its own, or in none.
fn parse(declaration: &str) -> std::result::Result<Signature, String> {
    let unreadable = || format!("`{declaration}` cannot be read");
    let (_, rest) = declaration.split_once('(').ok_or_else(unreadable)?;
    let (arguments, returned) = rest.rsplit_once(") -> ").ok_or_else(unreadable)?;
    let (mut inputs, mut without_default) = (Vec::new(), 0);
    // The first argument is the module itself.
    for argument in arguments.split(", ").skip(1) {
        let (argument, default) = match argument.split_once('=') {
            Some((argument, _)) => (argument, true),
            None => (argument, false),
        };
        match argument.rsplit_once(' ') {
            Some((kind @ ("Tensor" | "Tensor?"), name)) => {
                inputs.push(Input { name: name.to_owned(), required: !default && kind == "Tensor" });
                without_default += usize::from(!default);
            }
            // What has a default is left to it, and so is everything behind it.
            _ if default => break,
            _ => return Err(format!("`forward` takes `{argument}`; it can only be given tensors")),
        }
    }
    let mut kind = returned.trim();
    while let Some(inside) = kind.strip_prefix('(').and_then(|kind| kind.strip_suffix(')')) {
        kind = inside;
    }
    let returns = match kind {
        "Dict(str, Tensor)" => Returns::Dict,
        tensors if tensors.split(", ").all(|kind| kind == "Tensor") => {
            Returns::Tensors(tensors.split(", ").count())
        }
        _ => {
            return Err(format!(
                "`forward` returns `{kind}`; a tensor, a tuple of tensors or a dict of them is needed"
            ));
        }
    };
    Ok(Signature { inputs, without_default, returns })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, required: bool) -> Input {
        Input { name: name.to_owned(), required }
    }

    fn signature(
        inputs: Vec<Input>,
        without_default: usize,
        returns: Returns,
    ) -> std::result::Result<Signature, String> {
        Ok(Signature { inputs, without_default, returns })
    }

    #[test]
    fn declarations() {
        let found = parse("forward(__torch__.unet self, Tensor sample, Tensor? feature=None) -> Tensor");
        let inputs = vec![input("sample", true), input("feature", false)];
        assert_eq!(found, signature(inputs, 1, Returns::Tensors(1)));
        let found =
            parse("forward(__torch__.a.B self, Tensor x, int n=3, Tensor? y=None) -> (Tensor, Tensor)");
        assert_eq!(found, signature(vec![input("x", true)], 1, Returns::Tensors(2)));
        let found = parse("forward(__torch__.B self, Tensor? x, Tensor y) -> ((Tensor, Tensor))");
        let inputs = vec![input("x", false), input("y", true)];
        assert_eq!(found, signature(inputs, 2, Returns::Tensors(2)));
        let found = parse("forward(__torch__.B self, Tensor x) -> Dict(str, Tensor)");
        assert_eq!(found, signature(vec![input("x", true)], 1, Returns::Dict));
        for (declaration, part) in [
            ("forward(__torch__.B self, int n) -> Tensor", "`int n`"),
            ("forward(__torch__.B self) -> int", "returns `int`"),
            ("forward(__torch__.B self) -> (Tensor, int)", "returns `Tensor, int`"),
            ("nonsense", "cannot be read"),
        ] {
            let error = parse(declaration).expect_err(declaration);
            assert!(error.contains(part), "{error}");
        }
    }
}
