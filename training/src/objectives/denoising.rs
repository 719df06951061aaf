//! What the objectives of the UNet have in common: edits out of a pool, noise on their targets, dropout of their
//! conditions, and the loss.

use std::cell::OnceCell;

use anyhow::Result;
use fastrand::Rng;
use tch::{Kind, Tensor};

use crate::condition::latent_mask;
use crate::diffusion::{Noised, masked_square};
use crate::lab::Lab;
use crate::parameters::Parameters;
use crate::pool::{Pool, PooledEdit};
use crate::recipe::StageRecipe;
use crate::world::Object;

/// A stage that denoises, with the scenes it draws from.
pub(super) struct Denoising {
    pub(super) stage: StageRecipe,
    pool: OnceCell<Pool>,
}

impl Denoising {
    pub(super) fn new(stage: StageRecipe) -> Self {
        Self { stage, pool: OnceCell::new() }
    }

    /// The scenes, encoded by the networks of the first step's parameters, which the stage does not train.
    fn pool(&self, lab: &Lab, parameters: &Parameters) -> Result<&Pool> {
        if let Some(pool) = self.pool.get() {
            return Ok(pool);
        }
        let marks = self.stage.weight("segmentation") > 0.0;
        let pool = Pool::new(lab, parameters, marks)?;
        Ok(self.pool.get_or_init(|| pool))
    }

    /// Draws a batch of edits.
    pub(super) fn batch(&self, lab: &Lab, parameters: &Parameters, rng: &mut Rng) -> Result<Batch<'_>> {
        let pool = self.pool(lab, parameters)?;
        Ok(self.noised(lab, pool, (0..self.stage.batch).map(|_| pool.draw(rng)).collect()))
    }

    /// Draws a batch of edits with their instructions, mixed as the stage says.
    pub(super) fn instructed(
        &self,
        lab: &Lab,
        parameters: &Parameters,
        rng: &mut Rng,
    ) -> Result<(Batch<'_>, Vec<String>)> {
        let pool = self.pool(lab, parameters)?;
        let mixture = self.stage.mixture();
        let (mut edits, mut instructions) = (Vec::new(), Vec::new());
        while edits.len() < self.stage.batch {
            let marking = rng.f64() < mixture.segmentation;
            let edit = if marking { pool.draw_marking(rng)? } else { pool.draw(rng) };
            let scenario = mixture.scenario(rng);
            if let Some(instruction) = edit.task.instruct(rng, &edit.scene, edit.slot, scenario) {
                edits.push(edit);
                instructions.push(instruction);
            }
        }
        Ok((self.noised(lab, pool, edits), instructions))
    }

    fn noised<'a>(&'a self, lab: &Lab, pool: &'a Pool, edits: Vec<PooledEdit<'a>>) -> Batch<'a> {
        let (source, target) = (pool.before(&edits), pool.after(&edits));
        let noised = lab.diffusion().noise(&target, self.stage.weight("last_timestep"));
        Batch { stage: &self.stage, pool, edits, source, noised }
    }
}

/// Edits whose targets have noise added.
pub(super) struct Batch<'a> {
    stage: &'a StageRecipe,
    pool: &'a Pool,
    pub(super) edits: Vec<PooledEdit<'a>>,
    source: Tensor,
    noised: Noised,
}

/// What the UNet is told.
pub(super) struct Told<'a> {
    /// For cross-attention, `[batch, n, c]`.
    pub(super) texts: &'a Tensor,
    /// In place of a text that is dropped, `[1, n, c]`.
    pub(super) null: &'a Tensor,
    /// Added after the first convolution, `[batch, c0, g, g]`.
    pub(super) feature: Option<&'a Tensor>,
}

impl Batch<'_> {
    /// The objects that are edited.
    pub(super) fn objects(&self) -> Vec<&Object> {
        self.edits.iter().map(|edit| edit.object).collect()
    }

    /// The vision tower's features of the pictures before the edits, `[batch, p, e]`.
    pub(super) fn features(&self) -> Result<Tensor> {
        self.pool.features(&self.edits)
    }

    /// The diffusion loss, with what is edited weighted up.
    pub(super) fn loss(
        &self,
        lab: &Lab,
        parameters: &Parameters,
        rng: &mut Rng,
        told: &Told<'_>,
    ) -> Result<Tensor> {
        let dropout = Dropout::draw(rng, self.edits.len(), self.stage.weight("drop"));
        let embeds = told.texts + (told.null - told.texts) * &dropout.text;
        let image = &self.source * &dropout.picture;
        let Noised { latents, timesteps, target } = &self.noised;
        let unet = lab.unet(parameters)?;
        let prediction = lab.denoise(&unet, latents, &image, timesteps, &embeds, told.feature)?;
        let mask = latent_mask(&self.objects(), lab.latent_side()?);
        Ok(masked_square(&prediction, target, &mask, self.stage.weight("mask")))
    }
}

/// The text encoder's states of texts `[batch, n, c]` and of no text `[1, n, c]`.
pub(super) fn read_with_null<T: AsRef<str>>(
    lab: &Lab,
    parameters: &Parameters,
    texts: &[T],
) -> Result<(Tensor, Tensor)> {
    let all: Vec<&str> = texts.iter().map(AsRef::as_ref).chain([""]).collect();
    let states = lab.read(&lab.text_encoder(parameters)?, &all)?;
    let batch = texts.len() as i64;
    Ok((states.narrow(0, 0, batch), states.narrow(0, batch, 1)))
}

/// The parts of conditioning dropout: in one part of the batch the text is replaced, in another the picture, in a
/// third both (InstructPix2Pix, section 3.2.1).
struct Dropout {
    /// `[batch, 1, 1]`: 1 where the text is replaced.
    text: Tensor,
    /// `[batch, 1, 1, 1]`: 0 where the picture is left out.
    picture: Tensor,
}

impl Dropout {
    fn draw(rng: &mut Rng, batch: usize, probability: f64) -> Self {
        let draws: Vec<f64> = (0..batch).map(|_| rng.f64()).collect();
        let flags = |test: &dyn Fn(f64) -> bool| {
            Tensor::from_slice(&draws.iter().map(|&u| test(u)).collect::<Vec<_>>()).to_kind(Kind::Float)
        };
        Self {
            text: flags(&|u| u < 2.0 * probability).reshape([-1, 1, 1]),
            picture: flags(&|u| !(probability..3.0 * probability).contains(&u)).reshape([-1, 1, 1, 1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_a_picture_or_both_are_dropped_each_as_often_as_asked() {
        let dropout = Dropout::draw(&mut Rng::with_seed(1), 40_000, 0.05);
        let (text, picture) = (dropout.text.reshape([-1]), dropout.picture.reshape([-1]));
        let mean = |x: Tensor| x.mean(Kind::Float).double_value(&[]);
        let without = 1.0 - &picture;
        for (part, what) in [
            (mean(&text * &picture), "text"),
            (mean(&text * &without), "both"),
            (mean((1.0 - &text) * &without), "picture"),
        ] {
            assert!((part - 0.05).abs() < 0.005, "{what}: {part}");
        }
    }
}
