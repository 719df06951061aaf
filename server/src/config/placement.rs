//! Placement: on which engine, device and threads the stages of a deployment are computed, and on what instead.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};
use serde_untagged::UntaggedEnumVisitor;
use smartedit_core::engine::Precision;
use smartedit_core::stage::{GraphOptimization, Program, Provider, Remote, StageKind, StageOptions};

use super::DeploymentConfig;

/// What a stage, or an alternative, has different from what it stands in for.
///
/// `providers`, `graph_optimization`, `file`, `inputs`, `outputs` and `remote` belong to an engine: where another one is
/// chosen, they begin anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Placement {
    /// The engine.
    pub engine: Option<String>,
    /// The device.
    pub device: Option<String>,
    /// Element type of weights and activations.
    pub precision: Option<Precision>,
    /// Threads that compute the stage.
    pub threads: Option<usize>,
    /// Execution providers of ONNX Runtime, in order of preference.
    pub providers: Option<Vec<ProviderConfig>>,
    /// How far ONNX Runtime rewrites the graph.
    pub graph_optimization: Option<GraphOptimization>,
    /// The user's own program for the stage; in a configuration file, relative to that file.
    pub file: Option<PathBuf>,
    /// The program's names of the stage's inputs, where they differ.
    pub inputs: Option<BTreeMap<String, String>>,
    /// The program's names of the stage's outputs, where they differ.
    pub outputs: Option<BTreeMap<String, String>>,
    /// The model of another server that computes the stage.
    pub remote: Option<Remote>,
    /// What computes the stage instead, in order of preference, where this cannot be had. Takes the place of the
    /// deployment's; an alternative has none of its own.
    pub fallback: Option<Vec<Alternative>>,
}

/// One way out: the name of an engine, or a table of what is different.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alternative(pub Placement);

impl<'de> Deserialize<'de> for Alternative {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        UntaggedEnumVisitor::new()
            .expecting("the name of an engine, or a table")
            .string(|engine| Ok(Self(Placement { engine: Some(engine.to_owned()), ..Placement::default() })))
            .map(|table| table.deserialize().map(Self))
            .deserialize(deserializer)
    }
}

/// An execution provider: its name, or a table with its `name` and `options`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderConfig(pub Provider);

impl<'de> Deserialize<'de> for ProviderConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        UntaggedEnumVisitor::new()
            .expecting("the name of an execution provider, or a table with `name` and `options`")
            .string(|name| Ok(Self(Provider { name: name.to_owned(), options: BTreeMap::new() })))
            .map(|table| {
                let ProviderTable { name, options } = table.deserialize()?;
                let options = options.into_iter().map(|(option, Scalar(value))| (option, value)).collect();
                Ok(Self(Provider { name, options }))
            })
            .deserialize(deserializer)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderTable {
    name: String,
    #[serde(default)]
    options: BTreeMap<String, Scalar>,
}

/// A provider's option, which ONNX Runtime takes as a string: `device_id = 1` is `device_id = "1"`.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        UntaggedEnumVisitor::new()
            .expecting("a string, a number, or `true` or `false`")
            .string(|text| Ok(Self(text.to_owned())))
            .i64(|number| Ok(Self(number.to_string())))
            .f64(|number| Ok(Self(number.to_string())))
            .bool(|truth| Ok(Self(truth.to_string())))
            .deserialize(deserializer)
    }
}

/// One way to compute a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The engine's name.
    pub engine: String,
    /// Device, precision and everything else.
    pub options: StageOptions,
    /// Where it stands in the deployment's table: empty, or a dotted key with a dot at its end.
    place: String,
    /// The place in which each setting was made, where one was made.
    set_in: BTreeMap<&'static str, String>,
}

/// What a deployment sets for all of its stages.
const SETTINGS: [&str; 6] = ["engine", "device", "precision", "threads", "providers", "graph_optimization"];

impl Candidate {
    /// The dotted key of a setting in the deployment's table.
    pub(super) fn key(&self, setting: &str) -> String {
        format!("{}{setting}", self.set_in.get(setting).unwrap_or(&self.place))
    }

    /// Whether a setting was made.
    pub(super) fn is_set(&self, setting: &str) -> bool {
        self.set_in.contains_key(setting)
    }

