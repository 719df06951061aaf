//! The condition of an edit, from the picture and the instruction.

use anyhow::{Context as _, Result};
use fastrand::Rng;
use smartedit_core::networks::Interaction;
use smartedit_torch::TorchTensor;
use tch::{Kind, Tensor};

use super::llava::answers;
use super::{Loss, Objective};
use crate::condition::patch_mask;
use crate::conversation::{Conversation, Heard, Turn};
use crate::lab::Lab;
use crate::machine::{Attention, leave};
use crate::parameters::Parameters;
use crate::pictures;
use crate::recipe::StageRecipe;
use crate::world::{Object, Request, Scene};

/// The language model with QFormer and interaction learns the condition that [`Drawing`](super::drawing::Drawing) was
/// given. Besides the errors of text and feature, the world supervises where attention looks: from the image tokens
/// to the patches of the object that is meant, from the queries to the same, and from those patches to the first half
/// of the queries, from all others to the second half.
pub(super) struct Pointing {
    pub(super) stage: StageRecipe,
}

impl Objective for Pointing {
    fn needs(&self) -> &'static [&'static str] {
        &["vision_encoder", "text_encoder"]
    }

    fn trains(&self) -> &'static [&'static str] {
        &["language_model", "connector"]
    }

    fn trained(&self, parameter: &str) -> bool {
        !parameter.ends_with("gaussian_matrix")
    }

    fn loss(&self, lab: &Lab, parameters: &Parameters, rng: &mut Rng) -> Result<Loss> {
        let count = self.stage.batch;
        let mixture = self.stage.mixture();
        let requests: Vec<Request> = (0..count).map(|_| mixture.draw(rng)).collect();
        let objects: Vec<&Object> =
            requests.iter().map(|request| &request.scene.objects[request.slot]).collect();
        let speaker = lab.speaker()?;
        let turns = requests
            .iter()
            .map(|request| speaker.turn(0, &request.instruction, "[img]"))
            .collect::<Result<Vec<Turn>>>()?;
        let asked = (count as f64 * self.stage.weight("answers")).round() as usize;
        let (questions, scenes) = answers(lab, rng, asked)?;
        let (features, wanted) = {
            let _guard = tch::no_grad_guard();
            let rendered: Vec<_> =
                requests.iter().map(|request| &request.scene).chain(&scenes).map(Scene::render).collect();
            let features = lab.see(&lab.vision_encoder(parameters)?, &pictures::tensor(&rendered))?;
            let texts: Vec<String> = requests.iter().map(|request| request.task.outcome()).collect();
            let wanted = Wanted {
                text: lab.read(&lab.text_encoder(parameters)?, &texts)?,
                feature: lab.places().of(&objects),
                patches: patch_mask(&objects, lab.patch_side()?),
            };
            (features, wanted)
        };
        let seen = features.narrow(0, 0, count as i64);
        let condition = Condition::of(lab, parameters, &turns, &seen)?;
        let mut loss = condition.loss(&wanted, &self.stage)?;
        if asked > 0 {
            let conversation = Conversation::new(&questions, lab.tokenizer.special().first_image_token);
            let model = lab.language_model(parameters)?;
            let features = features.narrow(0, count as i64, asked as i64);
            let heard = conversation.hear(&lab.machine, &model, lab.language_config()?, Some(&features))?;
            loss.total += &heard.loss * self.stage.weight("language");
            loss.parts.push(("answers", heard.loss));
        }
        Ok(loss)
    }
}

/// What the scene says the condition should be.
pub(super) struct Wanted {
    /// `[batch, n, c]`.
    pub(super) text: Tensor,
    /// `[batch, c0, g, g]`.
    pub(super) feature: Tensor,
    /// `[batch, p]`.
    pub(super) patches: Tensor,
}

/// What language model, QFormer and interaction made of pictures and instructions.
pub(super) struct Condition {
    conversation: Conversation,
    pub(super) heard: Heard,
    /// `[batch, n, c]`.
    pub(super) text: Tensor,
    /// `[batch, c0, g, g]`, of a BIM.
    pub(super) feature: Option<Tensor>,
    /// The attentions of the interaction.
    attentions: Vec<Attention>,
}

