//! Changing what a server serves.

use smartedit_proto::v1;

use crate::{Adapter, Deployment};

/// A version of a deployment to be loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadRequest {
    /// The deployment's name.
    pub name: String,
    /// Its settings: the content of a table `[deployments.NAME]` of the server's configuration, as TOML. `None`: what is
    /// configured under the name, or else the settings of its current version.
    pub settings: Option<String>,
    /// The version's number; `None`: the next one.
    pub version: Option<u64>,
    /// What becomes of the versions before.
    pub others: OtherVersions,
}

/// What becomes of the versions of a deployment when a new one is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OtherVersions {
    /// The new one takes their place; they finish what they have and are unloaded.
    #[default]
    Replace,
    /// The new one gets the requests that name no version; they stay for requests that name them (`NAME@VERSION`).
    Keep,
    /// The current one keeps the requests that name no version; the new one is for requests that name it.
    KeepCurrent,
}

/// A LoRA adapter to be loaded into a deployment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadAdapterRequest {
    /// The deployment, `NAME` or `NAME@VERSION`; `None`: the server's default one.
    pub deployment: Option<String>,
    /// The name that requests are to choose it by.
    pub name: String,
    /// A safetensors file, or a directory as PEFT or diffusers write it, relative to the directory that the server's
    /// configuration has for adapters.
    pub path: String,
    /// How strong it is where a request does not say; `None`: 1, as it was trained.
    pub scale: Option<f32>,
}

/// What has changed when a server has read its configuration again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Deployments that were loaded: those that are new, changed, or could not be loaded before.
    pub loaded: Vec<String>,
    /// Deployments that were unloaded.
    pub unloaded: Vec<String>,
    /// Deployments that could not be loaded, and why; where there was a version before, it goes on serving.
    pub failed: Vec<(String, String)>,
    /// Settings that differ and that only a new start brings into effect.
    pub needs_restart: Vec<String>,
}

impl LoadRequest {
    /// What is configured under a name, in the place of what is served under it.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    pub(crate) fn into_proto(self) -> v1::LoadDeploymentRequest {
        let others = match self.others {
            OtherVersions::Replace => v1::OtherVersions::Replace,
            OtherVersions::Keep => v1::OtherVersions::Keep,
            OtherVersions::KeepCurrent => v1::OtherVersions::KeepCurrent,
        };
        v1::LoadDeploymentRequest {
            name: self.name,
            settings: self.settings.unwrap_or_default(),
            version: self.version.unwrap_or_default(),
            others: others.into(),
        }
    }
}

impl LoadAdapterRequest {
    /// An adapter of the default deployment, as strong as it was trained.
    pub fn new(name: impl Into<String>, path: impl Into<String>) -> Self {
        Self { name: name.into(), path: path.into(), ..Self::default() }
    }

    pub(crate) fn into_proto(self) -> v1::LoadAdapterRequest {
        let Self { deployment, name, path, scale } = self;
        v1::LoadAdapterRequest { deployment: deployment.unwrap_or_default(), name, path, scale }
    }
}

impl From<v1::ReloadConfigurationResponse> for Reloaded {
    fn from(wire: v1::ReloadConfigurationResponse) -> Self {
        let v1::ReloadConfigurationResponse { loaded, unloaded, failed, needs_restart } = wire;
        let failed = failed.into_iter().map(|failed| (failed.name, failed.reason)).collect();
        Self { loaded, unloaded, failed, needs_restart }
    }
}

/// The deployment of an answer, if there is one.
pub(crate) fn loaded(wire: v1::LoadDeploymentResponse) -> Option<Deployment> {
    wire.deployment.map(Deployment::from)
}

/// The adapter of an answer, if there is one.
pub(crate) fn loaded_adapter(wire: v1::LoadAdapterResponse) -> Option<Adapter> {
    wire.adapter.map(Adapter::from)
}
