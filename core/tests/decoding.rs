//! Properties of the reply's state machine, on a language model that is a hash of what it was fed.

use ndarray::{Array2, Array3};
use proptest::prelude::*;
use smartedit_core::decoding::{Decoding, DecodingError, DecodingOptions, ImageTokens};
use smartedit_core::text::{PromptTokens, SpecialIds};

const VOCABULARY: usize = 44;
const IMAGE_FEATURES: usize = 5;
const SPECIAL: SpecialIds = SpecialIds {
    unk: 0,
    bos: 1,
    eos: 2,
    image: 9,
    image_start: 10,
    image_end: 11,
    first_image_token: 12,
    last_image_token: 43,
};

/// A language model that follows a script as long as it has been fed that script, and then says what a hash of
/// everything it was fed tells.
struct Model {
    script: Vec<u32>,
    /// Everything fed, image features as token 99.
    fed: Vec<u32>,
    prompt: usize,
    passes: usize,
}

impl Model {
    fn new(script: &[u32]) -> Self {
        Self { script: script.to_vec(), fed: Vec::new(), prompt: 0, passes: 0 }
    }

    fn hash(prefix: &[u32]) -> u64 {
        prefix.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &id| {
            (hash ^ u64::from(id)).wrapping_mul(0x0100_0000_01b3).rotate_left(17)
        })
    }

    fn logits(&self, prefix: &[u32]) -> Vec<f32> {
        let hash = Self::hash(prefix);
        let noise = |id: usize| (hash.wrapping_mul(2 * id as u64 + 1) >> 40) as f32 / (1u64 << 24) as f32;
        let mut logits: Vec<f32> = (0..VOCABULARY).map(|id| 3.0 * noise(id)).collect();
        let reply = &prefix[self.prompt..];
        if self.script.starts_with(reply) {
            let next = self.script.get(reply.len()).copied().unwrap_or(SPECIAL.eos);
            logits[next as usize] += 9.0;
        }
        logits
    }

    /// Runs the model on an input as a stage would: positions after `cache_length` are forgotten first.
    fn run(&mut self, input: &smartedit_core::decoding::DecodingInput) -> (Array3<f32>, Array3<f32>) {
        self.passes += 1;
        self.fed.truncate(input.cache_length);
        let start = self.fed.len();
        for (index, &id) in input.ids.iter().enumerate() {
            if input.image_position == Some(index) {
                self.fed.extend([99; IMAGE_FEATURES]);
            }
            self.fed.push(id);
        }
        if self.prompt == 0 {
            self.prompt = start + input.logits_from + 1;
        }
        let count = self.fed.len() - start;
        let states = Array2::from_shape_fn((count, 2), |(row, column)| {
            (Self::hash(&self.fed[..=start + row]) >> (8 * column)) as u16 as f32
        });
        let rows: Vec<f32> =
            (input.logits_from..count).flat_map(|row| self.logits(&self.fed[..=start + row])).collect();
        let logits = Array2::from_shape_vec((count - input.logits_from, VOCABULARY), rows);
        (states.insert_axis(ndarray::Axis(0)), logits.expect("rows of logits").insert_axis(ndarray::Axis(0)))
    }
}

type Reply = Result<(Vec<u32>, Array2<f32>), DecodingError>;

fn prompt() -> PromptTokens {
    PromptTokens { ids_without_image_token: vec![1, 10, 11, 4, 5], image_position: 2 }
}

fn decode(script: &[u32], options: DecodingOptions) -> (Reply, usize) {
    let decoding = Decoding::new(prompt(), IMAGE_FEATURES, SPECIAL, options);
    drive(decoding, Model::new(script))
}

fn drive(mut decoding: Decoding, mut model: Model) -> (Reply, usize) {
    while let Some(input) = decoding.next_input() {
        let (states, logits) = model.run(&input);
        if let Err(error) = decoding.advance(states.view(), logits.view()) {
            return (Err(error), model.passes);
        }
        assert!(model.passes < 1000, "the reply must end");
    }
    let states = decoding.image_states().expect("a complete reply has its states");
    (Ok((decoding.reply().to_vec(), states)), model.passes)
}

fn image_tokens() -> Vec<u32> {
    SPECIAL.image_tokens().collect()
}

fn script(words: &[u32]) -> Vec<u32> {
    words.iter().copied().chain(image_tokens()).collect()
}

fn words() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(3u32..9, 0..6)
}

/// A script and what is expected of it: the script itself, a beginning of it, more than it, it with a part changed,
/// or something else.
fn script_and_drafts() -> impl Strategy<Value = (Vec<u32>, Vec<Vec<u32>>)> {
    let spoilt = (0usize..40, 2u32..44, 0usize..5);
    (words(), proptest::collection::vec(spoilt, 0..4)).prop_map(|(words, spoilt)| {
        let script = script(&words);
        let drafts = spoilt.into_iter().map(|(at, id, how)| {
            let mut draft = script.clone();
            match how {
                0 => {}
                1 => draft.truncate(at),
                2 => draft.extend(vec![id; at]),
                3 if at < draft.len() => draft[at] = id,
                _ => draft = vec![id; at],
            }
            draft
        });
        let drafts = drafts.collect();
        (script, drafts)
    })
}

