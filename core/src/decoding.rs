//! The language model's reply as a state machine without I/O.
//!
//! [`Decoding::next_input`] says which tokens the language model is to be fed, [`Decoding::advance`] takes their
//! states and logits, until the states of all image tokens are there. Replies may be expected: the first that the
//! reply has not left yet is fed ahead in one pass, with the prompt or with what was chosen last, and kept as far as
//! the model agrees with it. That yields the tokens of feeding them one by one, whatever was expected: each is
//! chosen from the logits after its predecessors, sampled ones with the same random number.

use ndarray::{Array2, ArrayD, ArrayView1, ArrayView2, ArrayView3, Axis, arr1, stack};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::model::IMAGE_TOKENS;
use crate::tensor::Tensors;
use crate::text::{PromptTokens, SpecialIds};

/// Image-token states at which the reference stops, three more than it can use.
const REFERENCE_STATES: usize = IMAGE_TOKENS + 3;

/// What is accepted as the image tokens of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImageTokens {
    /// From the first image token on, all 32 are fed in order: they carry no information but their states.
    #[default]
    Forced,
    /// The language model must emit all 32 itself and then end, as in the reference.
    Free,
}

/// How a reply is chosen.
#[derive(Debug, Clone)]
pub struct DecodingOptions {
    /// What is accepted as the image tokens.
    pub image_tokens: ImageTokens,
    /// Below 10⁻⁴ the likeliest token is taken; else one is sampled from all, with logits divided by this.
    pub temperature: f32,
    /// Seed of the sampling.
    pub seed: u64,
    /// Tokens after which a reply without all image tokens has failed.
    pub max_tokens: usize,
    /// Replies as they are expected, the likeliest first.
    pub drafts: Vec<Vec<u32>>,
    /// Positions that the language model has; no draft goes beyond.
    pub max_positions: usize,
}

impl Default for DecodingOptions {
    fn default() -> Self {
        Self {
            image_tokens: ImageTokens::default(),
            temperature: 0.0,
            seed: 0,
            max_tokens: 512,
            drafts: Vec::new(),
            max_positions: usize::MAX,
        }
    }
}

impl DecodingOptions {
    /// Whether the likeliest token is taken, so that the seed is of no consequence.
    pub fn is_greedy(&self) -> bool {
        self.temperature < 1e-4
    }
}

/// What the language model is to be fed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodingInput {
    /// Tokens in their order.
    pub ids: Vec<u32>,
    /// Before which of them the image features stand; with the prompt only.
    pub image_position: Option<usize>,
    /// Positions fed before that stay; those after are to be forgotten.
    pub cache_length: usize,
    /// The first of the fed positions whose logits are needed.
    pub logits_from: usize,
}

impl DecodingInput {
    /// The input as the language model's stage takes it; `image_features` are `[1, p, e]`.
    pub fn tensors(&self, image_features: &ArrayD<f32>) -> Tensors {
        let index = |value: usize| arr1(&[value as i64]);
        let ids = Array2::from_shape_fn((1, self.ids.len()), |(_, token)| i64::from(self.ids[token]));
        let inputs = Tensors::new()
            .with("input_ids", ids)
            .with("cache_length", index(self.cache_length))
            .with("logits_from", index(self.logits_from));
        match self.image_position {
            Some(position) => {
                inputs.with("image_features", image_features.clone()).with("image_position", index(position))
            }
            None => inputs,
        }
    }
}

/// The reply cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodingError {
    /// It does not hold the image tokens.
    #[error("the reply has {found} image tokens instead of {IMAGE_TOKENS}")]
    ImageTokens {
        /// The reply's tokens.
        reply: Vec<u32>,
        /// Image tokens in it.
        found: usize,
    },
    /// States or logits are not those of the tokens that were to be fed.
    #[error("{what} have shape {found:?}; {rows} rows are needed")]
    Shape {
        /// `hidden_states` or `logits`.
        what: &'static str,
        /// The shape given.
        found: Vec<usize>,
        /// The rows needed.
        rows: usize,
    },
    /// There is nothing left to feed.
    #[error("the reply is complete")]
    Complete,
}

