//! Judging the values of a configuration.

use std::time::Duration;

use smartedit_core::model::ModelDirectory;
use smartedit_core::stage::{LoadError, StageKind};

use super::adapters::check_adapters_of;
use super::{Candidate, Config, ConfigError, DEFAULT_ROUTE, DeploymentConfig, Loaded, Placement, Problems};
use crate::engines::Engines;
use crate::security::Security;

/// Threads that may compute a stage.
const MAX_THREADS: usize = 1024;

/// The engine that is another server.
const REMOTE: &str = "remote";

/// How long a step may wait for others.
const MAX_WAIT: Duration = Duration::from_secs(60);

impl Loaded {
    /// Checks everything that is wrong wherever the server runs: limits, names, model directories, stages, engines
    /// that do not exist and options that an engine cannot take.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with everything that is wrong.
    pub fn check(&self, engines: &Engines) -> Result<(), ConfigError> {
        self.judge(self.config.problems(engines))
    }

    /// Checks also that every stage can be computed by this build on this machine. A server does not need that: it
    /// serves the deployments whose stages can.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with everything that is wrong or cannot be had.
    pub fn check_here(&self, engines: &Engines) -> Result<(), ConfigError> {
        let mut problems = self.config.problems(engines);
        for (name, deployment) in &self.config.deployments {
            check_availability(name, deployment, engines, &mut problems);
        }
        self.judge(problems)
    }

    fn judge(&self, problems: Problems) -> Result<(), ConfigError> {
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
        self.check_http(&mut problems);
        self.check_connections(&mut problems);
        self.check_security(&mut problems);
        self.check_telemetry(&mut problems);
        self.check_limits(&mut problems);
        if !crate::telemetry::is_level(&self.log.level) {
            problems.add("log.level", format!("`{}` is no level and no list of directives", self.log.level));
        }
        let timeout = self.drain.timeout_seconds;
        if std::time::Duration::try_from_secs_f64(timeout).is_err() {
            problems.add("drain.timeout_seconds", format!("{timeout} is no number of seconds"));
        }
        let delay = self.drain.delay_seconds;
        if std::time::Duration::try_from_secs_f64(delay).is_err() {
            problems.add("drain.delay_seconds", format!("{delay} is no number of seconds"));
        }
        self.check_default(&mut problems);
        self.check_adapters(&mut problems);
        for (name, deployment) in &self.deployments {
            check_deployment(name, deployment, engines, &mut problems);
        }
        self.check_routes(&mut problems);
        problems
    }

