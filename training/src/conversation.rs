//! Prompts and replies as batches for the language model.

use anyhow::{Context as _, Result};
use smartedit_core::model::{IMAGE_TOKENS, LlamaConfig, PromptConfig};
use smartedit_core::networks::{LanguageModel, Positions, causal_mask, rotary_tables};
use smartedit_core::tensor::HostTensor;
use smartedit_core::text::{LlamaTokenizer, Prompt, Segment};
use smartedit_torch::TorchTensor;
use tch::{Kind, Tensor};

use crate::machine::{Attention, Machine, leave};

/// What cross-entropy leaves out.
const IGNORED: i64 = -100;

/// A prompt with the reply that is to be learnt.
pub struct Turn {
    /// Ids, with `None` where a patch of the picture stands.
    tokens: Vec<Option<u32>>,
    /// Where the reply begins.
    reply: usize,
}

/// Makes turns.
pub struct Speaker<'a> {
    tokenizer: &'a LlamaTokenizer,
    prompt: &'a PromptConfig,
    patches: usize,
}

impl<'a> Speaker<'a> {
    /// Speaks of pictures of so many patches.
    pub fn new(tokenizer: &'a LlamaTokenizer, prompt: &'a PromptConfig, patches: usize) -> Self {
        Self { tokenizer, prompt, patches }
    }

    /// A prompt with a picture. `[img]` in the reply stands for the image tokens. The template is one of the
    /// prompt's, by its index.
    ///
    /// # Errors
    /// A text cannot be tokenized.
    pub fn turn(&self, template: usize, instruction: &str, reply: &str) -> Result<Turn> {
        let template = self.prompt.templates.get(template).context("the prompt has no such template")?;
        let prompt = Prompt::new(&self.prompt.system, template, instruction).encode(self.tokenizer, false)?;
        let (before, after) = prompt.ids_without_image_token.split_at(prompt.image_position);
        let tokens = before
            .iter()
            .map(|&id| Some(id))
            .chain(std::iter::repeat_n(None, self.patches))
            .chain(after.iter().map(|&id| Some(id)));
        self.answered(tokens.collect(), reply)
    }

    /// The same without a picture: the first stage of the paper is of texts alone.
    ///
    /// # Errors
    /// A text cannot be tokenized.
    pub fn text_turn(&self, request: &str, reply: &str) -> Result<Turn> {
        let prompt = format!("{} USER: {request} ASSISTANT:", self.prompt.system);
        let ids = self.tokenizer.encode(&[Segment::Template(&prompt)])?;
        self.answered(ids.into_iter().map(Some).collect(), reply)
    }

    fn answered(&self, mut tokens: Vec<Option<u32>>, reply: &str) -> Result<Turn> {
        let special = self.tokenizer.special();
        let (words, image) = reply.split_once("[img]").map_or((reply, false), |(words, _)| (words, true));
        let words = self.tokenizer.encode(&[Segment::Template(words.trim())])?;
        let start = tokens.len();
        tokens.extend(words.into_iter().filter(|id| *id != special.bos).map(Some));
        if image {
            tokens.extend(special.image_tokens().map(Some));
        }
        tokens.push(Some(special.eos));
        Ok(Turn { tokens, reply: start })
    }
}

/// Turns side by side, padded on the right.
pub struct Conversation {
    /// `[batch, n]`, 0 where a patch stands.
    ids: Tensor,
    /// `[batch, n, 1]`: whether a patch stands there.
    is_patch: Tensor,
    /// `[batch, n]`: which patch.
    patch: Tensor,
    /// `[batch · n]`: which token should follow, where a reply is to be learnt.
    labels: Tensor,
    /// `[batch, 32]`: where the image tokens stand; `None` if not every turn has them.
    image_tokens: Option<Tensor>,
    length: usize,
}

/// What the language model made of a conversation.
pub struct Heard {
    /// Mean cross-entropy of the replies' tokens.
    pub loss: Tensor,
    /// Part of the replies' tokens that were likeliest.
    pub accuracy: Tensor,
    /// States of the image tokens, `[batch, 32, h]`, if all turns have them.
    pub states: Option<TorchTensor>,
    /// The attentions of the layers.
    pub attentions: Vec<Attention>,
}

