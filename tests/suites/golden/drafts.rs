//! Expected replies change no token: on a language model of random weights, and in whole edits.

#![allow(clippy::unwrap_used, reason = "what helpers unwrap is part of the tests that call them")]

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::{Array2, ArrayD, Axis, Ix3};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use smartedit_core::decoding::{Decoding, DecodingError, DecodingInput, DecodingOptions, ImageTokens};
use smartedit_core::engine::Precision;
use smartedit_core::model::{LlamaConfig, NetworkConfig};
use smartedit_core::networks::random_weights_that_reply;
use smartedit_core::stage::{Session, Stage};
use smartedit_core::text::{PromptTokens, SpecialIds};
use smartedit_tests::engines::Row;
use smartedit_tests::tolerance::{Tolerance, view};

smartedit_tests::matrix!(row:
    drafts_change_no_token,
    a_right_draft_takes_one_pass,
);

const WORDS: u32 = 60;
const SPECIAL: SpecialIds = SpecialIds {
    unk: 0,
    bos: 1,
    eos: 2,
    image: WORDS,
    image_start: WORDS + 1,
    image_end: WORDS + 2,
    first_image_token: WORDS + 3,
    last_image_token: WORDS + 34,
};
/// The last token of the prompt; what follows it is the reply.
const LAST_OF_PROMPT: u32 = 5;
const FEATURES: usize = 7;

fn config() -> LlamaConfig {
    LlamaConfig {
        vocab_size: WORDS as usize + 35,
        hidden_size: 64,
        intermediate_size: 96,
        num_layers: 3,
        num_heads: 4,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        max_positions: 96,
        vision_size: 12,
    }
}

fn reply(words: u32) -> Vec<u32> {
    (10..10 + words).chain(SPECIAL.image_tokens()).collect()
}

/// A language model that replies with some words and the image tokens.
fn language_model(row: &Row, words: u32, seed: u64) -> Arc<dyn Stage> {
    let chain = [vec![LAST_OF_PROMPT], reply(words), vec![SPECIAL.eos]].concat();
    let weights = random_weights_that_reply(&config(), Precision::F32, seed, &chain)
        .unwrap_or_else(|e| panic!("weights: {e}"));
    row.backend
        .load(&NetworkConfig::LanguageModel(config()), &weights, &row.options)
        .unwrap_or_else(|e| panic!("{}: {e}", row.name))
}

fn prompt() -> PromptTokens {
    let ids = vec![1, 3, SPECIAL.image_start, SPECIAL.image_end, 7, 8, LAST_OF_PROMPT];
    PromptTokens { ids_without_image_token: ids, image_position: 3 }
}

fn features() -> ArrayD<f32> {
    let value = |index: usize| ((index * 7919 % 83) as f32 / 83.0) - 0.5;
    let width = config().vision_size;
    Array2::from_shape_fn((FEATURES, width), |(row, column)| value(row * width + column))
        .insert_axis(Axis(0))
        .into_dyn()
}

struct Decoded {
    outcome: Result<(Vec<u32>, Array2<f32>), DecodingError>,
    passes: usize,
}

fn drive(mut session: Box<dyn Session>, mut decoding: Decoding) -> Decoded {
    let mut passes = 0;
    while let Some(input) = decoding.next_input() {
        passes += 1;
        let mut outputs = session.run(&input.tensors(&features())).expect("the language model runs");
        let mut take = |name: &str| {
            let array = outputs.take_f32(name).unwrap_or_else(|e| panic!("{e}"));
            array.into_dimensionality::<Ix3>().unwrap_or_else(|e| panic!("{name}: {e}"))
        };
        let (states, logits) = (take("hidden_states"), take("logits"));
        if let Err(error) = decoding.advance(states.view(), logits.view()) {
            return Decoded { outcome: Err(error), passes };
        }
    }
    let states = decoding.image_states().expect("a complete reply has its states");
    Decoded { outcome: Ok((decoding.reply().to_vec(), states)), passes }
}

/// Greedy decoding as it is defined: a pass for every token, until the end of the reply.
fn one_by_one(stage: &dyn Stage) -> (Vec<u32>, Array2<f32>) {
    let (mut session, prompt) = (stage.session(), prompt());
    let mut input = DecodingInput {
        logits_from: prompt.ids_without_image_token.len() + FEATURES - 1,
        ids: prompt.ids_without_image_token,
        image_position: Some(prompt.image_position),
        cache_length: 0,
    };
    let (mut tokens, mut states) = (Vec::new(), Vec::new());
    loop {
        let outputs = session.run(&input.tensors(&features())).expect("the language model runs");
        let (hidden, logits) = (outputs.f32("hidden_states").unwrap(), outputs.f32("logits").unwrap());
        if tokens.last().is_some_and(|&last| SPECIAL.is_image_token(last)) {
            states.push(hidden.to_shape(config().hidden_size).unwrap().to_owned());
        }
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(id, _)| id as u32);
        let next = best.expect("the vocabulary is not empty");
        if next == SPECIAL.eos {
            let states: Vec<_> = states.iter().map(|state| state.view()).collect();
            return (tokens, ndarray::stack(Axis(0), &states).unwrap());
        }
        let fed = input.cache_length + input.logits_from + 1;
        input = DecodingInput { ids: vec![next], image_position: None, cache_length: fed, logits_from: 0 };
        tokens.push(next);
    }
}

