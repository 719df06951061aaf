//! The second stage of the paper: everything on the diffusion loss.

use anyhow::Result;
use fastrand::Rng;

use super::editor::instructed;
use super::pointing::{Condition, Wanted};
use super::{Dropout, Loss, Objective};
use crate::condition::{latent_mask, patch_mask};
use crate::conversation::Turn;
use crate::diffusion::masked_square;
use crate::lab::Lab;
use crate::parameters::Parameters;
use crate::recipe::StageRecipe;
use crate::world::outcome;

/// Diffusion and language losses. The language model learns in adapters and in its tables; QFormer, interaction and
/// UNet learn whole. Where the weights say so, the condition is still held to what the scene says.
pub(super) struct Edit {
    pub(super) stage: StageRecipe,
}

impl Objective for Edit {
    fn needs(&self) -> &'static [&'static str] {
        &["vae_encoder", "text_encoder", "vision_encoder", "language_model", "connector", "denoiser"]
    }

    fn trains(&self) -> &'static [&'static str] {
        &["language_model", "connector", "denoiser"]
    }

    fn trained(&self, parameter: &str) -> bool {
        if parameter.starts_with("denoiser/") {
            return self.stage.weight("unet") > 0.0;
        }
        if !parameter.starts_with("language_model/") {
            return !parameter.ends_with("gaussian_matrix");
        }
        let tables = ["language_model/embed_tokens.weight", "language_model/lm_head.weight"];
        tables.contains(&parameter) || parameter.contains("lora_")
    }

    fn prepare(&self, lab: &Lab, parameters: &mut Parameters) -> Result<()> {
        if self.stage.weight("lora") > 0.0 {
            let adapted = |name: &str| {
                name.starts_with("language_model/")
                    && (name.ends_with("q_proj.weight") || name.ends_with("v_proj.weight"))
            };
            parameters.add_lora(adapted, lab.recipe.lora_rank);
        }
        Ok(())
    }

    fn loss(&self, lab: &Lab, parameters: &Parameters, rng: &mut Rng) -> Result<Loss> {
        let pool = lab.pool(parameters)?;
        let (edits, instructions) = instructed(pool, rng, self.stage.batch, self.stage.weight("complex"));
        let objects: Vec<_> = edits.iter().map(|edit| edit.object).collect();
        let speaker = lab.speaker()?;
        let turns = instructions
            .iter()
            .map(|instruction| speaker.turn(0, instruction, "[img]"))
            .collect::<Result<Vec<Turn>>>()?;
        let (source, target) = pool.latents(&edits);
        let noised = lab.diffusion()?.noise(&target, self.stage.weight("last_timestep"));
        let (null, wanted) = {
            let _guard = tch::no_grad_guard();
            let encoder = lab.text_encoder(parameters)?;
            let texts: Vec<String> =
                edits.iter().map(|edit| outcome(edit.new)).chain([String::new()]).collect();
            let states = lab.read(&encoder, &texts)?;
            let batch = edits.len() as i64;
            let wanted = Wanted {
                text: states.narrow(0, 0, batch),
                feature: lab.places()?.of(&objects),
                patches: patch_mask(&objects, lab.patch_side()?),
            };
            (states.narrow(0, batch, 1), wanted)
        };
        let condition = Condition::of(lab, parameters, &turns, &pool.features(&edits)?)?;
        let mut loss = condition.loss(&wanted, &self.stage)?;
        let dropout = Dropout::draw(rng, edits.len(), self.stage.weight("drop"));
        let embeds = &condition.text + (null - &condition.text) * &dropout.text;
        let unet = lab.unet(parameters)?;
        let image = source * &dropout.picture;
        let prediction = lab.denoise(
            &unet,
            &noised.latents,
            &image,
            &noised.timesteps,
            &embeds,
            condition.feature.as_ref(),
        )?;
        let mask = latent_mask(&objects, lab.latent_side()?);
        let diffusion = masked_square(&prediction, &noised.target, &mask, self.stage.weight("mask"));
        loss.total += &diffusion * self.stage.weight("diffusion");
        loss.parts.insert(0, ("diffusion", diffusion));
        Ok(loss)
    }

    /// Adapters are merged for use.
    fn finish(&self, lab: &Lab, parameters: &mut Parameters) -> Result<()> {
        parameters.merge_lora(lab.recipe.lora_alpha / lab.recipe.lora_rank.max(1) as f64);
        Ok(())
    }
}
