//! Loading and unloading models on request.

use smartedit_proto::inference as oip;

use super::Inference;
use super::catalog::unknown;
use crate::config::DeploymentConfig;
use crate::deployment::Load;
use crate::failure::Failure;

impl Inference {
    /// Loads what is configured under a name; another version under it is replaced when the new one is ready.
    pub(super) async fn load(&self, request: oip::RepositoryModelLoadRequest) -> Result<(), Failure> {
        let oip::RepositoryModelLoadRequest { repository_name, model_name, parameters } = request;
        self.check_repository(&repository_name, &model_name)?;
        if let Some(name) = parameters.keys().min() {
            let message = "is not supported: a model is loaded as it is configured";
            return Err(Failure::invalid(format!("parameters.{name}"), message));
        }
        self.service.check_is_no_route("model_name", &model_name)?;
        let load = Load { name: model_name.clone(), ..Load::default() };
        self.service.deployments().load(load).await.map(drop).map_err(|failure| renamed(failure, &model_name))
    }

    /// Unloads all versions of a model.
    pub(super) async fn unload(&self, request: oip::RepositoryModelUnloadRequest) -> Result<(), Failure> {
        // Parameters could only say what becomes of models that depend on it: its stages, which go with it.
        let oip::RepositoryModelUnloadRequest { repository_name, model_name, .. } = request;
        self.check_repository(&repository_name, &model_name)?;
        let unloaded = self.service.deployments().unload(&model_name, None).await;
        unloaded.map_err(|failure| renamed(failure, &model_name))
    }

    fn check_repository(&self, repository: &str, model: &str) -> Result<(), Failure> {
        self.service.may_change()?;
        if !repository.is_empty() {
            let message = "'repository_name' specification is not supported: there is one repository";
            return Err(Failure::Unsupported(message.to_owned()));
        }
        match DeploymentConfig::is_name(model) {
            true => Ok(()),
            false => Err(unknown(model, String::new())),
        }
    }
}

/// A failure in this protocol's words.
fn renamed(failure: Failure, model: &str) -> Failure {
    match failure {
        Failure::UnknownDeployment { .. } => unknown(model, String::new()),
        other => other,
    }
}
