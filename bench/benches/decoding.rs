//! What is not computed twice: a reply whose tokens are expected, a prompt's beginning, the front of an edit.
//!
//! Language models have the sizes of SmartEdit-7B with two layers, and random weights that reply with nine words and
//! the image tokens.

#![allow(missing_docs, reason = "criterion's macros make public items without any")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use image::RgbImage;
use ndarray::{Array2, Array3, ArrayD, ArrayView1, Axis, Ix3};
use smartedit_candle::CandleBackend;
use smartedit_core::cache::StageCache;
use smartedit_core::decoding::{Decoding, DecodingInput, DecodingOptions};
use smartedit_core::engine::Precision;
use smartedit_core::model::{LlamaConfig, NetworkConfig, Preset};
use smartedit_core::networks::random_weights_that_reply;
use smartedit_core::pipeline::{EditOptions, EditRequest, Model, Progress, Resize};
use smartedit_core::stage::{Backend, Session, Stage, StageKind, StageOptions};
use smartedit_core::text::{PromptTokens, SpecialIds};

/// Tokens before the picture, positions of the picture, and tokens after it, as in the release's prompt.
const PROMPT: (usize, usize, usize) = (66, 256, 18);
const WORDS: u32 = 9;
const SPECIAL: SpecialIds = SpecialIds {
    unk: 0,
    bos: 1,
    eos: 2,
    image: 32_000,
    image_start: 32_001,
    image_end: 32_002,
    first_image_token: 32_003,
    last_image_token: 32_034,
};
const LAYERS: usize = 2;

/// The sizes of SmartEdit-7B with fewer layers.
fn config() -> LlamaConfig {
    let config = Preset::SmartEdit7b.config();
    match &config.stages[&StageKind::LanguageModel].network {
        NetworkConfig::LanguageModel(llama) => LlamaConfig { num_layers: LAYERS, ..llama.clone() },
        other => panic!("a {} for a language model", other.kind()),
    }
}

fn prompt() -> (Vec<u32>, Vec<u32>) {
    let word = |index: usize| 100 + index as u32;
    ((0..PROMPT.0).map(word).collect(), (0..PROMPT.2).map(|index| word(PROMPT.0 + index)).collect())
}

fn reply() -> Vec<u32> {
    (1000..1000 + WORDS).chain(SPECIAL.image_tokens()).collect()
}

fn load(backend: &dyn Backend, options: &StageOptions) -> Arc<dyn Stage> {
    let last_of_prompt = prompt().1.pop();
    let chain: Vec<u32> = last_of_prompt.into_iter().chain(reply()).chain([SPECIAL.eos]).collect();
    let weights = random_weights_that_reply(&config(), options.precision, 1, &chain).expect("random weights");
    backend.load(&NetworkConfig::LanguageModel(config()), &weights, options).expect("a language model")
}

fn features() -> ArrayD<f32> {
    let value =
        |(_, row, column): (usize, usize, usize)| ((row * 31 + column * 7) % 101) as f32 / 101.0 - 0.5;
    Array3::from_shape_fn((1, PROMPT.1, config().vision_size), value).into_dyn()
}

struct Replied {
    tokens: Vec<u32>,
    /// `[32, h]`.
    states: Array2<f32>,
}

fn feed(
    session: &mut dyn Session,
    input: &DecodingInput,
    features: &ArrayD<f32>,
) -> (Array3<f32>, Array3<f32>) {
    let mut outputs = session.run(&input.tensors(features)).expect("a pass");
    let mut take = |name: &str| {
        let output = outputs.take_f32(name).expect("the stage's output");
        output.into_dimensionality::<Ix3>().expect("three dimensions")
    };
    (take("hidden_states"), take("logits"))
}

/// The prompt up to where the reply can be begun: all of it but the last token.
fn beginning() -> DecodingInput {
    let (before, mut after) = prompt();
    after.pop();
    let ids = [before, after].concat();
    let logits_from = ids.len() + PROMPT.1 - 1;
    DecodingInput { ids, image_position: Some(PROMPT.0), cache_length: 0, logits_from }
}

/// Greedy decoding as the reference does it, after the prompt's beginning: a pass for every token.
fn step_by_step(session: &mut dyn Session, features: &ArrayD<f32>) -> Replied {
    let mut next = *prompt().1.last().expect("a prompt");
    let mut fed = PROMPT.0 + PROMPT.1 + PROMPT.2 - 1;
    let (mut tokens, mut states) = (Vec::new(), Vec::new());
    loop {
        let input =
            DecodingInput { ids: vec![next], image_position: None, cache_length: fed, logits_from: 0 };
        let (hidden, logits) = feed(session, &input, features);
        if SPECIAL.is_image_token(next) {
            states.push(hidden.index_axis(Axis(0), 0).index_axis(Axis(0), 0).to_owned());
        }
        fed += 1;
        next = likeliest(logits.index_axis(Axis(0), 0).index_axis(Axis(0), 0));
        if next == SPECIAL.eos {
            let states: Vec<_> = states.iter().map(|state| state.view()).collect();
            return Replied {
                tokens,
                states: ndarray::stack(Axis(0), &states).expect("states of one width"),
            };
        }
        tokens.push(next);
    }
}

fn likeliest(logits: ArrayView1<'_, f32>) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(id, _)| id as u32)
}

