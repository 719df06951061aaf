//! Stages computed by TorchScript files.
//!
//! The files are traced from operations of the engine. A trace holds the sizes that it was made with, so every file
//! is run at those sizes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn};
use smartedit_core::engine::Precision;
use smartedit_core::model::{NetworkConfig, Preset, UnetConfig};
use smartedit_core::networks::manifest;
use smartedit_core::stage::{Backend, LoadError, Program, Session, Stage, StageKind, StageOptions};
use smartedit_core::stages::{Function, Network};
use smartedit_core::tensor::Tensors;
use smartedit_core::weights::{EngineWeights, RandomWeights, WeightFile, Weights};
use smartedit_torch::{TorchBackend, TorchEngine, TorchTensor};
use tch::jit::CModule;
use tch::{Kind, Tensor};

/// A network of the smallest preset with random weights.
struct Subject {
    config: NetworkConfig,
    weights: WeightFile,
    directory: tempfile::TempDir,
}

impl Subject {
    fn new(kind: StageKind) -> Self {
        let config = Preset::Tiny.config().stages[&kind].network.clone();
        let names = manifest(&config).expect("the preset is whole");
        let weights = RandomWeights::new(&names, Precision::F32, 7).and_then(RandomWeights::freeze);
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { config, weights: weights.expect("memory"), directory }
    }

    fn network(&self, engine: &TorchEngine) -> Network<TorchTensor> {
        let source = EngineWeights::new(engine, &self.weights);
        Network::load(&Weights::root(&source), &self.config).expect("the weights fit")
    }

    /// Traces `f` at the sizes of the inputs and saves what it did.
    fn trace(&self, inputs: &[Tensor], mut f: impl FnMut(&[Tensor]) -> Vec<Tensor>) -> PathBuf {
        let module = CModule::create_by_tracing("traced", "forward", inputs, &mut f);
        let file = self.directory.path().join("stage.pt");
        module.and_then(|module| module.save(&file)).unwrap_or_else(|e| panic!("{e}"));
        file
    }

    fn load(&self, program: Option<Program>) -> Result<Arc<dyn Stage>, LoadError> {
        let options = StageOptions { program, ..StageOptions::default() };
        TorchBackend::new().load(&self.config, &self.weights, &options)
    }

    /// What is wrong with a program.
    fn problem(&self, program: Program) -> String {
        match self.load(Some(program)) {
            Err(error @ LoadError::Program { .. }) => error.to_string(),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("the program is taken"),
        }
    }
}

/// The names that a trace gives its arguments.
fn traced(file: &Path, inputs: &[&str]) -> Program {
    let numbered = inputs.iter().enumerate();
    let inputs = numbered.map(|(index, name)| ((*name).to_owned(), format!("argument_{}", index + 1)));
    Program { file: file.to_owned(), inputs: inputs.collect(), outputs: BTreeMap::new() }
}

