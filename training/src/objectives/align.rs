//! The first stage of the paper: texts alone.

use anyhow::{Context as _, Result};
use fastrand::Rng;
use tch::Kind;

use super::{Loss, Objective};
use crate::conversation::Conversation;
use crate::lab::Lab;
use crate::machine::leave;
use crate::parameters::Parameters;
use crate::recipe::StageRecipe;
use crate::world::{Class, Split, caption, outcome, sample_scene};

/// Asked for the picture of a caption, the language model gives the image tokens, and the QFormer makes of their states
/// the text encoder's states of that caption (mean squared error).
pub(super) struct Align {
    pub(super) stage: StageRecipe,
}

impl Objective for Align {
    fn needs(&self) -> &'static [&'static str] {
        &["text_encoder", "language_model"]
    }

    fn trains(&self) -> &'static [&'static str] {
        &["language_model", "connector"]
    }

    /// The trunk stays as it was.
    fn trained(&self, parameter: &str) -> bool {
        let tables = ["language_model/embed_tokens.weight", "language_model/lm_head.weight"];
        tables.contains(&parameter)
            || (parameter.starts_with("connector/") && !parameter.starts_with("connector/bim."))
    }

    fn loss(&self, lab: &Lab, parameters: &Parameters, rng: &mut Rng) -> Result<Loss> {
        let speaker = lab.speaker()?;
        let mut captions = Vec::with_capacity(self.stage.batch);
        let mut turns = Vec::with_capacity(self.stage.batch);
        for _ in 0..self.stage.batch {
            let text = match rng.usize(..3) {
                0 => {
                    let (scene, _) = sample_scene(rng, None, Split::Train);
                    caption(rng, &scene)
                }
                _ => outcome(Class::ALL.get(rng.usize(..Class::COUNT + 3)).copied()),
            };
            turns.push(speaker.text_turn(&text, "[img]")?);
            captions.push(text);
        }
        let wanted = {
            let _guard = tch::no_grad_guard();
            lab.read(&lab.text_encoder(parameters)?, &captions)?
        };
        let conversation = Conversation::new(&turns, lab.tokenizer.special().first_image_token);
        let model = lab.language_model(parameters)?;
        let heard = conversation.hear(&lab.machine, &model, lab.language_config()?, None)?;
        let states = heard.states.context("every reply has image tokens")?;
        let text = leave(&lab.connector(parameters)?.qformer.forward(lab.machine.engine(), &states)?)?;
        let text = (text - wanted).square().mean(Kind::Float);
        let total = &heard.loss * self.stage.weight("language") + &text * self.stage.weight("text");
        Ok(Loss { total, parts: vec![("text", text), ("language", heard.loss)] })
    }
}