impl Conversation {
    /// A batch of turns.
    pub fn new(turns: &[Turn], first_image_token: u32) -> Self {
        let length = turns.iter().map(|turn| turn.tokens.len()).max().unwrap_or(0).next_multiple_of(8);
        let (mut ids, mut is_patch, mut patch, mut labels, mut places) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for turn in turns {
            let mut patches = 0i64;
            for position in 0..length {
                let token = turn.tokens.get(position).copied();
                let is = token == Some(None);
                is_patch.push(is);
                patch.push(if is { patches } else { 0 });
                patches += i64::from(is);
                let id = token.flatten().unwrap_or(0);
                ids.push(i64::from(id));
                let next = turn.tokens.get(position + 1).copied().flatten().map_or(IGNORED, i64::from);
                labels.push(if position + 1 >= turn.reply { next } else { IGNORED });
                if (first_image_token..first_image_token + IMAGE_TOKENS as u32).contains(&id) {
                    places.push(position as i64);
                }
            }
        }
        let (batch, n) = (turns.len() as i64, length as i64);
        let whole = places.len() == turns.len() * IMAGE_TOKENS;
        Self {
            ids: Tensor::from_slice(&ids).reshape([batch, n]),
            is_patch: Tensor::from_slice(&is_patch).reshape([batch, n, 1]),
            patch: Tensor::from_slice(&patch).reshape([batch, n]),
            labels: Tensor::from_slice(&labels),
            image_tokens: whole.then(|| Tensor::from_slice(&places).reshape([batch, IMAGE_TOKENS as i64])),
            length,
        }
    }

    /// Runs the language model on it; `features` are the pictures' patches `[batch, p, e]`, if there are pictures.
    ///
    /// # Errors
    /// An operation fails.
    pub fn hear(
        &self,
        machine: &Machine,
        model: &LanguageModel<TorchTensor>,
        config: &LlamaConfig,
        features: Option<&Tensor>,
    ) -> Result<Heard> {
        let e = machine.engine();
        let mut embedded = leave(&model.embed(e, &TorchTensor::from(self.ids.shallow_clone()))?)?;
        if let Some(features) = features {
            let rows = leave(&model.project(e, &machine.enter(features))?)?;
            let width = rows.size()[2];
            let index = self.patch.unsqueeze(2).expand([-1, -1, width], false);
            embedded = rows.gather(1, &index, false).where_self(&self.is_patch, &embedded);
        }
        let (cos, sin) = rotary_tables(config, 0, self.length);
        let positions = Positions {
            cos: machine.constant(HostTensor::from(cos))?,
            sin: machine.constant(HostTensor::from(sin))?,
            mask: machine.constant(HostTensor::from(causal_mask(0, self.length)))?,
        };
        let (states, attentions) =
            machine.watching(|| model.forward(e, machine.enter(&embedded), &positions, None));
        let (states, _) = states?;
        let flat = leave(&states)?.reshape([self.labels.size()[0], -1]);
        let learnt = self.labels.not_equal(IGNORED).nonzero().squeeze_dim(1);
        let labels = self.labels.index_select(0, &learnt);
        let logits = leave(&model.logits(e, &machine.enter(&flat.index_select(0, &learnt).unsqueeze(0)))?)?
            .squeeze_dim(0);
        let accuracy = logits.argmax(-1, false).eq_tensor(&labels).to_kind(Kind::Float).mean(Kind::Float);
        let states = match &self.image_tokens {
            Some(places) => {
                let states = leave(&states)?;
                let index = places.unsqueeze(2).expand([-1, -1, states.size()[2]], false);
                Some(machine.enter(&states.gather(1, &index, false)))
            }
            None => None,
        };
        Ok(Heard { loss: logits.cross_entropy_for_logits(&labels), accuracy, states, attentions })
    }

    /// How little the first heads of the given attentions look, from the image tokens, at the patches of a mask
    /// `[batch, p]`: the mean of `−log` of the attention they get.
    pub fn attention_loss(&self, attentions: &[Attention], patches: &Tensor) -> Option<Tensor> {
        let places = self.image_tokens.as_ref()?;
        let losses: Vec<Tensor> = attentions
            .iter()
            .map(|attention| {
                let scores = attention.scores_of_first_head();
                let n = scores.size()[2];
                let rows = scores.gather(1, &places.unsqueeze(2).expand([-1, -1, n], false), false);
                let columns = Tensor::arange(n, tch::kind::INT64_CPU).reshape([1, 1, n]);
                let rows = rows.masked_fill(&columns.greater_tensor(&places.unsqueeze(2)), f64::NEG_INFINITY);
                let shown = self
                    .is_patch
                    .squeeze_dim(2)
                    .logical_and(&patches.gather(1, &self.patch, false).greater(0.5));
                let there = rows.masked_fill(&shown.logical_not().unsqueeze(1), f64::NEG_INFINITY);
                (rows.logsumexp([-1i64].as_slice(), false) - there.logsumexp([-1i64].as_slice(), false))
                    .mean(Kind::Float)
            })
            .collect();
        (!losses.is_empty()).then(|| Tensor::stack(&losses, 0).mean(Kind::Float))
    }
}
