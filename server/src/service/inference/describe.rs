//! Server and models as the protocol describes them.

use std::collections::HashMap;

use smartedit_core::stages::Dim;
use smartedit_proto::inference as oip;
use smartedit_proto::inference::model_instance_group::Kind;
use smartedit_proto::inference::model_metadata_response::TensorMetadata;
use smartedit_proto::inference::repository_index_response::ModelIndex;

use super::Inference;
use super::catalog::{Computes, Datatype, Model, Spec};
use crate::deployment::State;
use crate::failure::Failure;
use crate::security::Access;

/// What computes every model, where no single engine does.
const PLATFORM: &str = "smartedit";

/// The extensions of the protocol that are offered whole.
const EXTENSIONS: [&str; 3] = ["model_configuration", "parameters", "statistics"];

/// The size of a dimension that may have any.
const ANY: i64 = -1;

/// What there is to say of the server.
pub(super) fn server() -> oip::ServerMetadataResponse {
    oip::ServerMetadataResponse {
        name: PLATFORM.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    }
}

impl Inference {
    /// Whether requests for the default route, or the default deployment, are taken.
    pub(super) fn is_ready(&self) -> bool {
        self.service.ready().is_ok()
    }

    /// Whether requests for a model are taken; not if there is no such model.
    pub(super) fn is_model_ready(&self, name: &str, version: &str, access: &Access) -> Result<bool, Failure> {
        match self.model(name, version, access) {
            Ok(_) => Ok(self.service.is_accepting()),
            Err(failure @ Failure::Invalid(_)) => Err(failure),
            Err(_) => Ok(false),
        }
    }

    /// Every model that the caller may use; with `ready`, those that can be computed.
    pub(super) fn index(&self, ready: bool, access: &Access) -> Vec<ModelIndex> {
        let entry = |name: String, version: String, state: &str, reason: String| ModelIndex {
            name,
            version,
            state: state.to_owned(),
            reason,
        };
        let computable = self.ready_models(access).into_iter();
        let mut models: Vec<_> = computable
            .map(|model| entry(model.contract.name.clone(), model.version(), "READY", String::new()))
            .collect();
        if !ready {
            models.extend(self.service.visible(access).iter().filter_map(|deployment| {
                let (name, version) = (deployment.name().to_owned(), deployment.version().to_string());
                match deployment.state() {
                    State::Ready(_) => None,
                    State::Loading => Some(entry(name, version, "LOADING", String::new())),
                    State::Failed(reason) => Some(entry(name, version, "UNAVAILABLE", reason)),
                    State::Unloaded => Some(entry(name, version, "UNLOADING", String::new())),
                }
            }));
            let absent = self.service.deployments().absent().into_iter();
            let absent = absent.filter(|name| access.may_use(name));
            models
                .extend(absent.map(|name| entry(name, String::new(), "UNAVAILABLE", "unloaded".to_owned())));
            models.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        }
        models
    }
}

impl Model {
    /// Its inputs and outputs.
    pub(super) fn metadata(&self) -> oip::ModelMetadataResponse {
        let tensor = |spec: &Spec| TensorMetadata {
            name: spec.name.to_owned(),
            datatype: spec.datatype.name().to_owned(),
            shape: spec.dims(),
        };
        oip::ModelMetadataResponse {
            name: self.contract.name.clone(),
            versions: vec![self.version()],
            platform: self.platform().to_owned(),
            inputs: self.contract.inputs.iter().map(tensor).collect(),
            outputs: self.contract.outputs.iter().map(tensor).collect(),
            properties: self.properties(),
        }
    }

    /// Its configuration.
    pub(super) fn config(&self, instances: usize) -> oip::ModelConfig {
        let inputs = self.contract.inputs.iter().map(|spec| oip::ModelInput {
            name: spec.name.to_owned(),
            data_type: spec.datatype.config().into(),
            dims: spec.dims(),
            optional: spec.optional,
        });
        let outputs = self.contract.outputs.iter().map(|spec| oip::ModelOutput {
            name: spec.name.to_owned(),
            data_type: spec.datatype.config().into(),
            dims: spec.dims(),
        });
        let group = oip::ModelInstanceGroup {
            name: self.contract.name.clone(),
            count: i32::try_from(instances).unwrap_or(i32::MAX),
            gpus: Vec::new(),
            kind: Kind::Model.into(),
        };
        let backend = match &self.computes {
            Computes::Edit => "",
            Computes::Stage(stage) => stage.info().engine,
        };
        oip::ModelConfig {
            name: self.contract.name.clone(),
            platform: self.platform().to_owned(),
            max_batch_size: 0,
            input: inputs.collect(),
            output: outputs.collect(),
            instance_group: vec![group],
            backend: backend.to_owned(),
            model_transaction_policy: Some(oip::ModelTransactionPolicy { decoupled: false }),
        }
    }

    fn platform(&self) -> &str {
        match &self.computes {
            Computes::Edit => PLATFORM,
            Computes::Stage(stage) => stage.info().engine,
        }
    }

    fn properties(&self) -> HashMap<String, String> {
        let mut properties = vec![("model", self.editor.config().name.clone())];
        if let Computes::Stage(stage) = &self.computes {
            let info = stage.info();
            properties.push(("stage", info.kind.name().to_owned()));
            properties.push(("device", info.device.clone()));
            properties.push(("precision", info.precision.to_string()));
        }
        properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

impl Spec {
    /// The size of every dimension, where it is always the same.
    fn dims(&self) -> Vec<i64> {
        let size = |dim: &Dim| match dim {
            Dim::Is(size) => i64::try_from(*size).unwrap_or(i64::MAX),
            Dim::Any(_) | Dim::MultipleOf(..) => ANY,
        };
        self.shape.iter().map(size).collect()
    }
}

impl Datatype {
    /// What a configuration calls it.
    const fn config(self) -> oip::DataType {
        match self {
            Self::Fp32 => oip::DataType::TypeFp32,
            Self::Int64 => oip::DataType::TypeInt64,
            Self::Bytes => oip::DataType::TypeString,
        }
    }
}
