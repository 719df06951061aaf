//! What is configured of LoRA adapters.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Config, DeploymentConfig, Problems};

/// What a request says that wants no adapter, not even the deployment's default one.
pub const NO_ADAPTER: &str = "none";

/// How strong an adapter may be, either way.
pub const MAX_ADAPTER_SCALE: f32 = 16.0;

/// What bounds the adapters of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptersConfig {
    /// The directory from which adapters may be loaded at run time; in a file, relative to the file. Without it, none
    /// may.
    pub directory: Option<PathBuf>,
    /// Adapters of a deployment.
    pub max_count: usize,
    /// Bytes of the files of a deployment's adapters, together.
    pub max_bytes: u64,
}

impl Default for AdaptersConfig {
    fn default() -> Self {
        Self { directory: None, max_count: 16, max_bytes: 1 << 30 }
    }
}

/// An adapter of a deployment.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterConfig {
    /// A safetensors file, or the directory in which PEFT or diffusers have written it; in a file, relative to the file.
    pub path: PathBuf,
    /// How strong it is: 1 as it was trained.
    #[serde(default = "as_trained")]
    pub scale: f32,
}

const fn as_trained() -> f32 {
    1.0
}

impl Config {
    pub(super) fn check_adapters(&self, problems: &mut Problems) {
        if let Some(directory) = self.adapters.directory.as_ref().filter(|directory| !directory.is_dir()) {
            problems.add("adapters.directory", format!("there is no directory {}", directory.display()));
        }
        let limit = self.adapters.max_count;
        for (name, DeploymentConfig { adapters, .. }) in &self.deployments {
            if adapters.len() > limit {
                let message = format!("are {}, adapters.max_count allows {limit}", adapters.len());
                problems.add(format!("deployments.{name}.adapters"), message);
            }
        }
    }
}

/// Checks the adapters of a deployment, all but how many there are.
pub(super) fn check_adapters_of(name: &str, deployment: &DeploymentConfig, problems: &mut Problems) {
    let DeploymentConfig { adapters, default_adapter, .. } = deployment;
    for (adapter, AdapterConfig { path, scale }) in adapters {
        let table = format!("deployments.{name}.adapters.{adapter}");
        if let Err(message) = check_adapter_name(adapter) {
            problems.add(table.clone(), message);
        }
        if let Err(message) = check_adapter_scale(*scale) {
            problems.add(format!("{table}.scale"), message);
        }
        if !path.exists() {
            problems.add(format!("{table}.path"), format!("there is no file {}", path.display()));
        }
    }
    if let Some(default) = default_adapter.as_ref().filter(|default| !adapters.contains_key(*default)) {
        let message = format!("there is no adapter `{default}`");
        problems.add(format!("deployments.{name}.default_adapter"), message);
    }
}

/// Whether an adapter may be called so.
///
/// # Errors
///
/// What a name is.
pub(crate) fn check_adapter_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err("a name has 1 to 64 letters, digits, hyphens, underscores or dots".to_owned());
    }
    if name == NO_ADAPTER {
        return Err(format!("`{NO_ADAPTER}` is what requests say that want no adapter"));
    }
    Ok(())
}

/// Whether an adapter may be so strong.
///
/// # Errors
///
/// How strong it may be.
pub(crate) fn check_adapter_scale(scale: f32) -> Result<(), String> {
    if scale.abs() <= MAX_ADAPTER_SCALE {
        return Ok(());
    }
    Err(format!("is {scale}, -{MAX_ADAPTER_SCALE} to {MAX_ADAPTER_SCALE} is allowed"))
}