/// Values in −1…1.
fn values(shape: &[usize], seed: u32) -> ArrayD<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    ArrayD::from_shape_fn(IxDyn(shape), |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

fn zeros(shape: &[usize], kind: Kind) -> Tensor {
    let size: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
    Tensor::zeros(size, (kind, tch::Device::Cpu))
}

#[track_caller]
fn run(session: &mut dyn Session, inputs: &Tensors) -> Tensors {
    session.run(inputs).unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn assert_close(found: &Tensors, expected: &Tensors, name: &str) {
    let (found, expected) = (found.f32(name).expect(name), expected.f32(name).expect(name));
    assert_eq!(found.shape(), expected.shape(), "{name}");
    let worst = found.iter().zip(&expected).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
    let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    assert!(largest > 1e-3 && worst <= 1e-5 * largest, "{name}: {worst} of {largest}");
}

fn unet(subject: &Subject) -> &UnetConfig {
    match &subject.config {
        NetworkConfig::Denoiser(config) => config,
        _ => panic!("not a denoiser"),
    }
}

const DENOISER: [&str; 4] = ["sample", "timestep", "prompt_embeds", "image_feature"];

/// Sample, timestep, conditioning and image feature of a batch of three.
fn denoiser_shapes(config: &UnetConfig) -> [Vec<usize>; 4] {
    [
        vec![3, config.in_channels, 8, 8],
        vec![3],
        vec![3, 7, config.cross_attention_dim],
        vec![1, config.block_channels[0], 4, 4],
    ]
}

/// The noise of a sample: its first channels, times the timestep, plus the largest values of conditioning and feature.
fn traced_denoiser(subject: &Subject) -> PathBuf {
    let config = unet(subject);
    let inputs = denoiser_shapes(config).map(|shape| zeros(&shape, Kind::Float));
    let noise = |inputs: &[Tensor]| {
        let [sample, timestep, embeds, feature] = inputs else { panic!("four inputs") };
        let channels = config.out_channels as i64;
        let part = sample.narrow(1, 0, channels).reshape([3, channels, 64]).reshape([3, channels, 8, 8]);
        part * timestep.reshape([3, 1, 1, 1])
            + embeds.amax([1, 2], false).reshape([3, 1, 1, 1])
            + feature.max()
    };
    subject.trace(&inputs, |inputs| vec![noise(inputs)])
}

/// What the traced denoiser gives.
fn expected_noise(step: &Tensors, conditioning: &Tensors, channels: usize) -> ArrayD<f32> {
    let f32 = |tensors: &Tensors, name| tensors.f32(name).expect(name).to_owned();
    let largest = |values: ArrayViewD<'_, f32>| values.iter().fold(f32::MIN, |max, value| max.max(*value));
    let (embeds, feature) = (f32(conditioning, "prompt_embeds"), f32(conditioning, "image_feature"));
    let (sample, timestep) = (f32(step, "sample"), f32(step, "timestep"));
    let mut noise = sample.slice_axis(Axis(1), (0..channels).into()).to_owned();
    for (row, mut noise) in noise.outer_iter_mut().enumerate() {
        let shift = largest(embeds.index_axis(Axis(0), row)) + largest(feature.view());
        noise.mapv_inplace(|value| value * timestep[[row]] + shift);
    }
    noise
}

#[test]
fn a_denoiser_gets_the_conditioning_with_every_step() {
    let subject = Subject::new(StageKind::Denoiser);
    let file = traced_denoiser(&subject);
    let stage = subject.load(Some(traced(&file, &DENOISER))).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(stage.info().weight_bytes, file.metadata().expect("the file is there").len());
    let mut session = stage.session();
    let [sample, timestep, embeds, feature] = denoiser_shapes(unet(&subject));
    let step = |seed| {
        Tensors::new().with("sample", values(&sample, seed)).with("timestep", values(&timestep, seed) * 500.0)
    };
    let early = session.run(&step(1)).expect_err("there is no conditioning").to_string();
    assert!(early.contains("prompt_embeds"), "{early}");
    for seed in [1, 2] {
        let conditioning = Tensors::new()
            .with("prompt_embeds", values(&embeds, 10 + seed))
            .with("image_feature", values(&feature, 20 + seed));
        run(session.as_mut(), &conditioning);
        for step in [step(30 + seed), step(40 + seed)] {
            let expected = expected_noise(&step, &conditioning, unet(&subject).out_channels);
            let expected = Tensors::new().with("noise_prediction", expected);
            assert_close(&run(session.as_mut(), &step), &expected, "noise_prediction");
        }
    }
    run(session.as_mut(), &Tensors::new().with("prompt_embeds", values(&embeds, 1)));
    let without = session.run(&step(1)).expect_err("the program needs the feature").to_string();
    assert!(without.contains("`image_feature`, which is not given"), "{without}");
}

#[test]
fn a_traced_network_is_the_network() {
    let subject = Subject::new(StageKind::VaeDecoder);
    let NetworkConfig::VaeDecoder(config) = &subject.config else { panic!("not a VAE decoder") };
    let engine = TorchEngine::cpu(Precision::F32).with_own_parameters();
    let network = subject.network(&engine);
    let shape = [1, config.latent_channels, 4, 6];
    let file = subject.trace(&[zeros(&shape, Kind::Float)], |inputs| {
        let latents = TorchTensor::from(inputs[0].shallow_clone());
        let image = network.call(&engine, Function::Whole, &[Some(&latents)]);
        image.unwrap_or_else(|e| panic!("{e}")).iter().map(|x| x.to_tensor().expect("memory")).collect()
    });
    let stage = subject.load(Some(traced(&file, &["latents"]))).unwrap_or_else(|e| panic!("{e}"));
    let network = subject.load(None).unwrap_or_else(|e| panic!("{e}"));
    for seed in [1, 2, 3] {
        let inputs = Tensors::new().with("latents", values(&shape, seed));
        let expected = run(network.session().as_mut(), &inputs);
        assert_close(&run(stage.session().as_mut(), &inputs), &expected, "image");
    }
}

/// States of all positions, as `language_model.py` has them.
fn expected_states(rows: &[Vec<f32>]) -> ndarray::Array2<f32> {
    let mut states = ndarray::Array2::from_shape_vec((rows.len(), 128), rows.concat()).expect("rows of 128");
    states.accumulate_axis_inplace(Axis(0), |before, state| *state += before);
    states
}

/// What stands at the position of a token.
fn token(id: i64) -> Vec<f32> {
    (1..=128).map(|column| (id as f32 * column as f32 * 0.1).sin()).collect()
}

/// What stands at the positions of an image.
fn image_rows(features: &ArrayD<f32>) -> Vec<Vec<f32>> {
    let features = features.index_axis(Axis(0), 0);
    features.axis_iter(Axis(0)).map(|row| row.iter().chain(&row).copied().collect()).collect()
}

fn ids(ids: &[i64]) -> Tensors {
    Tensors::new().with("input_ids", ndarray::arr2(&[<[i64; 3]>::try_from(ids).expect("three tokens")]))
}

#[test]
fn a_language_model_that_returns_a_tuple_is_given_all_that_was_fed() {
    let subject = Subject::new(StageKind::LanguageModel);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/language_model.pt");
    let program = Program { file, inputs: BTreeMap::new(), outputs: BTreeMap::new() };
    let stage = subject.load(Some(program)).unwrap_or_else(|e| panic!("{e}"));
    let mut session = stage.session();
    // Compares the states of new positions with the last ones of all, and logits with those of the positions asked for.
    let mut check = |inputs: &Tensors, all: &[Vec<f32>], new: usize, logits: usize| {
        let found = run(session.as_mut(), inputs);
        let states = expected_states(all);
        let waves = ndarray::Array2::from_shape_fn((128, 32_035), |(column, token)| {
            ((token * (column + 1)) as f32 * 0.001).cos()
        });
        let last = |count: usize| states.slice_axis(Axis(0), ((states.nrows() - count)..).into());
        let expected = Tensors::new()
            .with("hidden_states", last(new).insert_axis(Axis(0)).to_owned())
            .with("logits", last(logits).dot(&waves).insert_axis(Axis(0)));
        assert_close(&found, &expected, "hidden_states");
        assert_close(&found, &expected, "logits");
    };
    let text: Vec<_> = [3, 141, 59].map(token).to_vec();
    check(&ids(&[3, 141, 59]), &text, 3, 3);

    // An image of two features after the first of three tokens, and logits of the last position alone.
    let features = values(&[1, 2, 64], 1);
    let [first, second, third] = [26, 5, 35].map(token);
    let picture = image_rows(&features);
    let with_picture = [text.clone(), vec![first], picture, vec![second, third]].concat();
    let inputs =
        ids(&[26, 5, 35]).with("image_features", features).with("image_position", ndarray::arr1(&[1i64]));
    check(&inputs.with("logits_from", ndarray::arr1(&[4i64])), &with_picture, 5, 1);

    // A draft that is taken back but for one token of it.
    check(&ids(&[89, 79, 32]), &[with_picture.clone(), [89, 79, 32].map(token).to_vec()].concat(), 3, 3);
    let back = ids(&[38, 46, 26]).with("cache_length", ndarray::arr1(&[9i64]));
    check(&back, &[with_picture, [89, 38, 46, 26].map(token).to_vec()].concat(), 3, 3);
}

#[test]
fn files_that_are_no_programs_are_named() {
    let subject = Subject::new(StageKind::VaeDecoder);
    let file = subject.directory.path().join("missing.pt");
    let problem = subject.problem(traced(&file, &["latents"]));
    assert!(problem.contains("missing.pt") && problem.contains("No such file"), "{problem}");
    let options = StageOptions { program: Some(traced(&file, &["latents"])), ..StageOptions::default() };
    assert!(TorchBackend::new().check(StageKind::VaeDecoder, &options).is_err());
    let problem = subject.problem(traced(subject.directory.path(), &["latents"]));
    assert!(problem.contains("is not a file"), "{problem}");
    for bytes in [&b""[..], b"PK\x03\x04 is not enough", &[7; 4096]] {
        std::fs::write(&file, bytes).expect("the file can be written");
        let problem = subject.problem(traced(&file, &["latents"]));
        assert!(problem.contains("is not a TorchScript file"), "{problem}");
        assert!(!problem.contains('\n'), "{problem}");
    }
}

#[test]
fn programs_whose_inputs_or_outputs_do_not_fit_are_refused() {
    let subject = Subject::new(StageKind::VaeDecoder);
    let NetworkConfig::VaeDecoder(config) = &subject.config else { panic!("not a VAE decoder") };
    let latents = zeros(&[1, config.latent_channels, 2, 2], Kind::Float);
    let same = |inputs: &[Tensor]| vec![&inputs[0] * 2];

    let file = subject.trace(&[latents.shallow_clone()], same);
    let problem = subject.problem(traced(&file, &[]));
    assert!(problem.contains("no input `latents`") && problem.contains("`argument_1`"), "{problem}");
    let problem = subject.problem(traced(&file, &["latent"]));
    assert!(problem.contains("the stage has no input `latent`; its inputs are `latents`"), "{problem}");
    let outputs = BTreeMap::from([("picture".to_owned(), "x".to_owned())]);
    let problem = subject.problem(Program { outputs, ..traced(&file, &["latents"]) });
    assert!(problem.contains("the stage has no output `picture`; its outputs are `image`"), "{problem}");

    let stage = subject.load(Some(traced(&file, &["latents"]))).unwrap_or_else(|e| panic!("{e}"));
    let inputs = Tensors::new().with("latents", values(&[1, config.latent_channels, 2, 2], 1));
    let error = stage.session().run(&inputs).expect_err("the shape is another").to_string();
    let factor = 2 * config.downsampling();
    assert!(error.contains(&format!("[1, {}, {factor}, {factor}]", config.image_channels)), "{error}");

    let file = subject.trace(&[latents.shallow_clone(), latents.shallow_clone()], same);
    let problem = subject.problem(traced(&file, &["latents"]));
    assert!(problem.contains("`argument_2` stands for none of the stage's"), "{problem}");

    let subject = Subject::new(StageKind::LanguageModel);
    let file = subject.trace(&[zeros(&[1, 5], Kind::Int64)], same);
    let problem = subject.problem(traced(&file, &["input_ids"]));
    assert!(
        problem.contains("returns 1 tensors") && problem.contains("`hidden_states`, `logits`"),
        "{problem}"
    );
}

#[test]
fn a_program_that_fails_says_why() {
    let subject = Subject::new(StageKind::Denoiser);
    let file = traced_denoiser(&subject);
    let stage = subject.load(Some(traced(&file, &DENOISER))).unwrap_or_else(|e| panic!("{e}"));
    let [_, _, embeds, feature] = denoiser_shapes(unet(&subject));
    // The trace was made at 8×8.
    let inputs = Tensors::new()
        .with("prompt_embeds", values(&embeds, 1))
        .with("image_feature", values(&feature, 2))
        .with("sample", values(&[3, unet(&subject).in_channels, 16, 16], 3))
        .with("timestep", values(&[3], 4));
    let error = stage.session().run(&inputs).expect_err("the sizes are others").to_string();
    assert!(error.starts_with("denoiser: ") && !error.contains('\n'), "{error}");
    assert!(!error.contains("TorchScript interpreter"), "{error}");
}
