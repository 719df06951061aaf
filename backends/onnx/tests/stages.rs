//! Stages of the shipped model on ONNX Runtime: libraries, providers, graphs of others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::{Array1, Array2, Array3, Array4};
use smartedit_core::engine::Precision;
use smartedit_core::model::{ModelDirectory, NetworkConfig};
use smartedit_core::stage::{
    Backend, GraphOptimization, LoadError, Program, Provider, Stage, StageKind, StageOptions,
};
use smartedit_core::tensor::{HostTensor, Tensors};
use smartedit_core::weights::WeightFile;
use smartedit_onnx::{ExportOptions, OnnxBackend, export};

fn parts(kind: StageKind) -> (NetworkConfig, WeightFile) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-random");
    let directory = ModelDirectory::open(&path).unwrap_or_else(|e| panic!("{e}"));
    let weights = directory.stage_weights(kind).expect("the model has the stage");
    (directory.config().stages[&kind].network.clone(), weights.unwrap_or_else(|e| panic!("{e}")))
}

fn load(kind: StageKind, options: &StageOptions) -> Result<Arc<dyn Stage>, LoadError> {
    let (config, weights) = parts(kind);
    OnnxBackend::new(None).load(&config, &weights, options)
}

fn provider(name: &str) -> Provider {
    Provider { name: name.to_owned(), options: BTreeMap::new() }
}

fn wave<const N: usize>(shape: [usize; N]) -> HostTensor {
    let data = (0..shape.iter().product()).map(|i| (i as f32 * 0.37).sin()).collect();
    HostTensor::from_f32(&shape, data).expect("as many values as the shape has")
}

/// Inputs of a stage, of sizes that are not those of any example.
fn inputs(config: &NetworkConfig) -> Tensors {
    match config {
        NetworkConfig::VisionEncoder(c) => {
            Tensors::new().with("pixel_values", wave([1, 3, c.image_size, c.image_size]))
        }
        NetworkConfig::TextEncoder(c) => {
            let ids = Array2::from_shape_fn((2, c.max_positions), |(row, i)| (row + 7 * i) as i64 % 50);
            Tensors::new().with("input_ids", ids)
        }
        NetworkConfig::VaeDecoder(c) => Tensors::new().with("latents", wave([2, c.latent_channels, 5, 7])),
        NetworkConfig::Denoiser(c) => Tensors::new()
            .with("prompt_embeds", wave([2, 9, c.cross_attention_dim]))
            .with("image_feature", wave([1, c.block_channels[0], 3, 3]))
            .with("sample", wave([2, c.in_channels, 12, 10]))
            .with("timestep", Array1::from_vec(vec![500.5f32, 3.0])),
        other => panic!("{} is not tested here", other.kind()),
    }
}

