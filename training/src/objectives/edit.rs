//! The second stage of the paper: everything on the diffusion loss.

use anyhow::Result;
use fastrand::Rng;

use super::denoising::{Denoising, Told, read_with_null};
use super::pointing::{Condition, Wanted};
use super::{Loss, Objective};
use crate::condition::patch_mask;
use crate::conversation::Turn;
use crate::lab::Lab;
use crate::parameters::Parameters;

/// Diffusion and language losses. The language model learns in adapters and in its tables; QFormer, interaction and
/// UNet learn whole. Where the weights say so, the condition is still held to what the scene says.
pub(super) struct Edit(pub(super) Denoising);

impl Objective for Edit {
    fn needs(&self) -> &'static [&'static str] {
        &["vae_encoder", "text_encoder", "vision_encoder", "language_model", "connector", "denoiser"]
    }

    fn trains(&self) -> &'static [&'static str] {
        &["language_model", "connector", "denoiser"]
    }

    fn trained(&self, parameter: &str) -> bool {
        if parameter.starts_with("denoiser/") {
            return self.0.stage.weight("unet") > 0.0;
        }
        if !parameter.starts_with("language_model/") {
            return !parameter.ends_with("gaussian_matrix");
        }
        let tables = ["language_model/embed_tokens.weight", "language_model/lm_head.weight"];
        tables.contains(&parameter) || parameter.contains("lora_")
    }

    /// What is to keep what it has learnt may learn more slowly than the UNet.
    fn rate(&self, parameter: &str) -> f64 {
        match parameter.split('/').next() {
            Some("language_model") => self.0.stage.weight("language_rate"),
            Some("connector") => self.0.stage.weight("connector_rate"),
            _ => 1.0,
        }
    }

    fn prepare(&self, lab: &Lab, parameters: &mut Parameters) -> Result<()> {
        if self.0.stage.weight("lora") > 0.0 {
            let adapted = |name: &str| {
                name.starts_with("language_model/")
                    && (name.ends_with("q_proj.weight") || name.ends_with("v_proj.weight"))
            };
            parameters.add_lora(adapted, lab.recipe.lora_rank);
        }
        Ok(())
    }

    fn loss(&self, lab: &Lab, parameters: &Parameters, rng: &mut Rng) -> Result<Loss> {
        let stage = &self.0.stage;
        let (batch, instructions) = self.0.instructed(lab, parameters, rng)?;
        let speaker = lab.speaker()?;
        let turns = instructions
            .iter()
            .map(|instruction| speaker.turn(0, instruction, "[img]"))
            .collect::<Result<Vec<Turn>>>()?;
        let (wanted, null) = {
            let _guard = tch::no_grad_guard();
            let outcomes: Vec<String> = batch.edits.iter().map(|edit| edit.task.outcome()).collect();
            let (text, null) = read_with_null(lab, parameters, &outcomes)?;
            let objects = batch.objects();
            let feature = lab.places().of(&objects);
            (Wanted { text, feature, patches: patch_mask(&objects, lab.patch_side()?) }, null)
        };
        let condition = Condition::of(lab, parameters, &turns, &batch.features()?)?;
        let mut loss = condition.loss(&wanted, stage)?;
        let told = Told { texts: &condition.text, null: &null, feature: condition.feature.as_ref() };
        let diffusion = batch.loss(lab, parameters, rng, &told)?;
        loss.total += &diffusion * stage.weight("diffusion");
        loss.parts.insert(0, ("diffusion", diffusion));
        Ok(loss)
    }

    /// Adapters are merged for use.
    fn finish(&self, lab: &Lab, parameters: &mut Parameters) -> Result<()> {
        parameters.merge_lora(lab.recipe.lora_scale());
        Ok(())
    }
}
