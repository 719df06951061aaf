//! Reading a configuration file and laying overrides over it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::{Config, Origins, Problems};

/// Prefix of the environment variables that override settings.
const PREFIX: &str = "SMARTEDIT_";

/// Separates the parts of a key in the name of a variable, as in `SMARTEDIT_LIMITS__MAX_STEPS`.
const SEPARATOR: &str = "__";

/// Keys outside of deployments whose values are files.
const FILES: [&str; 6] =
    ["tls.certificate", "tls.key", "tls.client_ca", "auth.keys_file", "auth.keys.*.file", "auth.jwt.jwks"];

/// A configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file is no TOML, or has a key or a type that the configuration has not.
    #[error("{}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, key and what is wrong.
        message: String,
    },
    /// An override has a key or a type that the configuration has not.
    #[error("{origin}: {message}")]
    Override {
        /// The variable or flag.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// Values that cannot be.
    #[error("invalid configuration: {0}")]
    Invalid(Problems),
}

/// One setting from outside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The key, dotted.
    pub key: String,
    /// The value: TOML, or a bare string.
    pub value: String,
    /// The variable or flag, for messages.
    pub origin: String,
}

impl Override {
    /// A setting made by a flag.
    pub fn flag(flag: &str, key: &str, value: impl ToString) -> Self {
        Self { key: key.to_owned(), value: value.to_string(), origin: flag.to_owned() }
    }

    /// The setting of an argument `KEY=VALUE`; `None` if it has no `=`.
    pub fn assignment(flag: &str, argument: &str) -> Option<Self> {
        let (key, value) = argument.split_once('=')?;
        Some(Self::flag(&format!("{flag} {key}"), key.trim(), value.trim()))
    }

    /// The settings among environment variables. Variables that begin with the prefix but name no key are not
    /// ours to judge: they are returned by name, to be warned of.
    pub fn from_env(variables: impl Iterator<Item = (String, String)>) -> (Vec<Self>, Vec<String>) {
        let (mut overrides, mut strangers) = (Vec::new(), Vec::new());
        let mut variables: Vec<_> = variables.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        variables.sort();
        for (name, value) in variables {
            let key = name[PREFIX.len()..].to_lowercase().replace(SEPARATOR, ".");
            let root = key.split('.').next().unwrap_or_default();
            if [
                "listen",
                "http",
                "connections",
                "tls",
                "auth",
                "default_deployment",
                "limits",
                "cache",
                "log",
                "telemetry",
                "drain",
                "admin",
                "adapters",
                "deployments",
                "engines",
                "routes",
            ]
            .contains(&root)
            {
                overrides.push(Self { key, value, origin: name });
            } else {
                strangers.push(name);
            }
        }
        (overrides, strangers)
    }
}

/// A configuration and where its settings were made.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Where its settings were made.
    pub origins: Origins,
}

/// Reads a file, if there is one, and lays the overrides over it in their order.
///
/// # Errors
///
/// The first thing that does not fit the configuration's form, with its line or variable; values are not judged.
pub fn load(file: Option<&Path>, overrides: &[Override]) -> Result<Loaded, ConfigError> {
    let (mut table, mut origins) = match file {
        Some(path) => read(path)?,
        None => (Table::new(), Origins::default()),
    };
    for setting in overrides {
        table = apply(&table, setting)?;
        origins.set(&setting.key, &setting.origin);
    }
    // A table from a file has passed as it is; one without overrides has passed nothing yet.
    let config = Config::deserialize(table).map_err(|error| ConfigError::Override {
        origin: "configuration".to_owned(),
        message: one_line(&error),
    })?;
    Ok(Loaded { config, origins })
}

fn read(path: &Path) -> Result<(Table, Origins), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let parse = |error: toml::de::Error| ConfigError::Parse {
        path: path.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    };
    toml::from_str::<Config>(&text).map_err(parse)?;
    let mut table: Table = toml::from_str(&text).map_err(parse)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    FILES.into_iter().for_each(|key| rebase_key(&mut table, key, directory));
    if let Some(Value::Table(deployments)) = table.get_mut("deployments") {
        deployments.iter_mut().for_each(|(_, deployment)| rebase(deployment, directory));
    }
    if let Some(Value::String(path)) = table.get_mut("adapters").and_then(|value| value.get_mut("directory"))
    {
        *path = directory.join(&*path).to_string_lossy().into_owned();
    }
    Ok((table, Origins::of_file(&path.display().to_string(), &text)))
}

