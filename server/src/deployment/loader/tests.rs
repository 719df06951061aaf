//! The shipped model on engines that can and cannot be had.

use smartedit_core::stage::StageOptions;
use smartedit_core::weights::WeightsError;

use super::*;
use crate::config::{Alternative, CacheConfig, Placement};

/// An engine under the name of ONNX Runtime that fails to load, each stage in the same way.
struct Failing(fn(StageKind) -> LoadError);

impl Backend for Failing {
    fn name(&self) -> &'static str {
        "onnx"
    }

    fn check(&self, _: StageKind, _: &StageOptions) -> Result<(), LoadError> {
        Ok(())
    }

    fn load(
        &self,
        network: &NetworkConfig,
        _: &WeightFile,
        _: &StageOptions,
    ) -> Result<Arc<dyn Stage>, LoadError> {
        Err((self.0)(network.kind()))
    }
}

fn no_provider(stage: StageKind) -> LoadError {
    LoadError::Unavailable {
        engine: "onnx",
        stage,
        reason: "provider `cuda` cannot be had".to_owned(),
        remedy: "install it".to_owned(),
    }
}

fn bad_weights(stage: StageKind) -> LoadError {
    let name = "conv_in.weight".to_owned();
    LoadError::Weights { stage, source: WeightsError::Missing { name, path: "denoiser.safetensors".into() } }
}

fn deployment() -> DeploymentConfig {
    DeploymentConfig::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-random"))
}

/// A deployment with something else for the denoiser, and these engines in its place.
fn denoiser(placement: Placement, fallback: &[&str]) -> DeploymentConfig {
    let alternative =
        |engine: &&str| Alternative(Placement { engine: Some((*engine).to_owned()), ..Placement::default() });
    let fallback = Some(fallback.iter().map(alternative).collect());
    let placement = Placement { fallback, ..placement };
    DeploymentConfig { stages: [(StageKind::Denoiser, placement)].into(), ..deployment() }
}

fn on_engine(engine: &str) -> Placement {
    Placement { engine: Some(engine.to_owned()), ..Placement::default() }
}

/// This build's engines without torch and ONNX Runtime, whose name the failing one has.
fn load(config: &DeploymentConfig, onnx: fn(StageKind) -> LoadError) -> Result<Arc<dyn Editor>, NotLoaded> {
    let mut engines = Engines::default();
    engines.add(Arc::new(smartedit_candle::CandleBackend::new()));
    engines.add(Arc::new(Failing(onnx)));
    EngineLoader::new(engines, &CacheConfig::default()).load(config)
}

#[track_caller]
fn refused(outcome: Result<Arc<dyn Editor>, NotLoaded>) -> NotLoaded {
    outcome.err().expect("it cannot be loaded")
}

fn placed(editor: &Arc<dyn Editor>, kind: StageKind) -> PlacedStage {
    editor.stages().iter().find(|placed| placed.info.kind == kind).expect("the model has it").clone()
}

#[test]
fn what_can_be_had_has_not_fallen_back() {
    let config = DeploymentConfig { threads: Some(2), ..denoiser(on_engine("candle"), &["onnx"]) };
    let editor = load(&config, no_provider).unwrap();
    assert!(editor.stages().iter().all(|placed| placed.unavailable.is_empty()));
    assert!(editor.stages().iter().all(|placed| placed.threads.is_some_and(|threads| threads.get() == 2)));
}

#[test]
fn a_stage_falls_back_in_order_and_tells_why() {
    let config = denoiser(on_engine("torch"), &["onnx", "candle"]);
    let editor = load(&config, no_provider).unwrap();
    let denoiser = placed(&editor, StageKind::Denoiser);
    assert_eq!((denoiser.info.engine, denoiser.info.device.as_str()), ("candle", "cpu"));
    let [torch, onnx] = &denoiser.unavailable[..] else { panic!("{:?}", denoiser.unavailable) };
    assert_eq!((torch.engine.as_str(), onnx.engine.as_str()), ("torch", "onnx"));
    assert!(torch.reason.contains("--features torch"), "{}", torch.reason);
    assert!(onnx.reason.contains("`cuda`") && onnx.reason.contains("install it"), "{}", onnx.reason);
    assert!(placed(&editor, StageKind::VaeDecoder).unavailable.is_empty());
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_device_that_is_not_there_falls_back_to_one_that_is() {
    let cpu = Alternative(Placement { device: Some("cpu".to_owned()), ..Placement::default() });
    let config = DeploymentConfig { device: "cuda:0".to_owned(), fallback: vec![cpu], ..deployment() };
    let editor = load(&config, no_provider).unwrap();
    for placed in editor.stages() {
        assert_eq!(placed.info.device, "cpu");
        assert_eq!(placed.unavailable[0].device, "cuda:0");
        assert!(placed.unavailable[0].reason.contains("`cuda:0`"), "{}", placed.unavailable[0].reason);
    }
    let failure =
        refused(load(&DeploymentConfig { device: "cuda:0".to_owned(), ..deployment() }, no_provider));
    for word in ["`candle`", "`cuda:0`", "feature `cuda`"] {
        assert!(failure.public.contains(word), "{}", failure.public);
    }
}

#[test]
fn where_nothing_can_be_had_every_attempt_is_told() {
    let failure = refused(load(&denoiser(on_engine("torch"), &["onnx"]), no_provider));
    for word in ["`torch`", "denoiser", "--features torch", "its fallback", "`cuda`", "install it"] {
        assert!(failure.public.contains(word), "{}", failure.public);
    }
}

#[test]
fn weights_that_do_not_fit_are_no_reason_to_fall_back() {
    let failure = refused(load(&denoiser(on_engine("onnx"), &["candle"]), bad_weights));
    assert!(failure.source.to_string().contains("conv_in.weight"), "{:#}", failure.source);
    assert!(!failure.public.contains("conv_in"), "{}", failure.public);
}

#[test]
fn options_that_an_engine_cannot_take_are_no_reason_to_fall_back() {
    let placement = Placement { file: Some("unet.onnx".into()), ..on_engine("candle") };
    let failure = refused(load(&denoiser(placement, &["candle"]), no_provider));
    assert!(failure.public.contains("`file`"), "{}", failure.public);
}
