//! Judging the values of a configuration.

use smartedit_core::model::ModelDirectory;
use smartedit_core::stage::StageKind;

use super::{Config, ConfigError, DeploymentConfig, Loaded, Problems};
use crate::engines::Engines;

impl Loaded {
    /// Checks everything that can be known before anything is loaded: limits, names, model directories, stages,
    /// engines and devices.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with everything that is wrong.
    pub fn check(&self, engines: &Engines) -> Result<(), ConfigError> {
        let problems = self.config.problems(engines);
        if problems.is_empty() {
            return Ok(());
        }
        Err(ConfigError::Invalid(problems.locate(&self.origins)))
    }
}

impl Config {
    /// Everything that is wrong with the values.
    pub fn problems(&self, engines: &Engines) -> Problems {
        let mut problems = Problems::default();
        self.check_limits(&mut problems);
        if !crate::telemetry::is_level(&self.log.level) {
            problems.add("log.level", format!("`{}` is no level and no list of directives", self.log.level));
        }
        let timeout = self.drain.timeout_seconds;
        if std::time::Duration::try_from_secs_f64(timeout).is_err() {
            problems.add("drain.timeout_seconds", format!("{timeout} is no number of seconds"));
        }
        self.check_default(&mut problems);
        for (name, deployment) in &self.deployments {
            check_deployment(name, deployment, engines, &mut problems);
        }
        problems
    }

    fn check_limits(&self, problems: &mut Problems) {
        let limits = &self.limits;
        let positive = [
            ("max_message_bytes", limits.max_message_bytes == 0),
            ("max_image_bytes", limits.max_image_bytes == 0),
            ("max_image_pixels", limits.max_image_pixels == 0),
            ("max_steps", limits.max_steps == 0),
            ("max_instruction_chars", limits.max_instruction_chars == 0),
            ("max_queue_bytes", limits.max_queue_bytes == 0),
            ("max_concurrent", limits.max_concurrent == 0),
        ];
        for (key, _) in positive.into_iter().filter(|(_, zero)| *zero) {
            problems.add(format!("limits.{key}"), "must be 1 or more");
        }
        if limits.max_edit_side < 8 {
            problems.add("limits.max_edit_side", "must be 8 or more");
        }
        if limits.max_edit_pixels < 64 {
            problems.add("limits.max_edit_pixels", "must be 64 or more");
        }
        if limits.max_image_bytes > limits.max_message_bytes {
            problems.add(
                "limits.max_image_bytes",
                format!("exceeds max_message_bytes = {}, which a request must fit", limits.max_message_bytes),
            );
        }
        if limits.max_queue_bytes < limits.max_message_bytes {
            problems.add(
                "limits.max_queue_bytes",
                format!(
                    "is less than max_message_bytes = {}: one request must fit",
                    limits.max_message_bytes
                ),
            );
        }
        if limits.max_concurrent > tokio::sync::Semaphore::MAX_PERMITS {
            problems.add("limits.max_concurrent", "is too large");
        }
    }

    fn check_default(&self, problems: &mut Problems) {
        if self.deployments.is_empty() {
            problems.add("deployments", "there is none; add a table `[deployments.NAME]` with a `model`");
            return;
        }
        match self.default_deployment() {
            None => problems.add("default_deployment", "must be set where there are several deployments"),
            Some(name) if !self.deployments.contains_key(name) => {
                problems.add("default_deployment", format!("there is no deployment `{name}`"));
            }
            Some(_) => {}
        }
    }
}

fn check_deployment(name: &str, config: &DeploymentConfig, engines: &Engines, problems: &mut Problems) {
    let key = |key: &str| format!("deployments.{name}.{key}");
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        problems.add(
            format!("deployments.{name}"),
            "a name has 1 to 64 letters, digits, hyphens, underscores or dots",
        );
    }
    if config.instances == 0 {
        problems.add(key("instances"), "must be 1 or more");
    }
    if config.threads == Some(0) {
        problems.add(key("threads"), "must be 1 or more; leave it out for all cores");
    }
    let stages: Vec<StageKind> = match ModelDirectory::open(&config.model) {
        Ok(directory) => directory.config().stages.keys().copied().collect(),
        Err(error) => {
            problems.add(key("model"), error);
            Vec::new()
        }
    };
    if !stages.is_empty() {
        for stage in config.stages.keys().filter(|stage| !stages.contains(stage)) {
            let names: Vec<_> = stages.iter().map(|stage| stage.name()).collect();
            problems.add(
                key(&format!("stages.{stage}")),
                format!("the model has no such stage; it has {}", names.join(", ")),
            );
        }
    }
    check_engines(name, config, &stages, engines, problems);
}