fn run(stage: &dyn Stage, inputs: &Tensors) -> Tensors {
    stage.session().run(inputs).unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn assert_close(found: &Tensors, expected: &Tensors) {
    for (name, _) in expected.iter() {
        let (found, expected) = (found.f32(name).expect(name), expected.f32(name).expect(name));
        assert_eq!(found.shape(), expected.shape(), "{name}");
        let magnitude = expected.iter().fold(0.0f32, |max, value| max.max(value.abs()));
        let worst = found.iter().zip(&expected).fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
        assert!(worst <= 1e-4 * magnitude, "{name}: {worst} of {magnitude}");
    }
}

#[test]
fn a_library_that_is_not_there_is_named() {
    let missing = PathBuf::from("nowhere/libonnxruntime.so");
    let backend = OnnxBackend::new(Some(missing));
    let error = backend.check(StageKind::Denoiser, &StageOptions::default()).expect_err("there is none");
    assert!(matches!(error, LoadError::Unavailable { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("nowhere/libonnxruntime.so") && message.contains("xtask engines"), "{message}");
}

#[test]
fn a_provider_that_cannot_be_had_is_named_and_not_replaced() {
    let options = StageOptions { device: "cuda:0".to_owned(), ..StageOptions::default() };
    let error = load(StageKind::VaeDecoder, &options).err().expect("there is no CUDA in the library");
    assert!(matches!(error, LoadError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("`cuda`"), "{error}");
}

#[test]
fn the_first_of_the_listed_providers_that_can_be_had_is_used_and_reported() {
    let providers = ["tensorrt", "cuda", "openvino", "cpu"].map(provider).to_vec();
    let device = "cuda:0".to_owned();
    let options = StageOptions { device, providers, ..StageOptions::default() };
    let stage = load(StageKind::VaeDecoder, &options).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(stage.info().provider.as_deref(), Some("cpu"));
    assert_eq!(stage.info().device, "cpu");
}

#[test]
fn what_no_machine_can_do_is_an_option_s_fault() {
    for (options, at_fault) in [
        (StageOptions { precision: Precision::Bf16, ..StageOptions::default() }, "precision"),
        (StageOptions { device: "tpu:0".to_owned(), ..StageOptions::default() }, "device"),
        (StageOptions { providers: vec![provider("rocket")], ..StageOptions::default() }, "providers"),
    ] {
        match load(StageKind::VaeDecoder, &options).err() {
            Some(LoadError::Option { option, .. }) => assert_eq!(option, at_fault),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_level_of_optimization_computes_the_same() {
    let (config, _) = parts(StageKind::Denoiser);
    let inputs = inputs(&config);
    let at = |graph_optimization| {
        let options = StageOptions { graph_optimization, ..StageOptions::default() };
        run(load(StageKind::Denoiser, &options).unwrap_or_else(|e| panic!("{e}")).as_ref(), &inputs)
    };
    let expected = at(GraphOptimization::Disabled);
    for level in [GraphOptimization::Basic, GraphOptimization::Extended, GraphOptimization::All] {
        assert_close(&at(level), &expected);
    }
}

#[test]
fn sessions_of_one_stage_run_on_several_threads() {
    let options = StageOptions { threads: std::num::NonZero::new(1), ..StageOptions::default() };
    let stage = load(StageKind::VaeDecoder, &options).unwrap_or_else(|e| panic!("{e}"));
    let (config, _) = parts(StageKind::VaeDecoder);
    let inputs = inputs(&config);
    let expected = run(stage.as_ref(), &inputs);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(run(stage.as_ref(), &inputs), expected));
        }
    });
}

fn exported(kind: StageKind, directory: &Path) -> PathBuf {
    let (config, weights) = parts(kind);
    let options = ExportOptions { precision: Precision::F32, image_feature: true, force: false };
    let mut files = export(&config, &weights, directory, options).unwrap_or_else(|e| panic!("{e}"));
    files.pop().expect("the stage is one file")
}

fn as_program(file: PathBuf, names: &[(&str, &str)]) -> StageOptions {
    let inputs = names.iter().map(|(own, other)| ((*own).to_owned(), (*other).to_owned())).collect();
    let program = Program { file, inputs, outputs: BTreeMap::new() };
    StageOptions { program: Some(program), ..StageOptions::default() }
}

#[test]
fn an_exported_stage_is_a_program_that_computes_the_same() {
    for kind in [StageKind::VisionEncoder, StageKind::TextEncoder, StageKind::VaeDecoder, StageKind::Denoiser]
    {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let options = as_program(exported(kind, directory.path()), &[]);
        let program = load(kind, &options).unwrap_or_else(|e| panic!("{e}"));
        let recorded = load(kind, &StageOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        let (config, _) = parts(kind);
        let inputs = inputs(&config);
        assert_close(&run(program.as_ref(), &inputs), &run(recorded.as_ref(), &inputs));
    }
}

#[test]
fn a_program_that_is_none_of_the_stage_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let refused = |kind, options: &StageOptions, words: &str| {
        let error = load(kind, options).err().unwrap_or_else(|| panic!("{words}: was taken"));
        assert!(matches!(error, LoadError::Program { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    let file = exported(StageKind::VaeDecoder, directory.path());
    refused(StageKind::TextEncoder, &as_program(file.clone(), &[]), "`input_ids`");
    refused(StageKind::TextEncoder, &as_program(file, &[("input_ids", "latents")]), "i64");

    let garbage = directory.path().join("garbage.onnx");
    std::fs::write(&garbage, "no graph").expect("the file can be written");
    refused(StageKind::VaeDecoder, &as_program(garbage, &[]), "garbage.onnx");
    let missing = directory.path().join("missing.onnx");
    refused(StageKind::VaeDecoder, &as_program(missing, &[]), "missing.onnx");
}

#[test]
fn shapes_that_do_not_fit_are_errors_of_the_stage() {
    let stage = load(StageKind::Denoiser, &StageOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let mut session = stage.session();
    let wrong = Tensors::new().with("sample", Array4::<f32>::zeros((1, 3, 8, 8)));
    assert!(session.run(&wrong).is_err());
    let wrong = Tensors::new().with("prompt_embeds", Array3::<f32>::zeros((1, 77, 5)));
    assert!(session.run(&wrong).is_err());
}