/// The reply in one pass, after the prompt's beginning.
fn drafted(session: &mut dyn Session, features: &ArrayD<f32>) -> Replied {
    let last = prompt().1.pop().into_iter().collect();
    let fed = PROMPT.0 + PROMPT.1 + PROMPT.2 - 1;
    drive(session, Decoding::resume(fed, last, SPECIAL, expecting_the_reply()), features)
}

/// Prompt, reply and image tokens in one pass.
fn whole_drafted(stage: &dyn Stage, features: &ArrayD<f32>) -> Replied {
    let (before, after) = prompt();
    let prompt =
        PromptTokens { image_position: before.len(), ids_without_image_token: [before, after].concat() };
    let decoding = Decoding::new(prompt, PROMPT.1, SPECIAL, expecting_the_reply());
    drive(stage.session().as_mut(), decoding, features)
}

fn expecting_the_reply() -> DecodingOptions {
    DecodingOptions { drafts: vec![reply()], ..DecodingOptions::default() }
}

fn drive(session: &mut dyn Session, mut decoding: Decoding, features: &ArrayD<f32>) -> Replied {
    while let Some(input) = decoding.next_input() {
        let (hidden, logits) = feed(session, &input, features);
        decoding.advance(hidden.view(), logits.view()).expect("a reply with image tokens");
    }
    let states = decoding.image_states().expect("a complete reply");
    Replied { tokens: decoding.reply().to_vec(), states }
}

fn whole_step_by_step(stage: &dyn Stage, features: &ArrayD<f32>) -> Replied {
    let mut session = stage.session();
    feed(session.as_mut(), &beginning(), features);
    step_by_step(session.as_mut(), features)
}

fn assert_same(a: &Replied, b: &Replied, precision: Precision) {
    assert_eq!(a.tokens, reply(), "the weights were made to reply so");
    assert_eq!(a.tokens, b.tokens);
    let magnitude = a.states.iter().fold(0.0f32, |max, value| max.max(value.abs()));
    let difference = (&a.states - &b.states).iter().fold(0.0f32, |max, value| max.max(value.abs()));
    let allowed = if precision == Precision::F32 { 1e-4 } else { 5e-2 };
    assert!(difference <= allowed * magnitude, "states differ by {difference} of {magnitude}");
}

fn replies(criterion: &mut Criterion, backend: &dyn Backend, precision: Precision) {
    let options = StageOptions { precision, ..StageOptions::default() };
    let (stage, features) = (load(backend, &options), features());
    let fed = {
        let mut session = stage.session();
        feed(session.as_mut(), &beginning(), &features);
        session
    };
    let fork = || fed.fork().expect("a language model's session can be forked");

    let expected = whole_step_by_step(stage.as_ref(), &features);
    assert_same(&expected, &step_by_step(fork().as_mut(), &features), precision);
    assert_same(&expected, &drafted(fork().as_mut(), &features), precision);
    assert_same(&expected, &whole_drafted(stage.as_ref(), &features), precision);

    let name = format!("reply/{}/{precision}/7b with {LAYERS} layers", backend.name());
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(1));
    group.bench_function("reply step by step", |b| b.iter(|| step_by_step(fork().as_mut(), &features)));
    group.bench_function("reply drafted", |b| b.iter(|| drafted(fork().as_mut(), &features)));
    group.bench_function("prompt and reply step by step", |b| {
        b.iter(|| whole_step_by_step(stage.as_ref(), &features));
    });
    group.bench_function("prompt and reply drafted", |b| b.iter(|| whole_drafted(stage.as_ref(), &features)));
    group.finish();
}

/// An edit of one step whose front is computed, and one whose front is kept, on the model that ships.
fn edits(criterion: &mut Criterion, backend: &dyn Backend) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny-random");
    let options = StageOptions::default();
    let load = |network: &_, weights: &_| backend.load(network, weights, &options);
    let model = Model::load(&directory, load).expect("the model that ships");
    let model =
        model.with_cache(StageCache::new(64 << 20), |_| options.clone()).expect("there are no programs");
    let model = Arc::new(model);
    let image = RgbImage::from_fn(256, 256, |x, y| image::Rgb([x as u8, y as u8, (x ^ y) as u8]));
    let edit = |no_cache: bool| {
        let options = EditOptions {
            steps: Some(1),
            resize: Some(Resize::Stretch { width: 64, height: 64 }),
            no_cache,
            ..EditOptions::default()
        };
        let request = EditRequest { image: image.clone(), instruction: "Make it blue".to_owned(), options };
        let mut edit = model.edit(request).expect("a valid request");
        loop {
            if let Progress::Finished(output) = edit.advance().expect("the edit goes on") {
                return output;
            }
        }
    };
    assert_eq!(edit(true), edit(false));

    let mut group = criterion.benchmark_group(format!("edit/{}/tiny-random", backend.name()));
    group.sample_size(10);
    group.bench_function("cold", |b| b.iter(|| edit(true)));
    group.bench_function("front kept", |b| b.iter(|| edit(false)));
    group.finish();
}

fn decoding(criterion: &mut Criterion) {
    let backends: [Box<dyn Backend>; 1] = [Box::new(CandleBackend::new())];
    for backend in &backends {
        edits(criterion, backend.as_ref());
        for precision in [Precision::F32, Precision::Bf16] {
            replies(criterion, backend.as_ref(), precision);
        }
    }
}

criterion_group!(benches, decoding);
criterion_main!(benches);