/// Checks the engines of the model's stages, or, where those are not known, the engines that are named. A
/// complaint about the deployment's own engine is made once, not for each stage.
fn check_engines(
    name: &str,
    config: &DeploymentConfig,
    stages: &[StageKind],
    engines: &Engines,
    problems: &mut Problems,
) {
    let mut complaints: Vec<(String, String)> = Vec::new();
    let mut complain = |key: String, message: String| {
        if !complaints.iter().any(|(other, _)| *other == key) {
            complaints.push((key, message));
        }
    };
    if let Err(error) = engines.get(&config.engine) {
        complain(format!("deployments.{name}.engine"), error.to_string());
    }
    let named = config.stages.keys().filter(|stage| !stages.contains(stage));
    for stage in stages.iter().chain(named) {
        let (engine, options) = config.stage(*stage);
        let own = config.stages.get(stage).is_some_and(|own| own.engine.is_some());
        let table = match config.stages.contains_key(stage) {
            true => format!("deployments.{name}.stages.{stage}"),
            false => format!("deployments.{name}"),
        };
        match engines.get(engine) {
            Err(error) if own => complain(format!("{table}.engine"), error.to_string()),
            Err(_) => {}
            Ok(backend) => {
                if let Err(error) = backend.check(*stage, &options) {
                    complain(table, error.to_string());
                }
            }
        }
    }
    for (key, message) in complaints {
        problems.add(key, message);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Override, load};
    use super::*;

    fn complaints(text: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("smartedit.toml");
        std::fs::write(&path, text).unwrap();
        let overrides = [Override::flag("--listen", "listen", "127.0.0.1:0")];
        match load(Some(&path), &overrides).unwrap().check(&Engines::default()) {
            Err(ConfigError::Invalid(problems)) => problems.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn one_has(complaints: &[String], words: &[&str]) {
        let found = complaints.iter().any(|complaint| words.iter().all(|word| complaint.contains(word)));
        assert!(found, "{words:?} in {complaints:#?}");
    }

    #[test]
    fn everything_is_told_at_once_with_its_line() {
        let complaints = complaints(
            "default_deployment = \"c\"\n\
             [limits]\n\
             max_steps = 0\n\
             [log]\n\
             level = \"loud\"\n\
             [deployments.a]\n\
             model = \"nowhere\"\n\
             engine = \"torch\"\n\
             [deployments.b]\n\
             model = \"elsewhere\"\n\
             threads = 0\n\
             [deployments.b.stages.denoiser]\n\
             engine = \"abacus\"\n",
        );
        one_has(&complaints, &["smartedit.toml:1: default_deployment", "`c`"]);
        one_has(&complaints, &["smartedit.toml:3: limits.max_steps"]);
        one_has(&complaints, &["smartedit.toml:5: log.level", "loud"]);
        one_has(&complaints, &["smartedit.toml:7: deployments.a.model", "nowhere"]);
        one_has(&complaints, &["smartedit.toml:8: deployments.a.engine", "--features torch"]);
        one_has(&complaints, &["smartedit.toml:10: deployments.b.model", "elsewhere"]);
        one_has(&complaints, &["smartedit.toml:11: deployments.b.threads"]);
        one_has(&complaints, &["smartedit.toml:13: deployments.b.stages.denoiser.engine", "abacus"]);
    }

    #[test]
    fn a_server_without_deployments_is_none() {
        one_has(&complaints(""), &["deployments", "[deployments.NAME]"]);
    }

    #[test]
    fn several_deployments_need_a_default() {
        let complaints = complaints("[deployments.a]\nmodel = \"m\"\n[deployments.b]\nmodel = \"m\"\n");
        one_has(&complaints, &["default_deployment", "several"]);
    }

    #[test]
    fn limits_that_contradict_each_other() {
        let complaints =
            complaints("[limits]\nmax_message_bytes = 1000\nmax_image_bytes = 2000\nmax_queue_bytes = 10\n");
        one_has(&complaints, &["smartedit.toml:3: limits.max_image_bytes", "1000"]);
        one_has(&complaints, &["smartedit.toml:4: limits.max_queue_bytes", "1000"]);
    }
}