impl Condition {
    /// Runs them; `features` are the pictures' patches.
    pub(super) fn of(lab: &Lab, parameters: &Parameters, turns: &[Turn], features: &Tensor) -> Result<Self> {
        let conversation = Conversation::new(turns, lab.tokenizer.special().first_image_token);
        let model = lab.language_model(parameters)?;
        let heard = conversation.hear(&lab.machine, &model, lab.language_config()?, Some(features))?;
        let states = heard.states.clone().context("every reply has image tokens")?;
        let connector = lab.connector(parameters)?;
        let e = lab.machine.engine();
        let text = connector.qformer.forward(e, &states)?;
        let image: TorchTensor = lab.machine.enter(features);
        let (conditioning, attentions) =
            lab.machine.watching(|| connector.interaction.forward(e, text, &image));
        let conditioning = conditioning?;
        let attentions =
            if matches!(connector.interaction, Interaction::Bim(_)) { attentions } else { Vec::new() };
        Ok(Self {
            conversation,
            heard,
            text: leave(&conditioning.prompt_embeds)?,
            feature: conditioning.image_feature.as_ref().map(leave).transpose()?,
            attentions,
        })
    }

    /// How far it is from what is wanted; weights of 0 leave a part out.
    pub(super) fn loss(&self, wanted: &Wanted, stage: &StageRecipe) -> Result<Loss> {
        let text = (&self.text - &wanted.text).square().mean(Kind::Float);
        let mut total = &self.heard.loss * stage.weight("language") + &text * stage.weight("text");
        let mut parts = vec![("text", text), ("language", self.heard.loss.shallow_clone())];
        let last = self.heard.attentions.len().saturating_sub(2);
        let look = self.conversation.attention_loss(&self.heard.attentions[last..], &wanted.patches);
        if let Some(look) = look {
            total += &look * stage.weight("attention");
            parts.push(("attention", look));
        }
        if let Some(feature) = &self.feature {
            let error = (feature - &wanted.feature).square().mean(Kind::Float);
            let size = feature.size();
            let there = wanted.patches.reshape([size[0], 1, size[2], size[3]]);
            let overlap = overlap(feature, &wanted.feature, &there);
            total += &error * stage.weight("feature");
            parts.extend([("feature", error), ("overlap", overlap)]);
        }
        if let Some(bim) = BimAttention::of(&self.attentions) {
            let (gate, look) = (bim.gate(&wanted.patches), bim.look(&wanted.patches));
            total += &gate * stage.weight("gate") + &look * stage.weight("attention");
            parts.extend([("gate", gate), ("look", look)]);
        }
        Ok(Loss { total, parts })
    }
}

/// Intersection over union of the patches that are wanted and the cells in which the feature has at least half of the
/// wanted one's largest magnitude.
fn overlap(feature: &Tensor, wanted: &Tensor, there: &Tensor) -> Tensor {
    let energy = |x: &Tensor| x.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Float);
    let threshold = energy(&(wanted * there)).amax([2i64, 3].as_slice(), true) * 0.25;
    let found = energy(feature).greater_tensor(&threshold).to_kind(Kind::Float);
    let (both, either) = (&found * there, (&found + there).clamp_max(1.0));
    both.sum(Kind::Float) / (either.sum(Kind::Float) + 1e-6)
}

/// The attentions of a BIM of two blocks, in their order: of each block to itself, from text to image, from image to
/// text; then the last from text to image.
struct BimAttention<'a> {
    text_to_image: Vec<&'a Attention>,
    last_image_to_text: &'a Attention,
}

impl<'a> BimAttention<'a> {
    fn of(attentions: &'a [Attention]) -> Option<Self> {
        let (blocks, last) = attentions.split_at(attentions.len().checked_sub(1)?);
        let text_to_image = blocks.iter().skip(1).step_by(3).chain(last).collect();
        Some(Self { text_to_image, last_image_to_text: blocks.last()? })
    }

    /// Mean of `−log` of the attention that the first heads give, from all queries, to the patches of a mask.
    fn look(&self, patches: &Tensor) -> Tensor {
        let hidden = patches.less(0.5).unsqueeze(1);
        let losses: Vec<Tensor> = self
            .text_to_image
            .iter()
            .map(|attention| {
                let scores = attention.scores_of_first_head();
                let there = scores.masked_fill(&hidden, f64::NEG_INFINITY);
                let all = |x: &Tensor| x.logsumexp([-1i64].as_slice(), false);
                (all(&scores) - all(&there)).mean(Kind::Float)
            })
            .collect();
        Tensor::stack(&losses, 0).mean(Kind::Float)
    }

    /// Cross-entropy of the attention that the first head of the last block gives from patches to the first half of
    /// the queries with the mask.
    fn gate(&self, patches: &Tensor) -> Tensor {
        let scores = self.last_image_to_text.scores_of_first_head();
        let half = scores.size()[2] / 2;
        let sum = |part: Tensor| part.logsumexp([-1i64].as_slice(), false);
        let (first, second) =
            (sum(scores.narrow(2, 0, half)), sum(scores.narrow(2, half, scores.size()[2] - half)));
        let logit = first - second;
        let weight = patches * 2.0 + 1.0;
        logit.binary_cross_entropy_with_logits::<Tensor>(patches, Some(weight), None, tch::Reduction::Mean)
    }
}