/// The whole prompt in one pass.
fn decode(stage: &dyn Stage, options: DecodingOptions) -> Decoded {
    drive(stage.session(), Decoding::new(prompt(), FEATURES, SPECIAL, options))
}

/// The prompt's beginning in a pass of its own, and the rest in a fork of that session.
fn decode_forked(stage: &dyn Stage, options: DecodingOptions) -> Option<Decoded> {
    let PromptTokens { ids_without_image_token: ids, image_position } = prompt();
    let mut session = stage.session();
    let beginning = DecodingInput {
        ids: ids[..=image_position].to_vec(),
        image_position: Some(image_position),
        cache_length: 0,
        logits_from: 0,
    };
    session.run(&beginning.tensors(&features())).expect("the language model runs");
    let fork = session.fork()?;
    let fed = image_position + 1 + FEATURES;
    Some(drive(fork, Decoding::resume(fed, ids[image_position + 1..].to_vec(), SPECIAL, options)))
}

/// How a right reply is spoilt.
#[derive(Debug, Clone, Copy)]
enum Spoilt {
    Not,
    Short(usize),
    Long(usize),
    Wrong(usize, u32),
    Other(usize),
}

impl Spoilt {
    fn apply(self, right: &[u32]) -> Vec<u32> {
        let mut draft = right.to_vec();
        match self {
            Self::Not => {}
            Self::Short(length) => draft.truncate(length),
            // Longer than the reply, and than the positions that the model has left.
            Self::Long(more) => draft.extend(std::iter::repeat_n(9, more)),
            Self::Wrong(at, id) => {
                let at = at % draft.len();
                draft[at] = id;
            }
            Self::Other(length) => draft = vec![11; length],
        }
        draft
    }
}

fn spoilt() -> impl Strategy<Value = Spoilt> {
    prop_oneof![
        Just(Spoilt::Not),
        (0usize..45).prop_map(Spoilt::Short),
        (1usize..90).prop_map(Spoilt::Long),
        (0usize..45, 0..WORDS + 35).prop_map(|(at, id)| Spoilt::Wrong(at, id)),
        (0usize..45).prop_map(Spoilt::Other),
    ]
}

fn drafts_change_no_token(row: &Row) {
    let models: BTreeMap<u32, Arc<dyn Stage>> =
        [0, 4, 12].into_iter().map(|words| (words, language_model(row, words, words.into()))).collect();
    let defined: BTreeMap<u32, _> =
        models.iter().map(|(words, model)| (*words, one_by_one(model.as_ref()))).collect();
    let words = proptest::sample::select(models.keys().copied().collect::<Vec<_>>());
    let given = (
        words,
        proptest::collection::vec(spoilt(), 0..3),
        any::<bool>(),
        prop_oneof![Just(0.0f32), Just(0.8)],
        any::<u64>(),
        prop_oneof![Just(512usize), 1usize..50],
    );
    let check = |(words, spoilt, forced, temperature, seed, max_tokens): (u32, Vec<Spoilt>, _, _, _, _)| {
        let stage = models[&words].as_ref();
        let options = DecodingOptions {
            image_tokens: if forced { ImageTokens::Forced } else { ImageTokens::Free },
            temperature,
            seed,
            // One pass a token must end before the model's positions do.
            max_tokens: std::cmp::min(max_tokens, 50),
            max_positions: config().max_positions,
            ..DecodingOptions::default()
        };
        let plain = decode(stage, options.clone());
        let drafts = spoilt.iter().map(|spoilt| spoilt.apply(&reply(words))).collect();
        let options = DecodingOptions { drafts, ..options };
        let drafted = decode(stage, options.clone());
        same(row, &plain, &drafted)?;
        if temperature == 0.0 && drafted.outcome.is_ok() {
            let (tokens, states) = &defined[&words];
            let defined = Decoded { outcome: Ok((tokens.clone(), states.clone())), passes: 0 };
            same(row, &defined, &drafted)?;
        }
        match decode_forked(stage, options) {
            Some(forked) => same(row, &plain, &forked),
            None => Err(TestCaseError::fail("a language model's session can be forked")),
        }
    };
    let mut runner = TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
    runner.run(&given, check).unwrap_or_else(|e| panic!("{}: {e}", row.name));
}

fn same(row: &Row, expected: &Decoded, found: &Decoded) -> Result<(), TestCaseError> {
    match (&expected.outcome, &found.outcome) {
        (Ok((tokens, states)), Ok((found_tokens, found_states))) => {
            prop_assert_eq!(tokens, found_tokens);
            Tolerance::Close.check(Precision::F32, row.name, view(found_states), view(states));
        }
        (expected, found) => prop_assert_eq!(expected.as_ref().err(), found.as_ref().err()),
    }
    Ok(())
}

fn a_right_draft_takes_one_pass(row: &Row) {
    let stage = language_model(row, 12, 3);
    for image_tokens in [ImageTokens::Forced, ImageTokens::Free] {
        let options = DecodingOptions { image_tokens, ..DecodingOptions::default() };
        let plain = decode(stage.as_ref(), options.clone());
        let drafted = decode(stage.as_ref(), DecodingOptions { drafts: vec![reply(12)], ..options });
        assert_eq!((plain.passes, drafted.passes), (14, 1), "{image_tokens:?}");
        let (tokens, _) = drafted.outcome.expect("a reply");
        assert_eq!(tokens, reply(12), "the weights were made to reply so");
    }
}
