//! What a model must be like to compute a stage.

use smartedit_core::model::NetworkConfig;
use smartedit_core::stage::Remote;
use smartedit_core::stages::program::Input;
use smartedit_core::stages::{Dim, Elements, interface};
use smartedit_proto::inference::ModelConfig;
use smartedit_proto::inference::model_metadata_response::TensorMetadata;

use crate::connection::Description;

/// The datatypes that tensors of stages have.
pub(crate) const FLOATS: &str = "FP32";
pub(crate) const INTEGERS: &str = "INT64";

/// What a model takes and gives, as far as it is the stage's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contract {
    pub(crate) inputs: Vec<Input>,
    pub(crate) outputs: Vec<String>,
    /// Whether the first dimension of every input may have any size.
    pub(crate) batches: bool,
    /// Rows of a call, at most, where the server adds the first dimension to a model that has none of its own. All tensors
    /// of a call then have the same number of rows.
    pub(crate) max_rows: Option<usize>,
}

impl Contract {
    /// Checks datatypes and shapes of the tensors that stand for the stage's. Whether all are there is checked by whoever
    /// binds the names.
    ///
    /// # Errors
    ///
    /// What does not fit, and what is needed.
    pub(crate) fn of(
        Description { metadata, config }: &Description,
        network: &NetworkConfig,
        remote: &Remote,
    ) -> Result<Self, String> {
        check_version(&metadata.versions, remote)?;
        let interface = interface(network);
        for port in &interface.inputs {
            let (name, integers) = (port.name.base, matches!(port.elements, Elements::Ids { .. }));
            let target = remote.inputs.get(name).map_or(name, String::as_str);
            check(("input", target), &metadata.inputs, integers, &port.shape)?;
        }
        for output in &interface.outputs {
            let target = remote.outputs.get(output.name).map_or(output.name, String::as_str);
            check(("output", target), &metadata.outputs, false, &output.shape)?;
        }
        let is_optional = |name: &str| config.as_ref().is_some_and(|config| is_optional(config, name));
        let inputs = metadata
            .inputs
            .iter()
            .map(|tensor| Input { name: tensor.name.clone(), required: !is_optional(&tensor.name) });
        let max_rows = config.as_ref().and_then(|config| usize::try_from(config.max_batch_size).ok());
        Ok(Self {
            inputs: inputs.collect(),
            outputs: metadata.outputs.iter().map(|tensor| tensor.name.clone()).collect(),
            batches: metadata.inputs.iter().all(|tensor| tensor.shape.first().is_some_and(|&size| size < 0)),
            max_rows: max_rows.filter(|&rows| rows > 0),
        })
    }
}

fn check_version(versions: &[String], remote: &Remote) -> Result<(), String> {
    match &remote.version {
        Some(version) if !versions.is_empty() && !versions.contains(version) => {
            Err(format!("there is no version {version}; there are {}", versions.join(", ")))
        }
        _ => Ok(()),
    }
}

/// Checks datatype and shape of a tensor, if the model has it.
fn check(
    (what, name): (&str, &str),
    tensors: &[TensorMetadata],
    integers: bool,
    dims: &[Dim],
) -> Result<(), String> {
    let Some(tensor) = tensors.iter().find(|tensor| tensor.name == name) else { return Ok(()) };
    let datatype = if integers { INTEGERS } else { FLOATS };
    let fits = tensor.shape.len() == dims.len()
        && tensor.shape.iter().zip(dims).all(|(&size, dim)| {
            // A size that may be any is negative.
            usize::try_from(size).map_or(true, |size| dim.admits(size))
        });
    if tensor.datatype == datatype && fits {
        return Ok(());
    }
    let needed: Vec<String> = dims.iter().map(ToString::to_string).collect();
    let (found, shape) = (&tensor.datatype, &tensor.shape);
    Err(format!("its {what} `{name}` is {found} {shape:?}; {datatype} [{}] is needed", needed.join(", ")))
}

