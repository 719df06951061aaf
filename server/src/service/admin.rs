//! `smartedit.v1.AdminService`.

use smartedit_proto::v1;
use smartedit_proto::v1::admin_service_server::AdminService;
use tonic::{Request, Response, Status};

use super::describe::adapter;
use super::{Reloaded, Reloader, Service};
use crate::config::DeploymentConfig;
use crate::deployment::{Adapters, Load, LoadAdapter, Others};
use crate::failure::{Failure, Violations};
use crate::security::Access;
use crate::status::status;

/// How strong an adapter is of which that is not said.
const AS_TRAINED: f32 = 1.0;

/// Loads and unloads a service's deployments and their adapters; cloning shares its state.
#[derive(Clone)]
pub struct Admin(Service);

impl Admin {
    /// What may be changed of this service.
    pub fn new(service: Service) -> Self {
        Self(service)
    }
}

impl Service {
    /// Whether deployments may be changed over the network.
    pub(super) fn may_change(&self) -> Result<(), Failure> {
        match self.0.config.admin.enabled {
            true => Ok(()),
            false => Err(Failure::AdminDisabled),
        }
    }

    async fn load(
        &self,
        request: v1::LoadDeploymentRequest,
        access: &Access,
    ) -> Result<v1::Deployment, Failure> {
        self.may_change()?;
        let others = others(&request);
        let v1::LoadDeploymentRequest { name, settings, version, .. } = request;
        check_name(&name)?;
        self.check_is_no_route("name", &name)?;
        let config = match settings.is_empty() {
            true => None,
            false => Some(self.settings(&name, &settings)?),
        };
        let load = Load { name, config, version: (version > 0).then_some(version), others: others? };
        let deployment = self.deployments().load(load).await?;
        Ok(self.describe(&deployment, access))
    }

    async fn load_adapter(
        &self,
        request: v1::LoadAdapterRequest,
        access: &Access,
    ) -> Result<v1::Adapter, Failure> {
        self.may_change()?;
        let v1::LoadAdapterRequest { deployment, name, path, scale } = request;
        let lease = self.lease(&deployment, access)?;
        let load = LoadAdapter { name, path, scale: scale.unwrap_or(AS_TRAINED) };
        self.deployments().load_adapter(lease, load).await.map(adapter)
    }

    async fn unload_adapter(
        &self,
        request: v1::UnloadAdapterRequest,
        access: &Access,
    ) -> Result<(), Failure> {
        self.may_change()?;
        let lease = self.lease(&request.deployment, access)?;
        self.deployments().unload_adapter(lease, &request.name).await
    }

    fn adapters(&self, deployment: &str, access: &Access) -> Result<Vec<v1::Adapter>, Failure> {
        let editor = self.deployment(deployment, access)?.editor()?;
        let adapters = editor.adapters().map(Adapters::list).unwrap_or_default();
        Ok(adapters.into_iter().map(adapter).collect())
    }

    /// The settings of a deployment, checked.
    fn settings(&self, name: &str, settings: &str) -> Result<DeploymentConfig, Failure> {
        let config: DeploymentConfig =
            toml::from_str(settings).map_err(|error| Failure::invalid("settings", error.message()))?;
        let problems = self.deployments().problems(name, &config);
        if problems.is_empty() {
            return Ok(config);
        }
        tracing::error!(deployment = name, %problems, "settings cannot be used");
        let mut violations = Violations::default();
        for problem in problems.iter() {
            // What is wrong may name files.
            violations.add(format!("settings: {}", problem.key), "cannot be used; the server's log says why");
        }
        Err(Failure::Invalid(violations))
    }
}

/// A name that a deployment can have, so that what is told of it can be asked for.
fn check_name(name: &str) -> Result<(), Failure> {
    match DeploymentConfig::is_name(name) {
        true => Ok(()),
        false => {
            Err(Failure::invalid("name", "has to have 1 to 64 letters, digits, hyphens, underscores or dots"))
        }
    }
}

fn others(request: &v1::LoadDeploymentRequest) -> Result<Others, Failure> {
    match v1::OtherVersions::try_from(request.others) {
        Ok(v1::OtherVersions::Unspecified | v1::OtherVersions::Replace) => Ok(Others::Replaced),
        Ok(v1::OtherVersions::Keep) => Ok(Others::Kept),
        Ok(v1::OtherVersions::KeepCurrent) => Ok(Others::Current),
        Err(_) => Err(Failure::invalid("others", format!("is {}, which is no value of it", request.others))),
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn load_deployment(
        &self,
        request: Request<v1::LoadDeploymentRequest>,
    ) -> Result<Response<v1::LoadDeploymentResponse>, Status> {
        let access = Access::of(request.extensions());
        let deployment = self.0.load(request.into_inner(), &access).await;
        let deployment = deployment.map_err(|failure| status(&failure, None))?;
        Ok(Response::new(v1::LoadDeploymentResponse { deployment: Some(deployment) }))
    }

    async fn unload_deployment(
        &self,
        request: Request<v1::UnloadDeploymentRequest>,
    ) -> Result<Response<v1::UnloadDeploymentResponse>, Status> {
        let v1::UnloadDeploymentRequest { name, version } = request.into_inner();
        let unload = async {
            self.0.may_change()?;
            check_name(&name)?;
            self.0.deployments().unload(&name, (version > 0).then_some(version)).await
        };
        unload.await.map_err(|failure| status(&failure, None))?;
        Ok(Response::new(v1::UnloadDeploymentResponse {}))
    }

    async fn reload_configuration(
        &self,
        _: Request<v1::ReloadConfigurationRequest>,
    ) -> Result<Response<v1::ReloadConfigurationResponse>, Status> {
        let reload = async {
            self.0.may_change()?;
            Reloader(self.0.clone()).reload().await
        };
        let Reloaded { applied, needs_restart } = reload.await.map_err(|failure| status(&failure, None))?;
        let failed = applied.failed.into_iter();
        Ok(Response::new(v1::ReloadConfigurationResponse {
            loaded: applied.loaded,
            unloaded: applied.unloaded,
            failed: failed.map(|(name, reason)| v1::FailedDeployment { name, reason }).collect(),
            needs_restart: needs_restart.into_iter().map(str::to_owned).collect(),
        }))
    }

    async fn load_adapter(
        &self,
        request: Request<v1::LoadAdapterRequest>,
    ) -> Result<Response<v1::LoadAdapterResponse>, Status> {
        let access = Access::of(request.extensions());
        let adapter = self.0.load_adapter(request.into_inner(), &access).await;
        let adapter = adapter.map_err(|failure| status(&failure, None))?;
        Ok(Response::new(v1::LoadAdapterResponse { adapter: Some(adapter) }))
    }

    async fn unload_adapter(
        &self,
        request: Request<v1::UnloadAdapterRequest>,
    ) -> Result<Response<v1::UnloadAdapterResponse>, Status> {
        let access = Access::of(request.extensions());
        let unloaded = self.0.unload_adapter(request.into_inner(), &access).await;
        unloaded.map_err(|failure| status(&failure, None))?;
        Ok(Response::new(v1::UnloadAdapterResponse {}))
    }

    async fn list_adapters(
        &self,
        request: Request<v1::ListAdaptersRequest>,
    ) -> Result<Response<v1::ListAdaptersResponse>, Status> {
        let access = Access::of(request.extensions());
        let adapters = self.0.adapters(&request.into_inner().deployment, &access);
        let adapters = adapters.map_err(|failure| status(&failure, None))?;
        Ok(Response::new(v1::ListAdaptersResponse { adapters }))
    }
}
