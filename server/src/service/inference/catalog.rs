//! The models of the protocol: deployments and their stages.

use std::sync::Arc;

use smartedit_core::model::{NetworkConfig, PipelineConfig};
use smartedit_core::stage::{Stage, StageKind};
use smartedit_core::stages::{Dim, Elements, interface};

use super::Inference;
use crate::config::DeploymentConfig;
use crate::deployment::{Lease, State};
use crate::failure::{Failure, shortened};
use crate::route::Route;
use crate::security::Access;
use crate::service::routing::{Chosen, Destination, Hints};
use crate::work::Editor;

/// Between a deployment's name, which cannot hold it, and a stage's.
const SEPARATOR: char = '/';

/// The edit's input that holds a picture file, and its output that does.
pub(super) const IMAGE: &str = "image";

/// The edit's input that says what to change.
pub(super) const INSTRUCTION: &str = "instruction";

/// The edit's output that holds the language model's reply.
pub(super) const REPLY: &str = "reply";

/// A model that can be computed.
pub(super) struct Model {
    pub(super) contract: Contract,
    pub(super) deployment: Lease,
    /// The route that the deployment was chosen by.
    pub(super) route: Option<Arc<Route>>,
    pub(super) editor: Arc<dyn Editor>,
    pub(super) computes: Computes,
}

/// What requests and answers of a model must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contract {
    /// The name that requests give.
    pub(super) name: String,
    pub(super) inputs: Vec<Spec>,
    pub(super) outputs: Vec<Spec>,
}

/// What a model computes.
pub(super) enum Computes {
    /// A whole edit.
    Edit,
    /// One stage, in a session of its own.
    Stage(Arc<dyn Stage>),
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) datatype: Datatype,
    pub(super) shape: Vec<Dim>,
    /// Whether an input need not be given.
    pub(super) optional: bool,
}

/// What the elements of a tensor are, as far as there are models of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Datatype {
    Fp32,
    Int64,
    Bytes,
}

impl Datatype {
    /// The protocol's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "FP32",
            Self::Int64 => "INT64",
            Self::Bytes => "BYTES",
        }
    }
}

impl Inference {
    /// The model of a name and version that can be computed. That of a route is like that of the deployment which most of its
    /// requests go to.
    ///
    /// # Errors
    ///
    /// There is no such model or version, or the caller may not use it ([`Failure::UnknownModel`]), the version is no number, or the deployment
    /// cannot be used yet or at all.
    pub(super) fn model(&self, name: &str, version: &str, access: &Access) -> Result<Model, Failure> {
        let (deployment, stage) = self.find(name, version, access)?;
        let editor = deployment.editor()?;
        match stage {
            None => Ok(Model::edit(name.to_owned(), Chosen { deployment, route: None }, editor)),
            Some(kind) => Model::stage(deployment, editor, kind).ok_or_else(|| unknown(name, String::new())),
        }
    }

    /// The model that a request with these hints and this key gets. A route has no models of stages.
    ///
    /// # Errors
    ///
    /// As [`Self::model`]; none of the route's deployments can be used, or the request asks for one that it may not have.
    pub(super) fn chosen_model(
        &self,
        name: &str,
        version: &str,
        (hints, key): (Hints, &str),
        access: &Access,
    ) -> Result<Model, Failure> {
        let model = self.model(name, version, access)?;
        if matches!(model.computes, Computes::Stage(_)) {
            return Ok(model);
        }
        let wanted = match version {
            "" => name.to_owned(),
            version => versioned(name, version),
        };
        let chosen = self.service.choose(Destination::Named { name: wanted, hints }, key, access)?;
        let editor = chosen.deployment.editor()?;
        Ok(Model::edit(name.to_owned(), chosen, editor))
    }

    /// The deployment that a model belongs to, and the stage that it is.
    pub(super) fn find(
        &self,
        name: &str,
        version: &str,
        access: &Access,
    ) -> Result<(Lease, Option<StageKind>), Failure> {
        check_version(version)?;
        let (owner, stage) = match name.split_once(SEPARATOR) {
            Some((owner, stage)) => (owner, Some(stage)),
            None => (name, None),
        };
        let kind = stage.map(|stage| StageKind::ALL.into_iter().find(|kind| kind.name() == stage));
        let deployments = self.service.deployments();
        if stage.is_none()
            && !owner.is_empty()
            && let Some(main) = self.service.main_of(owner, access)
        {
            // A route has no versions: those of its deployments are not each other's.
            let leased = version.is_empty().then(|| deployments.lease(&main).ok()).flatten();
            let leased = leased.ok_or_else(|| unknown(name, String::new()))?;
            return Ok((leased, None));
        }
        let is_known = DeploymentConfig::is_name(owner) && self.service.deployment(owner, access).is_ok();
        if !is_known || kind == Some(None) {
            return Err(unknown(name, String::new()));
        }
        let deployment = match version {
            "" => deployments.lease(owner).map_err(|_| unknown(name, String::new())),
            version => {
                let pinned = deployments.lease(&versioned(owner, version));
                pinned.map_err(|_| unknown(name, format!(" version {version}")))
            }
        };
        Ok((deployment?, kind.flatten()))
    }

