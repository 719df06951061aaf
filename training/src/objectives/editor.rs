//! InstructPix2Pix: the UNet on the text encoder's reading of the instruction.

use anyhow::Result;
use fastrand::Rng;

use super::{Dropout, Loss, Objective};
use crate::condition::latent_mask;
use crate::diffusion::masked_square;
use crate::lab::Lab;
use crate::parameters::Parameters;
use crate::pool::PooledEdit;
use crate::recipe::StageRecipe;
use crate::world::{Scenario, Split, instruct};

/// The diffusion loss; the text encoder learns along, which the original's does not.
pub(super) struct Editor {
    pub(super) stage: StageRecipe,
}

impl Objective for Editor {
    fn needs(&self) -> &'static [&'static str] {
        &["vae_encoder", "text_encoder"]
    }

    fn trains(&self) -> &'static [&'static str] {
        &["denoiser", "text_encoder"]
    }

    fn loss(&self, lab: &Lab, parameters: &Parameters, rng: &mut Rng) -> Result<Loss> {
        let pool = lab.pool(parameters)?;
        let (edits, instructions) = instructed(pool, rng, self.stage.batch, 1.0);
        let objects: Vec<_> = edits.iter().map(|edit| edit.object).collect();
        let (source, target) = pool.latents(&edits);
        let noised = lab.diffusion()?.noise(&target, self.stage.weight("last_timestep"));
        let texts: Vec<&str> = instructions.iter().map(String::as_str).chain([""]).collect();
        let states = lab.read(&lab.text_encoder(parameters)?, &texts)?;
        let batch = edits.len() as i64;
        let dropout = Dropout::draw(rng, edits.len(), self.stage.weight("drop"));
        let (texts, null) = (states.narrow(0, 0, batch), states.narrow(0, batch, 1));
        let embeds = &texts + (null - &texts) * &dropout.text;
        let unet = lab.unet(parameters)?;
        let image = source * &dropout.picture;
        let prediction = lab.denoise(&unet, &noised.latents, &image, &noised.timesteps, &embeds, None)?;
        let mask = latent_mask(&objects, lab.latent_side()?);
        let total = masked_square(&prediction, &noised.target, &mask, self.stage.weight("mask"));
        Ok(Loss { total: total.shallow_clone(), parts: vec![("diffusion", total)] })
    }
}

/// Edits out of the pool with their instructions. Of those that need understanding or reasoning, only the given part
/// is kept.
pub(super) fn instructed<'a>(
    pool: &'a crate::pool::Pool,
    rng: &mut Rng,
    count: usize,
    complex: f64,
) -> (Vec<PooledEdit<'a>>, Vec<String>) {
    let (mut edits, mut instructions) = (Vec::with_capacity(count), Vec::with_capacity(count));
    while edits.len() < count {
        let edit = pool.draw(rng);
        let Some(said) = instruct(rng, &edit.scene, edit.slot, edit.new, None, Split::Train) else {
            continue;
        };
        if said.scenario != Scenario::Plain && rng.f64() >= complex {
            continue;
        }
        edits.push(edit);
        instructions.push(said.text);
    }
    (edits, instructions)
}
