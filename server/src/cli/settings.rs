//! The configuration of a server that a command starts.

use std::path::PathBuf;

use clap::Args;

use super::CliError;
use crate::config::{DEFAULT_DEPLOYMENT, Loaded, Override, load};
use crate::engines::Engines;

/// The model that is served where nothing says otherwise, relative to the current directory or to one above the
/// program.
const SHIPPED_MODEL: &str = "models/tiny-random";

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
    /// `flags` are those of the command; `variables` is the environment. Also returns the names of variables that
    /// look like settings but are none.
    pub(super) fn load(
        &self,
        flags: Vec<Override>,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<(Loaded, Engines, Vec<String>), CliError> {
        let own = ["SMARTEDIT_CONFIG"];
        let variables = variables.filter(|(name, _)| !own.contains(&name.as_str()));
        let (mut overrides, strangers) = Override::from_env(variables);
        for assignment in &self.set {
            let setting = Override::assignment("--set", assignment)
                .ok_or_else(|| CliError::usage(format!("--set {assignment}: KEY=VALUE is needed")))?;
            overrides.push(setting);
        }
        overrides.extend(flags);
        if let Some(model) = &self.model {
            overrides.push(model_override("--model", model)?);
        }
        let Loaded { config, .. } = load(self.config.as_deref(), &overrides).map_err(CliError::usage)?;
        if config.deployments.is_empty() && self.config.is_none() {
            overrides.push(model_override("the shipped model", &shipped_model()?)?);
        }
        let loaded = load(self.config.as_deref(), &overrides).map_err(CliError::usage)?;
        let engines = Engines::configured(&loaded.config.engines);
        loaded.check(&engines).map_err(CliError::usage)?;
        Ok((loaded, engines, strangers))
    }
}

fn model_override(origin: &str, model: &std::path::Path) -> Result<Override, CliError> {
    let path = model.to_str();
    let path = path.ok_or_else(|| CliError::usage(format!("{}: is not UTF-8", model.display())))?;
    let key = format!("deployments.{DEFAULT_DEPLOYMENT}.model");
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
