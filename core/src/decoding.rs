//! The language model's reply as a state machine without I/O.
//!
//! [`Decoding::next_input`] says which tokens the language model is to be fed, [`Decoding::advance`] takes their
//! states and logits, until the states of all image tokens are there. A draft of the reply may be proposed: it is
//! fed in one pass and kept as far as the model agrees with it, which yields the same tokens as feeding them one
//! by one.

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
    /// The reply as it is expected.
    pub draft: Vec<u32>,
}

impl Default for DecodingOptions {
    fn default() -> Self {
        Self {
            image_tokens: ImageTokens::default(),
            temperature: 0.0,
            seed: 0,
            max_tokens: 512,
            draft: Vec::new(),
        }
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
    prompt: Option<PromptTokens>,
    /// Positions of the prompt, image features included.
    prompt_length: usize,
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

impl Decoding {
    /// Begins a reply to a prompt in which `image_features` features are spliced.
    pub fn new(
        prompt: PromptTokens,
        image_features: usize,
        special: SpecialIds,
        options: DecodingOptions,
    ) -> Self {
        // The noise of the denoising loop comes from stream 0 of the same key.
        let mut key = [0; 32];
        key[..8].copy_from_slice(&options.seed.to_le_bytes());
        let mut rng = ChaCha20Rng::from_seed(key);
        rng.set_stream(1);
        Self {
            prompt_length: prompt.ids_without_image_token.len() + image_features,
            prompt: Some(prompt),
            special,
            options,
            rng,
            cache_length: 0,
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
        let draft = self.draft();
        let (mut ids, image_position, logits_from) = match &self.prompt {
            Some(prompt) => {
                let ids = prompt.ids_without_image_token.clone();
                (ids, Some(prompt.image_position), self.prompt_length.saturating_sub(1))
            }
            None => (self.committed.clone(), None, self.committed.len().saturating_sub(1)),
        };
        ids.extend_from_slice(draft);
        Some(DecodingInput { ids, image_position, cache_length: self.cache_length, logits_from })
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
        let draft = self.draft().to_vec();
        let fed_before_draft = match self.prompt {
            Some(_) => self.prompt_length,
            None => self.committed.len(),
        };
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

    /// The part of the draft that is not in the reply yet; nothing once the reply has left the draft.
    fn draft(&self) -> &[u32] {
        let chosen = self.reply.len();
        match self.options.draft.get(..chosen) {
            Some(start) if start == self.reply => &self.options.draft[chosen..],
            _ => &[],
        }
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
        let id = if self.options.temperature < 1e-4 {
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
        match self.options.image_tokens {
            ImageTokens::Forced => self.states.len() == IMAGE_TOKENS || next == self.special.eos,
            ImageTokens::Free => next == self.special.eos || self.states.len() >= REFERENCE_STATES,
        }
    }

    fn go_on_with(&mut self, next: u32) -> Result<(), DecodingError> {
        if self.ended(next) || self.reply.len() >= self.options.max_tokens {
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
