//! The language model's reply to the measured prompt, known beforehand.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use ndarray::{ArrayD, Ix3};
use smartedit_core::decoding::{Decoding, DecodingInput, DecodingOptions, ImageTokens};
use smartedit_core::model::PromptTemplate;
use smartedit_core::stage::Stage;
use smartedit_core::text::{LlamaTokenizer, Prompt, PromptTokens, SpecialIds};

use super::Decode;
use super::model::INSTRUCTION;
use super::report::Part;

/// A prompt, and the reply that a language model with the weights of
/// [`random_weights_that_reply`](smartedit_core::networks::random_weights_that_reply) gives to it: the template's
/// answer, the 32 image tokens, the end.
pub(super) struct Reply {
    prompt: PromptTokens,
    special: SpecialIds,
    /// The answer's tokens, image tokens included.
    tokens: Vec<u32>,
}

impl Reply {
    pub(super) fn new(
        tokenizer: &LlamaTokenizer,
        system: &str,
        template: &PromptTemplate,
    ) -> anyhow::Result<Self> {
        let special = *tokenizer.special();
        let answer = template.gpt.split("[img]").next().unwrap_or_default().trim_end();
        let mut tokens = tokenizer.encode_text(answer)?;
        tokens.retain(|&id| id != special.bos);
        tokens.extend(special.image_tokens());
        let prompt = Prompt::new(system, template, INSTRUCTION).encode(tokenizer, false)?;
        Ok(Self { prompt, special, tokens })
    }

    /// What follows what: the prompt's last token, the reply, the token that ends it.
    pub(super) fn chain(&self) -> Vec<u32> {
        let last = self.prompt.ids_without_image_token.last().copied();
        last.into_iter().chain(self.tokens.iter().copied()).chain([self.special.eos]).collect()
    }

    /// Makes the reply in a session of its own.
    pub(super) fn decode(
        &self,
        stage: &dyn Stage,
        features: &ArrayD<f32>,
        decode: Decode,
    ) -> anyhow::Result<Vec<Part>> {
        // Without positions for them, no draft is fed.
        let (drafts, image_tokens, max_positions) = match decode {
            Decode::Drafted => (vec![self.tokens.clone()], ImageTokens::Forced, usize::MAX),
            Decode::Stepwise => (Vec::new(), ImageTokens::Free, 0),
        };
        let options = DecodingOptions { drafts, image_tokens, max_positions, ..DecodingOptions::default() };
        let mut session = stage.session();
        let start = Instant::now();
        let (begin, last) = self.prompt_but_last(features.shape()[1])?;
        session.run(&begin.tensors(features))?;
        let prompt = start.elapsed();
        let fed = begin.logits_from + 1;
        let mut decoding = Decoding::resume(fed, vec![last], self.special, options);
        while let Some(input) = decoding.next_input() {
            let mut outputs = session.run(&input.tensors(features))?;
            let states = outputs.take_f32("hidden_states")?.into_dimensionality::<Ix3>()?;
            let logits = outputs.take_f32("logits")?.into_dimensionality::<Ix3>()?;
            decoding.advance(states.view(), logits.view())?;
        }
        let reply = start.elapsed() - prompt;
        ensure!(decoding.reply() == self.tokens, "the reply is not the expected one: {:?}", decoding.reply());
        Ok(vec![Part::new("prompt", prompt), Part::new("reply", reply)])
    }

    /// The prompt but its last token, which belongs to the reply: its logits choose the first token.
    fn prompt_but_last(&self, features: usize) -> anyhow::Result<(DecodingInput, u32)> {
        let mut ids = self.prompt.ids_without_image_token.clone();
        let last = ids.pop().context("the prompt is empty")?;
        let logits_from = (ids.len() + features).checked_sub(1).context("the prompt is too short")?;
        let image_position = Some(self.prompt.image_position);
        Ok((DecodingInput { ids, image_position, cache_length: 0, logits_from }, last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use smartedit_core::engine::Precision;
    use smartedit_core::model::Preset;

    use super::super::model::RandomModel;

    #[test]
    fn the_prompt_has_its_usual_length_and_no_token_of_the_chain_occurs_twice() {
        let model = RandomModel::new(Preset::Tiny, Precision::F32, 0);
        let reply = model.reply(&model.tokenizers().unwrap()).unwrap().unwrap();
        let chain = reply.chain();
        assert_eq!(chain.iter().collect::<BTreeSet<_>>().len(), chain.len(), "{chain:?}");
        let (prompt, answer) = (reply.prompt.ids_without_image_token.len(), reply.tokens.len());
        assert_eq!((prompt, answer), (86, 42));
    }
}