/// A reply in the making.
pub struct Decoding {
    prompt: Option<Unfed>,
    special: SpecialIds,
    options: DecodingOptions,
    rng: ChaCha20Rng,
    cache_length: usize,
    /// Chosen, not yet fed.
    committed: Vec<u32>,
    reply: Vec<u32>,
    states: Vec<ndarray::Array1<f32>>,
    complete: bool,
}

/// What of a prompt is not fed yet.
struct Unfed {
    ids: Vec<u32>,
    image_position: Option<usize>,
    /// Positions, image features included.
    length: usize,
}

impl Decoding {
    /// Begins a reply to a prompt in which `image_features` features are spliced.
    pub fn new(
        prompt: PromptTokens,
        image_features: usize,
        special: SpecialIds,
        options: DecodingOptions,
    ) -> Self {
        let ids = prompt.ids_without_image_token;
        let length = ids.len() + image_features;
        Self::begin(Unfed { ids, image_position: Some(prompt.image_position), length }, 0, special, options)
    }

    /// Begins a reply to a prompt of which `fed` positions, the image features among them, have been fed already;
    /// `rest`, one token at least, has not.
    pub fn resume(fed: usize, rest: Vec<u32>, special: SpecialIds, options: DecodingOptions) -> Self {
        let length = rest.len();
        Self::begin(Unfed { ids: rest, image_position: None, length }, fed, special, options)
    }

    fn begin(prompt: Unfed, cache_length: usize, special: SpecialIds, options: DecodingOptions) -> Self {
        // The noise of the denoising loop comes from stream 0 of the same key.
        let mut key = [0; 32];
        key[..8].copy_from_slice(&options.seed.to_le_bytes());
        let mut rng = ChaCha20Rng::from_seed(key);
        rng.set_stream(1);
        Self {
            prompt: Some(prompt),
            special,
            options,
            rng,
            cache_length,
            committed: Vec::new(),
            reply: Vec::new(),
            states: Vec::new(),
            complete: false,
        }
    }

    /// What the language model is to be fed next; `None` when the reply is complete.
    pub fn next_input(&self) -> Option<DecodingInput> {
        if self.complete {
            return None;
        }
        let (mut ids, image_position) = match &self.prompt {
            Some(prompt) => (prompt.ids.clone(), prompt.image_position),
            None => (self.committed.clone(), None),
        };
        ids.extend(self.draft());
        let logits_from = self.certain().saturating_sub(1);
        Some(DecodingInput { ids, image_position, cache_length: self.cache_length, logits_from })
    }

    /// Positions that are fed next and stay, whatever the model says.
    fn certain(&self) -> usize {
        self.prompt.as_ref().map_or(self.committed.len(), |prompt| prompt.length)
    }

    /// Takes what the language model made of the last [`Decoding::next_input`]: `hidden_states [1, m, h]` of all
    /// fed positions, `logits [1, l, v]` of those asked for.
    pub fn advance(
        &mut self,
        hidden_states: ArrayView3<'_, f32>,
        logits: ArrayView3<'_, f32>,
    ) -> Result<(), DecodingError> {
        if self.complete {
            return Err(DecodingError::Complete);
        }
        let draft = self.draft();
        let fed_before_draft = self.certain();
        let states = first_of_batch("hidden_states", &hidden_states, fed_before_draft + draft.len())?;
        let logits = first_of_batch("logits", &logits, 1 + draft.len())?;

        if self.prompt.take().is_none() {
            for (index, id) in std::mem::take(&mut self.committed).into_iter().enumerate() {
                self.record(id, states.row(index));
            }
        }
        self.cache_length += fed_before_draft;
        let mut next = self.choose(logits.row(0));
        for (index, &guess) in draft.iter().enumerate() {
            if self.ended(next) || guess != next {
                break;
            }
            self.reply.push(next);
            self.record(next, states.row(fed_before_draft + index));
            self.cache_length += 1;
            next = self.choose(logits.row(1 + index));
        }
        self.go_on_with(next)
    }

    /// Tokens of the reply so far, image tokens included.
    pub fn reply(&self) -> &[u32] {
        &self.reply
    }