/// Makes the path under a key, if there is one, relative to a directory; `*` is every key.
fn rebase_key(table: &mut Table, key: &str, directory: &Path) {
    let (outer, inner) = key.split_once('.').map_or((key, None), |(outer, inner)| (outer, Some(inner)));
    for (_, value) in table.iter_mut().filter(|(name, _)| outer == "*" || *name == outer) {
        match (inner, value) {
            (Some(inner), Value::Table(table)) => rebase_key(table, inner, directory),
            (None, Value::String(path)) => *path = directory.join(&*path).to_string_lossy().into_owned(),
            _ => {}
        }
    }
}

/// Makes the paths of a deployment relative to a directory: its `model`, the `file` of stages and alternatives, and
/// the `path` of adapters.
fn rebase(value: &mut Value, directory: &Path) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| rebase(value, directory)),
        Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                match (key.as_str(), value) {
                    ("model" | "file" | "path", Value::String(path)) => {
                        *path = directory.join(&*path).to_string_lossy().into_owned();
                    }
                    // Names of tensors and of providers' options, which no path stands in.
                    ("inputs" | "outputs" | "providers", _) => {}
                    ("remote", Value::Table(remote)) => rebase_remote(remote, directory),
                    (_, value) => rebase(value, directory),
                }
            }
        }
        _ => {}
    }
}

/// The same of the files of a stage on another server.
fn rebase_remote(remote: &mut Table, directory: &Path) {
    let join = |path: &mut Value| {
        if let Value::String(path) = path {
            *path = directory.join(&*path).to_string_lossy().into_owned();
        }
    };
    remote.get_mut("token_file").map(join);
    if let Some(Value::Table(tls)) = remote.get_mut("tls") {
        for key in ["ca", "certificate", "key"] {
            tls.get_mut(key).map(join);
        }
    }
}