fn is_optional(config: &ModelConfig, name: &str) -> bool {
    config.input.iter().any(|input| input.name == name && input.optional)
}

#[cfg(test)]
mod tests {
    use smartedit_core::model::VaeConfig;
    use smartedit_proto::inference::{ModelInput, ModelMetadataResponse};

    use super::*;

    fn network() -> NetworkConfig {
        NetworkConfig::VaeDecoder(VaeConfig {
            latent_channels: 4,
            image_channels: 3,
            block_channels: vec![8, 8, 8, 8],
            layers_per_block: 1,
            norm_groups: 4,
            scaling_factor: 0.18,
            patch_size: 1,
            norm_out: true,
        })
    }

    fn tensor(name: &str, datatype: &str, shape: &[i64]) -> TensorMetadata {
        TensorMetadata { name: name.to_owned(), datatype: datatype.to_owned(), shape: shape.to_vec() }
    }

    fn description() -> Description {
        let metadata = ModelMetadataResponse {
            versions: vec!["1".to_owned(), "2".to_owned()],
            inputs: vec![tensor("latents", FLOATS, &[-1, 4, -1, -1])],
            outputs: vec![tensor("image", FLOATS, &[-1, 3, -1, -1])],
            ..ModelMetadataResponse::default()
        };
        Description { metadata, config: None }
    }

    fn remote() -> Remote {
        Remote::new("http://host:1", "model")
    }

    #[track_caller]
    fn refused(spoil: impl FnOnce(&mut Description), remote: &Remote, words: &[&str]) {
        let mut description = description();
        spoil(&mut description);
        let message = Contract::of(&description, &network(), remote).unwrap_err();
        for word in words {
            assert!(message.contains(word), "no {word} in {message}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let words = ["input `latents`", "FP16 [-1, 4, -1, -1]", "FP32 [batch, 4, height, width]"];
        refused(|d| d.metadata.inputs[0].datatype = "FP16".to_owned(), &remote(), &words);
        refused(|d| d.metadata.inputs[0].shape[1] = 8, &remote(), &["`latents`", "[-1, 8, -1, -1]"]);
        refused(|d| d.metadata.inputs[0].shape.truncate(3), &remote(), &["`latents`", "[-1, 4, -1]"]);
        refused(|d| d.metadata.outputs[0].datatype = "UINT8".to_owned(), &remote(), &["output `image`"]);
        refused(|d| d.metadata.outputs[0].shape = vec![-1, 1, -1, -1], &remote(), &["`image`", "3"]);
        let version = Remote { version: Some("7".to_owned()), ..remote() };
        refused(|_| (), &version, &["version 7", "1, 2"]);
        let renamed = Remote { inputs: [("latents".to_owned(), "x".to_owned())].into(), ..remote() };
        refused(
            |d| d.metadata.inputs.push(tensor("x", INTEGERS, &[1])),
            &renamed,
            &["input `x`", "INT64 [1]"],
        );
    }

    #[test]
    fn the_configuration_tells_what_may_be_left_out_and_how_many_rows() {
        let contract = Contract::of(&description(), &network(), &remote()).unwrap();
        assert!(contract.batches && contract.inputs[0].required);
        assert_eq!((contract.max_rows, contract.outputs), (None, vec!["image".to_owned()]));
        let input = ModelInput { name: "latents".to_owned(), optional: true, ..ModelInput::default() };
        let config = ModelConfig { max_batch_size: 4, input: vec![input], ..ModelConfig::default() };
        let description = Description { config: Some(config), ..description() };
        let contract = Contract::of(&description, &network(), &remote()).unwrap();
        assert_eq!((contract.max_rows, contract.inputs[0].required), (Some(4), false));
        let mut fixed = super::tests::description();
        fixed.metadata.inputs[0].shape[0] = 1;
        assert!(!Contract::of(&fixed, &network(), &remote()).unwrap().batches);
    }
}
