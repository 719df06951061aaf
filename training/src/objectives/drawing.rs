//! The UNet on the condition that a scene itself gives.

use anyhow::Result;
use fastrand::Rng;

use super::{Dropout, Loss, Objective};
use crate::condition::latent_mask;
use crate::diffusion::masked_square;
use crate::lab::Lab;
use crate::parameters::Parameters;
use crate::pool::PooledEdit;
use crate::recipe::StageRecipe;
use crate::world::outcome;

/// What shall be drawn comes through cross-attention, as the text encoder's states of a few words; where, through the
/// feature beside the latents.
pub(super) struct Drawing {
    pub(super) stage: StageRecipe,
}

impl Objective for Drawing {
    fn needs(&self) -> &'static [&'static str] {
        &["vae_encoder", "text_encoder"]
    }

    fn trains(&self) -> &'static [&'static str] {
        &["denoiser"]
    }

    fn loss(&self, lab: &Lab, parameters: &Parameters, rng: &mut Rng) -> Result<Loss> {
        let pool = lab.pool(parameters)?;
        let edits: Vec<PooledEdit<'_>> = (0..self.stage.batch).map(|_| pool.draw(rng)).collect();
        let objects: Vec<_> = edits.iter().map(|edit| edit.object).collect();
        let (source, target) = pool.latents(&edits);
        let noised = lab.diffusion()?.noise(&target, self.stage.weight("last_timestep"));
        let (embeds, feature) = {
            let _guard = tch::no_grad_guard();
            let encoder = lab.text_encoder(parameters)?;
            let texts: Vec<String> =
                edits.iter().map(|edit| outcome(edit.new)).chain([String::new()]).collect();
            let states = lab.read(&encoder, &texts)?;
            (states, lab.places()?.of(&objects))
        };
        let batch = edits.len() as i64;
        let dropout = Dropout::draw(rng, edits.len(), self.stage.weight("drop"));
        let (texts, null) = (embeds.narrow(0, 0, batch), embeds.narrow(0, batch, 1));
        let embeds = &texts + (null - &texts) * &dropout.text;
        let jitter = self.stage.weight("jitter");
        let embeds = &embeds + embeds.randn_like() * jitter;
        let feature = &feature + feature.randn_like() * jitter;
        let unet = lab.unet(parameters)?;
        let image = source * &dropout.picture;
        let prediction =
            lab.denoise(&unet, &noised.latents, &image, &noised.timesteps, &embeds, Some(&feature))?;
        let mask = latent_mask(&objects, lab.latent_side()?);
        let total = masked_square(&prediction, &noised.target, &mask, self.stage.weight("mask"));
        let inside = ((prediction - noised.target).square() * &mask).sum(tch::Kind::Float)
            / (mask.sum(tch::Kind::Float) * lab.unet_config()?.out_channels as f64);
        Ok(Loss { total: total.shallow_clone(), parts: vec![("diffusion", total), ("inside", inside)] })
    }
}
