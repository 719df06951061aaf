//! The towers of vision and text.

use anyhow::{Context as _, Result};
use fastrand::Rng;
use tch::{Kind, Tensor};

use super::{Loss, Objective};
use crate::condition::coverage;
use crate::lab::Lab;
use crate::parameters::Parameters;
use crate::pictures;
use crate::recipe::StageRecipe;
use crate::world::{Class, SIZE, Scene, Split, caption, sample_scene};

/// Width of the space in which pictures and captions meet.
const JOINT: i64 = 64;
/// Continuous facts of a patch: place in its object, size, whether it is a reflection.
const FACTS: i64 = 4;

/// Contrast of pictures and captions (CLIP), and what lies in each patch, which the world knows: the class, the place
/// in the object, its size, and whether it is a reflection.
pub(super) struct Clip {
    pub(super) stage: StageRecipe,
}

impl Objective for Clip {
    fn needs(&self) -> &'static [&'static str] {
        &[]
    }

    fn trains(&self) -> &'static [&'static str] {
        &["vision_encoder", "text_encoder", "clip_heads"]
    }

    fn prepare(&self, lab: &Lab, parameters: &mut Parameters) -> Result<()> {
        if parameters.has("clip_heads") {
            return Ok(());
        }
        let (vision, text) = (lab.vision_config()?.hidden_size as i64, lab.text_config()?.hidden_size as i64);
        let classes = Class::ALL.len() as i64 + 1;
        let mut add = |name: &str, outputs: i64, inputs: i64| {
            let weight = Tensor::randn([outputs, inputs], tch::kind::FLOAT_CPU) * (inputs as f64).powf(-0.5);
            parameters.insert(format!("clip_heads/heads/{name}.weight"), weight);
        };
        add("picture", JOINT, vision);
        add("caption", JOINT, text);
        add("class", classes, vision);
        add("facts", FACTS, vision);
        parameters.insert("clip_heads/heads/temperature", Tensor::from_slice(&[10f32]).log());
        Ok(())
    }

    fn loss(&self, lab: &Lab, parameters: &Parameters, rng: &mut Rng) -> Result<Loss> {
        let scenes: Vec<Scene> =
            (0..self.stage.batch).map(|_| sample_scene(rng, None, Split::Train).0).collect();
        let captions: Vec<String> = scenes.iter().map(|scene| caption(rng, scene)).collect();
        let rendered: Vec<_> = scenes.iter().map(Scene::render).collect();
        let patches = lab.see(&lab.vision_encoder(parameters)?, &pictures::tensor(&rendered))?;
        let head = |name: &str| {
            let name = format!("clip_heads/heads/{name}");
            parameters.get(&name).with_context(|| format!("there is no parameter {name}"))
        };
        let labels = Labels::of(&scenes, lab.patch_side()?);
        let classes = patches.matmul(&head("class.weight")?.tr()).flatten(0, 1);
        let class_loss = classes.cross_entropy_for_logits(&labels.classes);
        let error = (patches.matmul(&head("facts.weight")?.tr()).flatten(0, 1) - &labels.facts).square();
        let seen = labels.classes.greater(0).to_kind(Kind::Float).unsqueeze(1);
        let facts_loss = (error * &seen).sum(Kind::Float) / (seen.sum(Kind::Float) * FACTS + 1.0);
        let hits = classes.argmax(-1, false).eq_tensor(&labels.classes).to_kind(Kind::Float).unsqueeze(1);
        let accuracy = (hits * &seen).sum(Kind::Float) / (seen.sum(Kind::Float) + 1e-6);

        let states = lab.read(&lab.text_encoder(parameters)?, &captions)?;
        let ids = lab.text_ids(&captions)?;
        let end = ids.eq_tensor(&ids.narrow(1, -1, 1)).to_kind(Kind::Float).argmax(1, true);
        let index = end.unsqueeze(2).expand([-1, -1, states.size()[2]], false);
        let ends = states.gather(1, &index, false).squeeze_dim(1);
        let unit = |x: Tensor| {
            let norm = x.square().sum_dim_intlist([-1i64].as_slice(), true, Kind::Float).sqrt() + 1e-6;
            x / norm
        };
        let mean = patches.mean_dim([1i64].as_slice(), false, Kind::Float);
        let pictures = unit(mean.matmul(&head("picture.weight")?.tr()));
        let captions = unit(ends.matmul(&head("caption.weight")?.tr()));
        let similarity = pictures.matmul(&captions.tr()) * head("temperature")?.clamp(0.0, 4.6).exp();
        let contrast = contrast(&similarity);
        let patch = class_loss + facts_loss;
        let total = &contrast * self.stage.weight("contrast") + &patch * self.stage.weight("patch");
        Ok(Loss { total, parts: vec![("contrast", contrast), ("patch", patch), ("accuracy", accuracy)] })
    }
}

/// Mean cross-entropy of a square matrix of similarities along its rows and its columns, whose diagonal is right.
fn contrast(similarity: &Tensor) -> Tensor {
    let right = Tensor::arange(similarity.size()[0], tch::kind::INT64_CPU);
    (similarity.cross_entropy_for_logits(&right) + similarity.tr().cross_entropy_for_logits(&right)) * 0.5
}

/// What lies in each patch.
struct Labels {
    /// `[batch · p]`: 0 for the background, else the class from 1 on.
    classes: Tensor,
    /// `[batch · p, FACTS]`.
    facts: Tensor,
}

impl Labels {
    /// A patch belongs to the object that covers most of it, if that is a quarter or more.
    fn of(scenes: &[Scene], side: usize) -> Self {
        let (mut classes, mut facts) = (Vec::new(), Vec::new());
        let cell = SIZE as f32 / side as f32;
        for scene in scenes {
            let covered: Vec<Vec<f32>> = scene.objects.iter().map(|object| coverage(object, side)).collect();
            for patch in 0..side * side {
                let most =
                    (0..covered.len()).max_by(|&a, &b| covered[a][patch].total_cmp(&covered[b][patch]));
                let Some(index) = most.filter(|&index| covered[index][patch] >= 0.25) else {
                    classes.push(0i64);
                    facts.extend([0f32; FACTS as usize]);
                    continue;
                };
                let object = &scene.objects[index];
                let within = |place: usize, start: usize| {
                    ((place as f32 + 0.5) * cell - start as f32) / object.size as f32 * 2.0 - 1.0
                };
                classes.push(1 + object.class.index() as i64);
                facts.extend([
                    within(patch % side, object.x),
                    within(patch / side, object.y),
                    object.size as f32 / 12.0 - 2.0,
                    if object.in_mirror { 1.0 } else { 0.0 },
                ]);
            }
        }
        Self { classes: Tensor::from_slice(&classes), facts: Tensor::from_slice(&facts).reshape([-1, FACTS]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of similarities `[[a, 0], [0, a]]`, each row and column gives `ln(1 + e^−a)`.
    #[test]
    fn contrast_is_the_cross_entropy_of_rows_and_columns() {
        let loss = contrast(&(Tensor::eye(2, tch::kind::FLOAT_CPU) * 2.0));
        assert!((loss.double_value(&[]) - (1.0 + (-2f64).exp()).ln()).abs() < 1e-6);
    }
}