    /// The same with what a placement has different, which stands in this place.
    fn with(&self, own: &Placement, place: String) -> Self {
        let mut candidate = Self { place: place.clone(), ..self.clone() };
        if own.engine.as_ref().is_some_and(|engine| *engine != self.engine) {
            let StageOptions { providers, graph_optimization, program, remote, .. } = StageOptions::default();
            let options = &mut candidate.options;
            (options.providers, options.graph_optimization, options.program, options.remote) =
                (providers, graph_optimization, program, remote);
            candidate.set_in.retain(|setting, _| !["file", "inputs", "outputs", "remote"].contains(setting));
        }
        let Placement { engine, device, precision, threads, providers, graph_optimization, .. } = own;
        let mut set = |setting, given: bool| {
            if given {
                candidate.set_in.insert(setting, place.clone());
            }
        };
        set("engine", engine.is_some());
        set("device", device.is_some());
        set("precision", precision.is_some());
        set("threads", threads.is_some());
        set("providers", providers.is_some());
        set("graph_optimization", graph_optimization.is_some());
        set("file", own.file.is_some());
        set("inputs", own.inputs.is_some());
        set("outputs", own.outputs.is_some());
        set("remote", own.remote.is_some());
        let options = &mut candidate.options;
        candidate.engine = engine.clone().unwrap_or(candidate.engine);
        options.device = device.clone().unwrap_or_else(|| options.device.clone());
        options.precision = precision.unwrap_or(options.precision);
        options.threads = threads.map_or(options.threads, NonZeroUsize::new);
        options.graph_optimization = graph_optimization.unwrap_or(options.graph_optimization);
        if let Some(providers) = providers {
            options.providers = names(providers);
        }
        options.remote = own.remote.clone().or_else(|| options.remote.take());
        if let Some(file) = &own.file {
            let (inputs, outputs) = Default::default();
            options.program = Some(Program { file: file.clone(), inputs, outputs });
        }
        if let Some(program) = &mut options.program {
            program.inputs = own.inputs.clone().unwrap_or_else(|| program.inputs.clone());
            program.outputs = own.outputs.clone().unwrap_or_else(|| program.outputs.clone());
        }
        candidate
    }
}

impl DeploymentConfig {
    /// What may compute a stage, in order of preference; never empty.
    pub fn candidates(&self, kind: StageKind) -> Vec<Candidate> {
        let stage = format!("stages.{kind}.");
        let own = self.stages.get(&kind);
        let wanted = match own {
            Some(own) => self.candidate().with(own, stage.clone()),
            None => self.candidate(),
        };
        let (fallback, place) = match own.and_then(|own| own.fallback.as_ref()) {
            Some(fallback) => (fallback, stage.as_str()),
            None => (&self.fallback, ""),
        };
        let alternatives = fallback.iter().enumerate().map(|(index, Alternative(alternative))| {
            wanted.with(alternative, format!("{place}fallback[{index}]."))
        });
        std::iter::once(wanted.clone()).chain(alternatives).collect()
    }

    /// What computes the stages that have no table.
    fn candidate(&self) -> Candidate {
        let options = StageOptions {
            device: self.device.clone(),
            precision: self.precision,
            threads: self.threads.and_then(NonZeroUsize::new),
            program: None,
            providers: names(&self.providers),
            graph_optimization: self.graph_optimization,
            remote: None,
        };
        Candidate {
            engine: self.engine.clone(),
            options,
            place: String::new(),
            set_in: SETTINGS.map(|setting| (setting, String::new())).into(),
        }
    }
}