    /// Reads what encryption and access are made of.
    fn check_security(&self, problems: &mut Problems) {
        if let Err(error) = Security::new(self) {
            problems.add(error.setting(), error.reason());
        }
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
        if limits.max_compared < 2 {
            problems.add("limits.max_compared", "must be 2 or more");
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
        if limits.max_compare_bytes / 1024 > tokio::sync::Semaphore::MAX_PERMITS {
            problems.add("limits.max_compare_bytes", "is too large");
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
        if self.routes.contains_key(DEFAULT_ROUTE) {
            if self.default_deployment.is_some() {
                problems.add(
                    "default_deployment",
                    "says nothing: requests that name no deployment go to the route `default`",
                );
            }
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

/// Adds what is wrong with a deployment, wherever it be loaded.
pub(crate) fn check_deployment(
    name: &str,
    config: &DeploymentConfig,
    engines: &Engines,
    problems: &mut Problems,
) {
    let key = |key: &str| format!("deployments.{name}.{key}");
    if !DeploymentConfig::is_name(name) {
        problems.add(
            format!("deployments.{name}"),
            "a name has 1 to 64 letters, digits, hyphens, underscores or dots",
        );
    }
    let positive = [
        ("instances", config.instances == 0),
        ("max_batch", config.max_batch == 0),
        ("max_batch_pixels", config.max_batch_pixels == Some(0)),
        ("concurrency", config.concurrency == Some(0)),
    ];
    for (name, _) in positive.into_iter().filter(|(_, zero)| *zero) {
        problems.add(key(name), "must be 1 or more");
    }
    if config.instances > MAX_THREADS {
        problems.add(key("instances"), format!("must be {MAX_THREADS} or less"));
    }
    if config.max_wait() > MAX_WAIT {
        problems.add(key("max_wait_ms"), format!("must be {} or less", MAX_WAIT.as_millis()));
    }
    check_threads(&format!("deployments.{name}"), config.threads, problems);
    for (index, alternative) in config.fallback.iter().enumerate() {
        let table = key(&format!("fallback[{index}]"));
        check_alternative(&table, &alternative.0, problems);
        if alternative.0.file.is_some() {
            problems.add(
                format!("{table}.file"),
                "is for a single stage: give the stage a `fallback` of its own",
            );
        }
    }
    for (stage, placement) in &config.stages {
        let table = key(&format!("stages.{stage}"));
        check_placement(&table, placement, problems);
        for (index, alternative) in placement.fallback.iter().flatten().enumerate() {
            check_alternative(&format!("{table}.fallback[{index}]"), &alternative.0, problems);
        }
    }
    let stages = match ModelDirectory::open(&config.model) {
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
    check_candidates(name, config, &stages, engines, problems);
    check_adapters_of(name, config, problems);
}

fn check_threads(table: &str, threads: Option<usize>, problems: &mut Problems) {
    if threads.is_some_and(|threads| !(1..=MAX_THREADS).contains(&threads)) {
        let message = format!("must be 1 to {MAX_THREADS}; leave it out for as many as the engine takes");
        problems.add(format!("{table}.threads"), message);
    }
}

fn check_placement(table: &str, placement: &Placement, problems: &mut Problems) {
    check_threads(table, placement.threads, problems);
    if placement.engine.as_deref() == Some(REMOTE) {
        let Placement { device, precision, threads, .. } = placement;
        let vain = [
            ("device", device.is_some()),
            ("precision", precision.is_some()),
            ("threads", threads.is_some()),
        ];
        for (name, _) in vain.into_iter().filter(|(_, set)| *set) {
            problems.add(format!("{table}.{name}"), "is decided by the server that computes the stage");
        }
    }
    if let Some(file) = placement.file.as_ref().filter(|file| !file.is_file()) {
        problems.add(format!("{table}.file"), format!("there is no file {}", file.display()));
    }
}

fn check_alternative(table: &str, alternative: &Placement, problems: &mut Problems) {
    check_placement(table, alternative, problems);
    if alternative.fallback.is_some() {
        let message = "an alternative has none of its own: list all of them in their order";
        problems.add(format!("{table}.fallback"), message);
    }
}

/// Checks what the engines can say of everything that may compute a stage of the model, or, where those are not
/// known, any stage. A complaint about a setting of the deployment is made once, not for each stage.
fn check_candidates(
    name: &str,
    config: &DeploymentConfig,
    stages: &[StageKind],
    engines: &Engines,
    problems: &mut Problems,
) {
    let key = |key: &str| format!("deployments.{name}.{key}");
    for stage in judged(config, stages) {
        for candidate in config.candidates(stage) {
            let orphan = ["inputs", "outputs"].into_iter().find(|setting| candidate.is_set(setting));
            if let Some(setting) = orphan.filter(|_| candidate.options.program.is_none()) {
                problems.add_once(
                    key(&candidate.key(setting)),
                    "names tensors of a `file`, of which there is none",
                );
            }
            if candidate.options.remote.is_some() && candidate.engine != REMOTE {
                let message = format!("is for the engine `{REMOTE}`; this is `{}`", candidate.engine);
                problems.add_once(key(&candidate.key("remote")), message);
            }
            match engines.get(&candidate.engine).map(|backend| backend.check(stage, &candidate.options)) {
                Err(unknown) => problems.add_once(key(&candidate.key("engine")), unknown),
                Ok(Err(error @ LoadError::Option { option, .. })) => {
                    problems.add_once(key(&candidate.key(option)), error);
                }
                Ok(_) => {}
            }
        }
    }
}

/// Complains of the stages that nothing can compute here of what may.
fn check_availability(name: &str, config: &DeploymentConfig, engines: &Engines, problems: &mut Problems) {
    let directory = ModelDirectory::open(&config.model);
    let stages: Vec<_> = directory.iter().flat_map(|model| model.config().stages.keys().copied()).collect();
    for stage in judged(config, &stages) {
        let candidates = config.candidates(stage);
        let missing = |candidate: &Candidate| {
            let backend = engines.get(&candidate.engine).ok()?;
            backend.check(stage, &candidate.options).err().map(|error| (candidate.key("engine"), error))
        };
        let shortages: Vec<_> = candidates.iter().map_while(missing).collect();
        if shortages.len() == candidates.len() {
            for (key, error) in shortages {
                problems.add_once(format!("deployments.{name}.{key}"), error);
            }
        }
    }
}

/// The stages whose engines are asked: the model's and those that have a table, or all where the model's are unknown.
fn judged(config: &DeploymentConfig, stages: &[StageKind]) -> Vec<StageKind> {
    let known = |stage: &StageKind| stages.contains(stage) || config.stages.contains_key(stage);
    StageKind::ALL.into_iter().filter(|stage| stages.is_empty() || known(stage)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use smartedit_core::model::NetworkConfig;
    use smartedit_core::stage::{Backend, Stage, StageOptions};
    use smartedit_core::weights::WeightFile;

    use super::super::{Override, load};
    use super::*;

    fn complaints(text: &str) -> Vec<String> {
        complaints_on(&Engines::default(), text)
    }

    fn complaints_on(engines: &Engines, text: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("smartedit.toml");
        std::fs::write(&path, text).unwrap();
        let overrides = [Override::flag("--listen", "listen", "127.0.0.1:0")];
        match load(Some(&path), &overrides).unwrap().check_here(engines) {
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
    fn adapters_that_cannot_be() {
        let complaints = complaints(
            "[adapters]\nmax_count = 1\ndirectory = \"nowhere\"\n\
             [deployments.a]\nmodel = \"m\"\ndefault_adapter = \"x\"\n\
             [deployments.a.adapters.none]\npath = \"lora.safetensors\"\n\
             [deployments.a.adapters.b]\npath = \"/\"\nscale = 17.0\n",
        );
        one_has(&complaints, &["smartedit.toml:3: adapters.directory", "nowhere"]);
        one_has(&complaints, &["deployments.a.adapters", "are 2", "allows 1"]);
        one_has(&complaints, &["smartedit.toml:6: deployments.a.default_adapter", "`x`"]);
        one_has(&complaints, &["deployments.a.adapters.none", "want no adapter"]);
        one_has(&complaints, &["smartedit.toml:8: deployments.a.adapters.none.path", "lora.safetensors"]);
        one_has(&complaints, &["smartedit.toml:11: deployments.a.adapters.b.scale", "17"]);
    }

    #[test]
    fn routes_are_of_deployments_that_there_are() {
        let complaints = complaints(
            "default_deployment = \"a\"\n\
             [deployments.a]\nmodel = \"m\"\n\
             [deployments.b]\nmodel = \"m\"\n\
             [routes.default.weights]\na = 90\nc = 10\n\
             [routes.b]\nweights = { a = 1 }\n",
        );
        one_has(&complaints, &["smartedit.toml:1: default_deployment", "route"]);
        one_has(&complaints, &["smartedit.toml:8: routes.default.weights.c", "no deployment `c`"]);
        one_has(&complaints, &["smartedit.toml:9: routes.b", "of this name"]);
        assert!(!complaints.iter().any(|text| text.contains("weights.a")), "{complaints:#?}");
    }

    #[test]
    fn limits_that_contradict_each_other() {
        let complaints =
            complaints("[limits]\nmax_message_bytes = 1000\nmax_image_bytes = 2000\nmax_queue_bytes = 10\n");
        one_has(&complaints, &["smartedit.toml:3: limits.max_image_bytes", "1000"]);
        one_has(&complaints, &["smartedit.toml:4: limits.max_queue_bytes", "1000"]);
    }

    /// An engine that takes no `providers`, and has no device but `cpu`.
    struct Abacus;

    impl Backend for Abacus {
        fn name(&self) -> &'static str {
            "candle"
        }

        fn check(&self, stage: StageKind, options: &StageOptions) -> Result<(), LoadError> {
            let engine = self.name();
            if !options.providers.is_empty() {
                return Err(LoadError::Option {
                    engine,
                    stage,
                    option: "providers",
                    message: "none".to_owned(),
                });
            }
            if options.device != "cpu" {
                let reason = format!("no {}", options.device);
                return Err(LoadError::Unavailable { engine, stage, reason, remedy: "buy one".to_owned() });
            }
            Ok(())
        }

        fn load(
            &self,
            _: &NetworkConfig,
            _: &WeightFile,
            _: &StageOptions,
        ) -> Result<Arc<dyn Stage>, LoadError> {
            unreachable!("nothing is loaded to check a configuration")
        }
    }

    /// What is said of a deployment `a` of the shipped model on [`Abacus`].
    fn complaints_of(deployment: &str) -> Vec<String> {
        let mut engines = Engines::default();
        engines.add(Arc::new(Abacus));
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-random");
        complaints_on(&engines, &format!("[deployments.a]\nmodel = {model:?}\n{deployment}"))
    }

    #[test]
    fn settings_that_an_engine_cannot_take_are_told_where_they_were_made() {
        let complaints = complaints_of(
            "providers = [\"cuda\"]\n\
             threads = 5000\n\
             fallback = [{ engine = \"abacus\" }, { file = \"x.onnx\", fallback = [] }]\n\
             [deployments.a.stages.denoiser]\n\
             inputs = { sample = \"x\" }\n\
             [deployments.a.stages.vae_decoder]\n\
             file = \"nowhere.onnx\"\n\
             fallback = [\"torch\", { threads = 0 }]\n",
        );
        one_has(&complaints, &["smartedit.toml:3: deployments.a.providers", "`candle`"]);
        one_has(&complaints, &["smartedit.toml:4: deployments.a.threads", "1024"]);
        one_has(&complaints, &["smartedit.toml:5: deployments.a.fallback[0].engine", "`abacus`"]);
        one_has(&complaints, &["smartedit.toml:5: deployments.a.fallback[1].file", "single stage"]);
        one_has(&complaints, &["smartedit.toml:5: deployments.a.fallback[1].fallback", "list all"]);
        one_has(&complaints, &["smartedit.toml:7: deployments.a.stages.denoiser.inputs", "`file`"]);
        one_has(&complaints, &["smartedit.toml:9: deployments.a.stages.vae_decoder.file", "nowhere.onnx"]);
        one_has(&complaints, &["smartedit.toml:10: deployments.a.stages.vae_decoder.fallback[1].threads"]);
        assert_eq!(
            complaints.iter().filter(|text| text.contains("a.providers")).count(),
            1,
            "{complaints:#?}"
        );
    }

    #[test]
    fn a_stage_on_another_server_says_so_and_how() {
        let complaints = complaints_of(
            "[deployments.a.stages.denoiser]\n\
             remote = { url = \"http://b:1\", model = \"m\" }\n\
             [deployments.a.stages.vae_decoder]\n\
             engine = \"remote\"\n\
             device = \"cpu\"\n",
        );
        one_has(&complaints, &["smartedit.toml:4: deployments.a.stages.denoiser.remote", "`candle`"]);
        one_has(&complaints, &["smartedit.toml:7: deployments.a.stages.vae_decoder.device", "server"]);
    }

    #[test]
    fn what_cannot_be_had_is_told_unless_something_instead_can() {
        let complaints = complaints_of("device = \"cuda:0\"\nfallback = [\"torch\"]\n");
        one_has(&complaints, &["deployments.a.engine", "no cuda:0", "buy one"]);
        one_has(&complaints, &["smartedit.toml:4: deployments.a.fallback[0].engine", "--features torch"]);
        assert_eq!(complaints.len(), 2, "{complaints:#?}");
    }

    #[test]
    fn settings_from_outside_the_file_are_told_with_their_origin() {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-random");
        let overrides = [
            Override::flag("--model", "deployments.a.model", format!("{model:?}")),
            Override::flag("--set x", "deployments.a.fallback", "[\"abacus\"]"),
        ];
        let loaded = load(None, &overrides).unwrap();
        let Err(ConfigError::Invalid(problems)) = loaded.check(&Engines::default()) else {
            panic!("an abacus is no engine")
        };
        let complaints: Vec<_> = problems.iter().map(ToString::to_string).collect();
        one_has(&complaints, &["--set x: deployments.a.fallback[0].engine", "`abacus`"]);
        assert_eq!(complaints.len(), 1, "that an engine is not built in is no mistake: {complaints:#?}");
    }
}