proptest! {
    #[test]
    fn drafts_change_nothing_but_the_number_of_passes(
        (script, drafts) in script_and_drafts(),
        forced in any::<bool>(),
        temperature in prop_oneof![Just(0.0f32), Just(0.7f32)],
        seed in any::<u64>(),
        max_tokens in 1usize..60,
    ) {
        let image_tokens = if forced { ImageTokens::Forced } else { ImageTokens::Free };
        let options =
            DecodingOptions { image_tokens, temperature, seed, max_tokens, ..DecodingOptions::default() };
        let (one_by_one, passes) = decode(&script, options.clone());
        let wrong = drafts.len();
        let (drafted, passes_drafted) = decode(&script, DecodingOptions { drafts, ..options });
        prop_assert_eq!(one_by_one, drafted);
        prop_assert!(passes_drafted <= passes + wrong);
    }

    #[test]
    fn a_prompt_fed_in_two_parts_changes_nothing(
        (script, drafts) in script_and_drafts(),
        split in 2usize..5,
    ) {
        let options = DecodingOptions { drafts, ..DecodingOptions::default() };
        let (whole, _) = decode(&script, options.clone());
        let ids = prompt().ids_without_image_token;
        let mut model = Model::new(&script);
        model.fed = [&ids[..2], &[99; IMAGE_FEATURES], &ids[2..split]].concat();
        let decoding = Decoding::resume(model.fed.len(), ids[split..].to_vec(), SPECIAL, options);
        prop_assert_eq!(whole, drive(decoding, model).0);
    }

    #[test]
    fn greedy_replies_follow_the_model(words in words()) {
        for image_tokens in [ImageTokens::Forced, ImageTokens::Free] {
            let options = DecodingOptions { image_tokens, ..DecodingOptions::default() };
            let (reply, _) = decode(&script(&words), options);
            let (reply, states) = reply.expect("the script has all image tokens");
            prop_assert_eq!(&reply, &script(&words));
            prop_assert_eq!(states.nrows(), 32);
        }
    }
}

#[test]
fn a_right_draft_takes_one_pass() {
    let draft = script(&[3, 4]);
    let options = DecodingOptions { drafts: vec![draft.clone()], ..DecodingOptions::default() };
    assert_eq!(decode(&draft, options).1, 1);
}

#[test]
fn what_is_left_of_another_draft_follows_one_that_is_left() {
    let drafts = vec![script(&[3, 5]), script(&[3, 4, 6])];
    let options = DecodingOptions { drafts, ..DecodingOptions::default() };
    assert_eq!(decode(&script(&[3, 4, 6]), options).1, 2);
}

#[test]
fn image_tokens_that_have_begun_are_expected_to_go_on() {
    let options = DecodingOptions { image_tokens: ImageTokens::Free, ..DecodingOptions::default() };
    assert_eq!(decode(&script(&[3]), options).1, 3, "the prompt, the word, all image tokens");
}

#[test]
fn no_draft_goes_beyond_the_models_positions() {
    let draft = script(&[3, 4]);
    let prompt_length = prompt().ids_without_image_token.len() + IMAGE_FEATURES;
    let options = DecodingOptions {
        drafts: vec![draft.clone()],
        max_positions: prompt_length + 10,
        ..DecodingOptions::default()
    };
    let input = Decoding::new(prompt(), IMAGE_FEATURES, SPECIAL, options.clone()).next_input();
    assert_eq!(input.expect("a prompt").ids[5..], draft[..10]);
    assert_eq!(decode(&draft, options).0.expect("a reply").0, draft);
}

#[test]
fn forced_image_tokens_take_one_pass_after_the_first() {
    let (reply, passes) = decode(&script(&[3, 4]), DecodingOptions::default());
    assert_eq!(reply.expect("a reply").0, script(&[3, 4]));
    assert_eq!(passes, 4, "the prompt, two words, all image tokens");
}

#[test]
fn forced_image_tokens_begin_with_the_first_whichever_the_model_says() {
    let (reply, _) = decode(&[3, SPECIAL.first_image_token + 6], DecodingOptions::default());
    assert_eq!(reply.expect("a reply").0, script(&[3]));
}

#[test]
fn a_reply_without_image_tokens_is_an_error_that_holds_it() {
    let (reply, _) = decode(&[3, 4, SPECIAL.eos], DecodingOptions::default());
    assert_eq!(reply.unwrap_err(), DecodingError::ImageTokens { reply: vec![3, 4], found: 0 });
}

#[test]
fn free_image_tokens_must_all_be_there() {
    let options = DecodingOptions { image_tokens: ImageTokens::Free, ..DecodingOptions::default() };
    let mut short = script(&[3]);
    short.pop();
    short.push(SPECIAL.eos);
    let error = decode(&short, options.clone()).0.unwrap_err();
    assert!(matches!(error, DecodingError::ImageTokens { found: 31, .. }), "{error}");
    let mut long = script(&[]);
    long.extend([12; 9]);
    let error = decode(&long, options).0.unwrap_err();
    assert!(matches!(error, DecodingError::ImageTokens { found: 35, .. }), "{error}");
}

#[test]
fn a_reply_that_does_not_end_is_cut_off() {
    let options = DecodingOptions { max_tokens: 20, ..DecodingOptions::default() };
    let error = decode(&[3; 100], options).0.unwrap_err();
    assert!(matches!(&error, DecodingError::ImageTokens { reply, found: 0 } if reply.len() == 20), "{error}");
}

#[test]
fn states_of_other_tokens_are_refused() {
    let prompt = PromptTokens { ids_without_image_token: vec![1, 4], image_position: 1 };
    let mut decoding = Decoding::new(prompt, IMAGE_FEATURES, SPECIAL, DecodingOptions::default());
    let (states, logits) = (Array3::zeros((1, 3, 2)), Array3::zeros((1, 1, VOCABULARY)));
    let error = decoding.advance(states.view(), logits.view()).unwrap_err();
    assert!(error.to_string().contains("hidden_states"), "{error}");
}