fn names(providers: &[ProviderConfig]) -> Vec<Provider> {
    providers.iter().map(|ProviderConfig(provider)| provider.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(text: &str) -> DeploymentConfig {
        toml::from_str(&format!("model = \"m\"\n{text}")).unwrap()
    }

    fn candidates(text: &str, kind: StageKind) -> Vec<(String, StageOptions)> {
        let candidates = deployment(text).candidates(kind).into_iter();
        candidates.map(|candidate| (candidate.engine, candidate.options)).collect()
    }

    #[test]
    fn a_stage_says_only_what_it_has_different() {
        let text = "device = \"cuda:1\"\nprecision = \"bf16\"\nthreads = 3\n\
                    [stages.denoiser]\nprecision = \"f32\"\nthreads = 5\n";
        let [(engine, options)] = &candidates(text, StageKind::Denoiser)[..] else { panic!("one way") };
        assert_eq!(engine, "candle");
        let expected = StageOptions {
            device: "cuda:1".to_owned(),
            precision: Precision::F32,
            threads: NonZeroUsize::new(5),
            ..StageOptions::default()
        };
        assert_eq!(*options, expected);
        let others = candidates(text, StageKind::VaeDecoder);
        assert_eq!((others[0].1.precision, others[0].1.threads), (Precision::Bf16, NonZeroUsize::new(3)));
    }

    #[test]
    fn providers_are_names_or_tables() {
        let text = "engine = \"onnx\"\ngraph_optimization = \"basic\"\n\
                    providers = [{ name = \"cuda\", options = { device_id = 1, do_copy = true } }, \"cpu\"]\n";
        let [(_, options)] = &candidates(text, StageKind::Denoiser)[..] else { panic!("one way") };
        let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let cuda = [option("device_id", "1"), option("do_copy", "true")];
        assert_eq!(options.providers.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["cuda", "cpu"]);
        assert_eq!(options.providers[0].options, cuda.into());
        assert_eq!(options.graph_optimization, GraphOptimization::Basic);
        for wrong in ["[3]", "[{ nam = \"cuda\" }]", "[{ name = \"cuda\", options = { a = [] } }]"] {
            let parsed = toml::from_str::<DeploymentConfig>(&format!("model = \"m\"\nproviders = {wrong}"));
            assert!(parsed.is_err(), "{wrong}");
        }
    }

    #[test]
    fn alternatives_say_what_they_have_different_from_what_was_wanted() {
        let text = "engine = \"onnx\"\ndevice = \"cuda:0\"\nproviders = [\"tensorrt\"]\n\
                    fallback = [{ providers = [\"cuda\"] }, { device = \"cpu\" }, \"candle\"]\n";
        let ways = candidates(text, StageKind::Denoiser);
        let told: Vec<_> = ways
            .iter()
            .map(|(engine, options)| {
                let providers: Vec<_> = options.providers.iter().map(|p| p.name.as_str()).collect();
                (engine.as_str(), options.device.as_str(), providers)
            })
            .collect();
        assert_eq!(
            told,
            [
                ("onnx", "cuda:0", vec!["tensorrt"]),
                ("onnx", "cuda:0", vec!["cuda"]),
                ("onnx", "cpu", vec!["tensorrt"]),
                // What belongs to an engine is not passed on to another one.
                ("candle", "cuda:0", vec![]),
            ]
        );
    }

    #[test]
    fn another_server_is_left_with_its_engine() {
        let text = "device = \"cuda:1\"\n[stages.denoiser]\nengine = \"remote\"\n\
                    remote = { url = \"http://a:1\", model = \"m\", retries = 1 }\n\
                    fallback = [{ remote = { url = \"http://b:1\", model = \"m\" } }, \"candle\"]\n";
        let ways = candidates(text, StageKind::Denoiser);
        let told: Vec<_> = ways
            .iter()
            .map(|(engine, options)| {
                (engine.as_str(), options.remote.as_ref().map(|remote| (remote.url.as_str(), remote.retries)))
            })
            .collect();
        assert_eq!(
            told,
            [("remote", Some(("http://a:1", 1))), ("remote", Some(("http://b:1", 3))), ("candle", None)]
        );
        assert_eq!(ways[2].1.device, "cuda:1");
    }

    #[test]
    fn the_fallback_of_a_stage_takes_the_place_of_the_deployments() {
        let text = "fallback = [\"candle\"]\n\
                    [stages.denoiser]\nengine = \"onnx\"\nfile = \"unet.onnx\"\n\
                    inputs = { sample = \"x\" }\nfallback = [{ device = \"cuda:1\" }, \"torch\"]\n\
                    [stages.vae_encoder]\nfallback = []\n";
        let engines = |kind| candidates(text, kind).into_iter().map(|(engine, _)| engine).collect::<Vec<_>>();
        assert_eq!(engines(StageKind::Denoiser), ["onnx", "onnx", "torch"]);
        assert_eq!(engines(StageKind::VaeEncoder), ["candle"]);
        assert_eq!(engines(StageKind::VaeDecoder), ["candle", "candle"]);
        let programs = candidates(text, StageKind::Denoiser).into_iter().map(|(_, options)| options.program);
        let programs: Vec<_> = programs.collect();
        assert_eq!(programs[0].as_ref().unwrap().inputs["sample"], "x");
        assert_eq!(programs[1], programs[0]);
        assert_eq!(programs[2], None);
    }
}
