//! The language model's part of an edit.

use std::collections::VecDeque;

use ndarray::{Array3, ArrayD, Axis, Ix3};

use super::EditError;
use super::caching::{Caching, ReplyKey};
use super::model::{Model, SmartEdit, token_ids};
use super::prefix::{Part, Parts};
use crate::cache::{Claim, Key};
use crate::decoding::{Decoding, DecodingError, DecodingOptions};
use crate::model::IMAGE_TOKENS;
use crate::stage::{Session, StageError, StageKind};
use crate::tensor::Tensors;
use crate::text::PromptTokens;

const KIND: StageKind = StageKind::LanguageModel;

/// What the language model is asked.
pub(super) struct Question {
    pub(super) prompt: PromptTokens,
    /// The picture's features, `[1, p, e]`.
    pub(super) features: ArrayD<f32>,
    pub(super) options: DecodingOptions,
    /// Whether the prompt's beginning may come from before and be kept.
    pub(super) reuse: bool,
}

/// A reply in the making: the prompt's beginning is fed, then the rest of it and the reply.
pub(super) struct Replying {
    session: Box<dyn Session>,
    beginning: VecDeque<Part>,
    decoding: Decoding,
    features: ArrayD<f32>,
    reuse: bool,
    claim: Option<Claim>,
}

/// A reply and the states of its image tokens.
pub(super) struct Replied {
    pub(super) reply: Vec<u32>,
    /// `[1, 32, h]`.
    pub(super) states: ArrayD<f32>,
}

impl Question {
    /// What the answer is kept under; `None` if it is not.
    pub(super) fn key(&self, caching: &Caching, model: &Model, smartedit: &SmartEdit) -> Option<Key> {
        caching.reply_key(&ReplyKey {
            prompt: &self.prompt,
            features: &self.features,
            special: smartedit.tokenizer.special(),
            options: &self.options,
            in_parts: model.prefixes.is_some(),
        })
    }
}

impl Replying {
    /// Begins a reply, for which others may wait.
    pub(super) fn new(
        model: &Model,
        smartedit: &SmartEdit,
        question: Question,
        claim: Option<Claim>,
    ) -> Self {
        let Question { prompt, features, options, reuse } = question;
        let special = *smartedit.tokenizer.special();
        let stage = model.required(KIND);
        let prefixes = model.prefixes.as_ref();
        let Some(mut parts) = prefixes.and_then(|_| Parts::of(&prompt, &features)) else {
            let count = features.shape().get(1).copied().unwrap_or(0);
            let decoding = Decoding::new(prompt, count, special, options);
            let (session, beginning) = (stage.session(), VecDeque::new());
            return Self { session, beginning, decoding, features, reuse, claim };
        };
        let resumed = prefixes.filter(|_| reuse).and_then(|kept| kept.resume(&mut parts.beginning));
        let session = resumed.unwrap_or_else(|| stage.session());
        let decoding = Decoding::resume(parts.length, parts.rest, special, options);
        Self { session, beginning: parts.beginning, decoding, features, reuse, claim }
    }

    /// Feeds the language model once.
    pub(super) fn advance(&mut self, model: &Model, smartedit: &SmartEdit) -> Result<(), EditError> {
        if let Some(part) = self.beginning.pop_front() {
            self.session.run(&part.input.tensors(&self.features))?;
            if let Some(prefixes) = model.prefixes.as_ref().filter(|_| self.reuse) {
                prefixes.keep(&part, self.session.as_ref());
            }
            return Ok(());
        }
        let Some(input) = self.decoding.next_input() else { return Err(EditError::Over) };
        let mut outputs = self.session.run(&input.tensors(&self.features))?;
        let hidden = output(&mut outputs, "hidden_states")?;
        let logits = output(&mut outputs, "logits")?;
        self.decoding.advance(hidden.view(), logits.view()).map_err(|error| match error {
            DecodingError::ImageTokens { reply, found } => EditError::ImageTokens {
                reply: smartedit.tokenizer.decode(&reply),
                found,
                expected: IMAGE_TOKENS,
            },
            other => EditError::Output { stage: KIND, message: other.to_string() },
        })
    }

    /// Tokens of the reply so far.
    pub(super) fn tokens(&self) -> usize {
        self.decoding.reply().len()
    }

    /// The reply, once it is complete, with the picture's features. It is then kept for others.
    pub(super) fn finish(self: Box<Self>) -> Result<(Replied, ArrayD<f32>), Box<Self>> {
        let Some(states) = self.decoding.image_states() else { return Err(self) };
        let states = states.insert_axis(Axis(0)).into_dyn();
        let replied = Replied { reply: self.decoding.reply().to_vec(), states };
        if let Some(claim) = self.claim {
            claim.keep(replied.to_tensors());
        }
        Ok((replied, self.features))
    }
}

impl Replied {
    fn to_tensors(&self) -> Tensors {
        let reply = token_ids(std::slice::from_ref(&self.reply));
        Tensors::new().with("image_states", self.states.clone()).with("reply", reply)
    }

    /// What was kept by [`Replying::finish`].
    pub(super) fn from_tensors(kept: &Tensors) -> Result<Self, EditError> {
        let failed = |source| StageError::Tensors { stage: KIND, source };
        let reply = kept.i64("reply").map_err(failed)?.iter().map(|&id| id as u32).collect();
        Ok(Self { reply, states: kept.f32("image_states").map_err(failed)?.to_owned() })
    }
}

fn output(outputs: &mut Tensors, name: &str) -> Result<Array3<f32>, EditError> {
    let array = outputs.take_f32(name).map_err(|source| StageError::Tensors { stage: KIND, source })?;
    let message = format!("shape {:?} has not three dimensions", array.shape());
    array.into_dimensionality::<Ix3>().map_err(|_| EditError::Output { stage: KIND, message })
}