/// The table with one more setting, which is a TOML value if it fits as one, else a string.
fn apply(table: &Table, setting: &Override) -> Result<Table, ConfigError> {
    let refuse = |message: String| ConfigError::Override { origin: setting.origin.clone(), message };
    let parsed = toml::from_str::<Table>(&format!("value = {}", setting.value));
    let parsed = parsed.ok().and_then(|mut parsed| parsed.remove("value"));
    let text = Value::String(setting.value.clone());
    let mut first = None;
    for value in parsed.into_iter().chain([text]) {
        let mut table = table.clone();
        if !insert(&mut table, &setting.key, value) {
            return Err(refuse(format!("`{}` is no key of the configuration", setting.key)));
        }
        match Config::deserialize(table.clone()) {
            Ok(_) => return Ok(table),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(refuse(first.as_ref().map(one_line).unwrap_or_default()))
}

/// Whether the value could be set: every part of the key but the last must be a table, or nothing yet.
fn insert(table: &mut Table, key: &str, value: Value) -> bool {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            true
        }
        Some((outer, inner)) => {
            let slot = table.entry(outer.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            slot.as_table_mut().is_some_and(|table| insert(table, inner, value))
        }
    }
}

fn one_line(error: &toml::de::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::LogFormat;
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("smartedit.toml");
        std::fs::write(&path, text).unwrap();
        (directory, path)
    }

    fn env(variables: &[(&str, &str)]) -> (Vec<Override>, Vec<String>) {
        Override::from_env(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn the_file_is_overridden_by_variables_and_those_by_flags() {
        let (directory, path) = file(
            "listen = \"127.0.0.1:1\"\n[limits]\nmax_steps = 1\nmax_queue = 1\n[deployments.a]\nmodel = \"m\"\n",
        );
        let (mut overrides, _) = env(&[
            ("SMARTEDIT_LIMITS__MAX_STEPS", "2"),
            ("SMARTEDIT_LIMITS__MAX_QUEUE", "2"),
            ("SMARTEDIT_LOG__FORMAT", "json"),
            ("SMARTEDIT_DEPLOYMENTS__B__MODEL", "n"),
        ]);
        overrides.push(Override::assignment("--set", "limits.max_steps = 3").unwrap());
        let config = load(Some(&path), &overrides).unwrap().config;
        assert_eq!((config.limits.max_steps, config.limits.max_queue), (3, 2));
        assert_eq!(config.log.format, LogFormat::Json);
        assert_eq!(config.listen.port(), 1);
        assert_eq!(config.deployments["a"].model, directory.path().join("m"));
        assert_eq!(config.deployments["b"].model, Path::new("n"));
    }

    #[test]
    fn paths_in_a_file_are_relative_to_it() {
        let (directory, path) = file(
            "[deployments.a]\nmodel = \"m\"\n\
             [deployments.a.stages.denoiser]\nfile = \"unet.onnx\"\ninputs = { file = \"x\" }\n\
             fallback = [{ engine = \"torch\", file = \"/unet.pt\" }, { file = \"small.onnx\" }]\n\
             [deployments.a.adapters.model]\npath = \"x\"\n[adapters]\ndirectory = \"loras\"\n",
        );
        let config = load(Some(&path), &[]).unwrap().config;
        assert_eq!(config.deployments["a"].adapters["model"].path, directory.path().join("x"));
        assert_eq!(config.adapters.directory, Some(directory.path().join("loras")));
        let stage = &config.deployments["a"].stages[&smartedit_core::stage::StageKind::Denoiser];
        assert_eq!(stage.file.as_deref(), Some(directory.path().join("unet.onnx").as_path()));
        assert_eq!(stage.inputs.as_ref().unwrap()["file"], "x");
        let files = stage.fallback.iter().flatten().map(|alternative| alternative.0.file.clone().unwrap());
        let expected = [PathBuf::from("/unet.pt"), directory.path().join("small.onnx")];
        assert_eq!(files.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn files_of_keys_and_certificates_are_relative_to_it_too() {
        let (directory, path) = file(
            "[tls]\ncertificate = \"a.pem\"\nkey = \"/a.key\"\n[auth]\nkeys_file = \"keys.toml\"\n\
             [auth.keys.a]\nfile = \"a\"\n[auth.keys.b]\nfile = \"b\"\n[auth.jwt]\njwks = \"jwks.json\"\n",
        );
        let Config { tls: Some(tls), auth: Some(auth), .. } = load(Some(&path), &[]).unwrap().config else {
            panic!("tables are missing");
        };
        let here = |name: &str| Some(directory.path().join(name));
        assert_eq!((tls.certificate, tls.key), (here("a.pem"), Some(PathBuf::from("/a.key"))));
        assert_eq!((&auth.keys["a"].file, &auth.keys["b"].file), (&here("a"), &here("b")));
        assert_eq!((auth.keys_file, auth.jwt.unwrap().jwks), (here("keys.toml"), here("jwks.json")));
    }

    #[test]
    fn files_of_a_stage_on_another_server_are_relative_too() {
        let (directory, path) = file(
            "[deployments.a]\nmodel = \"m\"\n[deployments.a.stages.denoiser]\nengine = \"remote\"\n\
             remote = { url = \"https://b:1\", model = \"x/y\", token_file = \"token\", tls = { ca = \"ca.pem\" } }\n",
        );
        let config = load(Some(&path), &[]).unwrap().config;
        let stage = &config.deployments["a"].stages[&smartedit_core::stage::StageKind::Denoiser];
        let remote = stage.remote.as_ref().unwrap();
        assert_eq!(remote.model, "x/y");
        assert_eq!(remote.token_file.as_deref(), Some(directory.path().join("token").as_path()));
        assert_eq!(remote.tls.ca.as_deref(), Some(directory.path().join("ca.pem").as_path()));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let (_directory, path) = file("[limits]\nmax_steps = 1\nmax_stops = 2\n");
        let message = load(Some(&path), &[]).unwrap_err().to_string();
        assert!(message.contains("max_stops") && message.contains("line 3"), "{message}");
    }

    #[test]
    fn a_wrong_type_is_named_with_its_line() {
        let (_directory, path) = file("listen = \"127.0.0.1:1\"\n[limits]\nmax_steps = \"many\"\n");
        let message = load(Some(&path), &[]).unwrap_err().to_string();
        assert!(message.contains("max_steps") && message.contains("line 3"), "{message}");
    }

    #[test]
    fn a_bad_override_is_named() {
        let (overrides, _) = env(&[("SMARTEDIT_LIMITS__MAX_STEPS", "many")]);
        let message = load(None, &overrides).unwrap_err().to_string();
        assert!(message.starts_with("SMARTEDIT_LIMITS__MAX_STEPS: "), "{message}");
        assert!(message.contains("invalid type"), "{message}");

        let flag = Override::assignment("--set", "limits.max_stops=1").unwrap();
        let message = load(None, &[flag]).unwrap_err().to_string();
        assert!(message.contains("--set limits.max_stops") && message.contains("unknown field"), "{message}");
    }

    #[test]
    fn variables_of_others_are_left_alone() {
        let (overrides, strangers) = env(&[("SMARTEDIT_GOLDEN_PACK", "x"), ("PATH", "y")]);
        assert_eq!((overrides.len(), strangers), (0, vec!["SMARTEDIT_GOLDEN_PACK".to_owned()]));
    }

    #[test]
    fn a_string_that_looks_like_a_number_can_be_given() {
        let (overrides, _) = env(&[("SMARTEDIT_DEFAULT_DEPLOYMENT", "7")]);
        assert_eq!(load(None, &overrides).unwrap().config.default_deployment.as_deref(), Some("7"));
    }
}
