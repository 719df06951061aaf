//! The language model sees.

use anyhow::Result;
use fastrand::Rng;

use super::{Loss, Objective};
use crate::conversation::{Conversation, Turn};
use crate::lab::Lab;
use crate::parameters::Parameters;
use crate::pictures;
use crate::recipe::StageRecipe;
use crate::world::{Scene, Split, caption, question, sample_scene};

/// Captions and answers about pictures, with the vision tower frozen.
pub(super) struct Llava {
    pub(super) stage: StageRecipe,
}

impl Objective for Llava {
    fn needs(&self) -> &'static [&'static str] {
        &["vision_encoder"]
    }

    fn trains(&self) -> &'static [&'static str] {
        &["language_model"]
    }

    fn loss(&self, lab: &Lab, parameters: &Parameters, rng: &mut Rng) -> Result<Loss> {
        let (turns, scenes) = answers(lab, rng, self.stage.batch)?;
        let features = {
            let _guard = tch::no_grad_guard();
            let rendered: Vec<_> = scenes.iter().map(Scene::render).collect();
            lab.see(&lab.vision_encoder(parameters)?, &pictures::tensor(&rendered))?
        };
        let conversation = Conversation::new(&turns, lab.tokenizer.special().first_image_token);
        let model = lab.language_model(parameters)?;
        let heard = conversation.hear(&lab.machine, &model, lab.language_config()?, Some(&features))?;
        Ok(Loss {
            total: heard.loss.shallow_clone(),
            parts: vec![("language", heard.loss), ("accuracy", heard.accuracy)],
        })
    }
}

/// Questions about scenes with their answers; one in four asks for a caption.
pub(super) fn answers(lab: &Lab, rng: &mut Rng, count: usize) -> Result<(Vec<Turn>, Vec<Scene>)> {
    let speaker = lab.speaker()?;
    let mut turns = Vec::with_capacity(count);
    let mut scenes = Vec::with_capacity(count);
    for _ in 0..count {
        let (scene, _) = sample_scene(rng, None, Split::Train);
        let (asked, answer) = match rng.usize(..4) {
            0 => ("What is in the picture?".to_owned(), caption(rng, &scene)),
            _ => question(rng, &scene),
        };
        turns.push(speaker.turn(0, &asked, &answer)?);
        scenes.push(scene);
    }
    Ok((turns, scenes))
}