    /// States of the image tokens in their order, `[32, h]`; `None` until the reply is complete.
    pub fn image_states(&self) -> Option<Array2<f32>> {
        if !self.complete {
            return None;
        }
        let rows: Vec<ArrayView1<'_, f32>> = self.states.iter().map(|state| state.view()).collect();
        stack(Axis(0), &rows).ok()
    }

    /// What is fed ahead: the rest of the first draft that the reply has not left; where it has left all of them
    /// and image tokens have begun, the rest of those.
    fn draft(&self) -> Vec<u32> {
        let rest = |draft: &Vec<u32>| draft.strip_prefix(self.reply.as_slice()).map(<[u32]>::to_vec);
        let mut rests = self.options.drafts.iter().filter_map(rest);
        let mut draft =
            rests.find(|rest| !rest.is_empty()).unwrap_or_else(|| self.image_tokens_to_come().collect());
        let free = self.options.max_positions.saturating_sub(self.cache_length + self.certain());
        draft.truncate(free);
        draft
    }

    /// The image tokens after the reply's last token, if that is one.
    fn image_tokens_to_come(&self) -> impl Iterator<Item = u32> {
        let last = self.reply.last().copied().filter(|&last| self.special.is_image_token(last));
        last.map(|last| last + 1..=self.special.last_image_token).into_iter().flatten()
    }

    fn record(&mut self, id: u32, state: ArrayView1<'_, f32>) {
        if self.special.is_image_token(id) {
            self.states.push(state.to_owned());
        }
    }

    /// The token after those of the reply.
    fn choose(&mut self, logits: ArrayView1<'_, f32>) -> u32 {
        if let Some(id) = self.forced() {
            return id;
        }
        let id = if self.options.is_greedy() {
            argmax(logits)
        } else {
            sample(logits, self.options.temperature, &mut self.rng)
        };
        if self.options.image_tokens == ImageTokens::Forced && self.special.is_image_token(id) {
            return self.special.first_image_token;
        }
        id
    }

    /// The image token that must come next because its predecessor has come.
    fn forced(&self) -> Option<u32> {
        let last = *self.reply.last()?;
        let follows = self.options.image_tokens == ImageTokens::Forced
            && self.special.is_image_token(last)
            && last != self.special.last_image_token;
        follows.then_some(last + 1)
    }

    /// Whether nothing is fed after what has been recorded and `next` has been chosen.
    fn ended(&self, next: u32) -> bool {
        if self.reply.len() >= self.options.max_tokens && self.forced().is_none() {
            return true;
        }
        match self.options.image_tokens {
            ImageTokens::Forced => self.states.len() == IMAGE_TOKENS || next == self.special.eos,
            ImageTokens::Free => next == self.special.eos || self.states.len() >= REFERENCE_STATES,
        }
    }

    fn go_on_with(&mut self, next: u32) -> Result<(), DecodingError> {
        if self.ended(next) {
            if self.states.len() != IMAGE_TOKENS {
                let found = self.states.len();
                return Err(DecodingError::ImageTokens { reply: std::mem::take(&mut self.reply), found });
            }
            self.complete = true;
            return Ok(());
        }
        self.reply.push(next);
        self.committed.push(next);
        while let Some(id) = self.forced() {
            self.reply.push(id);
            self.committed.push(id);
        }
        Ok(())
    }
}

fn first_of_batch<'a>(
    what: &'static str,
    array: &'a ArrayView3<'_, f32>,
    rows: usize,
) -> Result<ArrayView2<'a, f32>, DecodingError> {
    if array.dim().0 != 1 || array.dim().1 != rows {
        return Err(DecodingError::Shape { what, found: array.shape().to_vec(), rows });
    }
    Ok(array.index_axis(Axis(0), 0))
}

fn argmax(logits: ArrayView1<'_, f32>) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (id, logit);
        }
    }
    best.0 as u32
}

fn sample(logits: ArrayView1<'_, f32>, temperature: f32, rng: &mut ChaCha20Rng) -> u32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| f64::from((logit - max) / temperature).exp();
    let total: f64 = logits.iter().map(|&logit| weight(logit)).sum();
    let mut rest = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
    for (id, &logit) in logits.iter().enumerate() {
        rest -= weight(logit);
        if rest < 0.0 {
            return id as u32;
        }
    }
    argmax(logits)
}
