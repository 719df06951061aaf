//! The UNet on the condition that a scene itself gives.

use anyhow::Result;
use fastrand::Rng;

use super::denoising::{Denoising, Told, read_with_null};
use super::{Loss, Objective};
use crate::lab::Lab;
use crate::parameters::Parameters;

/// What shall be drawn comes through cross-attention, as the text encoder's states of a few words; where, through the
/// feature beside the latents.
pub(super) struct Drawing(pub(super) Denoising);

impl Objective for Drawing {
    fn needs(&self) -> &'static [&'static str] {
        &["vae_encoder", "text_encoder"]
    }

    fn trains(&self) -> &'static [&'static str] {
        &["denoiser"]
    }

    fn loss(&self, lab: &Lab, parameters: &Parameters, rng: &mut Rng) -> Result<Loss> {
        let batch = self.0.batch(lab, parameters, rng)?;
        let (texts, null, feature) = {
            let _guard = tch::no_grad_guard();
            let outcomes: Vec<String> = batch.edits.iter().map(|edit| edit.task.outcome()).collect();
            let (texts, null) = read_with_null(lab, parameters, &outcomes)?;
            let jitter = self.0.stage.weight("jitter");
            let jittered = |x: &tch::Tensor| x + x.randn_like() * jitter;
            (jittered(&texts), null, jittered(&lab.places().of(&batch.objects())))
        };
        let told = Told { texts: &texts, null: &null, feature: Some(&feature) };
        let total = batch.loss(lab, parameters, rng, &told)?;
        Ok(Loss { total: total.shallow_clone(), parts: vec![("diffusion", total)] })
    }
}
