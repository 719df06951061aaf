//! The configuration of a server that a command starts.

use std::path::{Path, PathBuf};

use clap::Args;

use super::CliError;
use crate::config::{Config, DEFAULT_DEPLOYMENT, Loaded, Override, load};
use crate::engines::Engines;

/// The model that is served where nothing says otherwise, relative to the current directory or to one above the
/// program.
const SHIPPED_MODEL: &str = "models/emoji";

/// How the server is configured: a file, overridden by variables `SMARTEDIT_KEY` (parts of a key joined by `__`),
/// overridden by flags.
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "SMARTEDIT_CONFIG")]
    config: Option<PathBuf>,
    /// Model directory to serve as deployment `default`
    #[arg(long, short, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Override a key of the configuration, such as `limits.max_steps=50`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Settings {
    /// The configuration, checked, and the engines it configures.
    ///
    /// `flags` are those of the command; `variables` is the environment. Of `deployments`, those that are engines' names
    /// and not configured become deployments of the default one's model on that engine, all else by default. Returns the
    /// names of variables that look like settings but are none.
    pub(super) fn load(
        &self,
        flags: Vec<Override>,
        variables: impl Iterator<Item = (String, String)>,
        deployments: &[String],
    ) -> Result<(Loaded, Engines, Vec<String>), CliError> {
        let own = ["SMARTEDIT_CONFIG", "SMARTEDIT_API_KEY"];
        let variables = variables.filter(|(name, _)| !own.contains(&name.as_str()));
        let (mut overrides, strangers) = Override::from_env(variables);
        for assignment in &self.set {
            let setting = Override::assignment("--set", assignment)
                .ok_or_else(|| CliError::usage(format!("--set {assignment}: KEY=VALUE is needed")))?;
            overrides.push(setting);
        }
        overrides.extend(flags);
        if let Some(model) = &self.model {
            overrides.push(model_override("--model", DEFAULT_DEPLOYMENT, model)?);
        }
        let Loaded { config, .. } = load(self.config.as_deref(), &overrides).map_err(CliError::usage)?;
        if config.deployments.is_empty() && self.config.is_none() {
            overrides.push(model_override("the shipped model", DEFAULT_DEPLOYMENT, &shipped_model()?)?);
        }
        let Loaded { config, .. } = load(self.config.as_deref(), &overrides).map_err(CliError::usage)?;
        overrides.extend(on_engines(&config, deployments)?);
        let loaded = load(self.config.as_deref(), &overrides).map_err(CliError::usage)?;
        let engines = Engines::configured(&loaded.config.engines);
        loaded.check(&engines).map_err(CliError::usage)?;
        Ok((loaded, engines, strangers))
    }
}

/// What makes deployments of engines' names.
fn on_engines(config: &Config, names: &[String]) -> Result<Vec<Override>, CliError> {
    let Some(default) = config.default_deployment() else { return Ok(Vec::new()) };
    let Some(deployment) = config.deployments.get(default) else { return Ok(Vec::new()) };
    let mut overrides = Vec::new();
    for name in names.iter().filter(|name| Engines::exists(name)) {
        if !config.deployments.contains_key(name) {
            let origin = format!("--deployment {name}");
            overrides.push(model_override(&origin, name, &deployment.model)?);
            overrides.push(Override::flag(&origin, &format!("deployments.{name}.engine"), name));
            overrides.push(Override::flag(&origin, "default_deployment", default));
        }
    }
    Ok(overrides)
}

fn model_override(origin: &str, deployment: &str, model: &Path) -> Result<Override, CliError> {
    let path = model.to_str();
    let path = path.ok_or_else(|| CliError::usage(format!("{}: is not UTF-8", model.display())))?;
    let key = format!("deployments.{deployment}.model");
    Ok(Override::flag(origin, &key, toml::Value::from(path)))
}

/// The model that ships with the program.
fn shipped_model() -> Result<PathBuf, CliError> {
    let program = std::env::current_exe().unwrap_or_default();
    let places = std::iter::once(PathBuf::new()).chain(program.ancestors().skip(1).map(PathBuf::from));
    let found = places.map(|place| place.join(SHIPPED_MODEL)).find(|path| path.is_dir());
    found.ok_or_else(|| {
        CliError::usage(format!("nothing to serve: give --config or --model ({SHIPPED_MODEL} is not here)"))
    })
}