    /// Every model that the caller may use and that can be computed, in every version, deployments by name, each before
    /// its stages.
    pub(super) fn ready_models(&self, access: &Access) -> Vec<Model> {
        let mut models = Vec::new();
        for deployment in self.service.visible(access) {
            let State::Ready(editor) = deployment.state() else { continue };
            let Ok(deployment) = self
                .service
                .deployments()
                .lease(&versioned(deployment.name(), &deployment.version().to_string()))
            else {
                continue;
            };
            let chosen = Chosen { deployment: deployment.clone(), route: None };
            models.push(Model::edit(deployment.name().to_owned(), chosen, editor.clone()));
            let stages = StageKind::ALL.into_iter();
            models.extend(stages.filter_map(|kind| Model::stage(deployment.clone(), editor.clone(), kind)));
        }
        models
    }
}

impl Model {
    fn edit(name: String, chosen: Chosen, editor: Arc<dyn Editor>) -> Self {
        let text = |name| Spec { name, datatype: Datatype::Bytes, shape: vec![Dim::Is(1)], optional: false };
        let mut outputs = vec![text(IMAGE)];
        if matches!(editor.config().pipeline, PipelineConfig::SmartEdit { .. }) {
            outputs.push(text(REPLY));
        }
        let contract = Contract { name, inputs: vec![text(IMAGE), text(INSTRUCTION)], outputs };
        let Chosen { deployment, route } = chosen;
        Self { contract, deployment, route, editor, computes: Computes::Edit }
    }

    /// A stage of a deployment; `None` if its model has no such stage.
    fn stage(deployment: Lease, editor: Arc<dyn Editor>, kind: StageKind) -> Option<Self> {
        let stage = editor.stage(kind)?;
        let name = format!("{}{SEPARATOR}{kind}", deployment.name());
        let contract = Contract::of(name, &editor.config().stages.get(&kind)?.network);
        Some(Self { contract, deployment, route: None, editor, computes: Computes::Stage(stage) })
    }

    /// The version, as the protocol has it.
    pub(super) fn version(&self) -> String {
        self.deployment.version().to_string()
    }
}

impl Contract {
    /// That of a stage of this network.
    pub(super) fn of(name: String, network: &NetworkConfig) -> Self {
        let interface = interface(network);
        let inputs = interface.inputs.into_iter().map(|port| Spec {
            name: port.name.base,
            datatype: match port.elements {
                Elements::Ids { .. } => Datatype::Int64,
                Elements::F32 | Elements::Computed => Datatype::Fp32,
            },
            shape: port.shape,
            optional: port.absent.is_some(),
        });
        let outputs = interface.outputs.into_iter().map(|output| Spec {
            name: output.name,
            datatype: Datatype::Fp32,
            shape: output.shape,
            optional: false,
        });
        Self { name, inputs: inputs.collect(), outputs: outputs.collect() }
    }

    /// The names of specs, for messages.
    pub(super) fn names(specs: &[Spec]) -> String {
        specs.iter().map(|spec| format!("`{}`", spec.name)).collect::<Vec<_>>().join(", ")
    }
}

/// What the registry calls a version.
fn versioned(name: &str, version: &str) -> String {
    format!("{name}@{version}")
}

pub(super) fn unknown(name: &str, version: String) -> Failure {
    Failure::UnknownModel { name: shortened(name), version }
}

/// A version is empty or a number above 0.
fn check_version(version: &str) -> Result<(), Failure> {
    let number = version.parse::<u64>().is_ok_and(|number| number > 0);
    match version.is_empty() || number {
        true => Ok(()),
        false => {
            let message = format!("is `{}`, a whole number above 0 is needed", shortened(version));
            Err(Failure::invalid("model_version", message))
        }
    }
}
