//! InstructPix2Pix: the UNet on the text encoder's reading of the instruction.

use anyhow::Result;
use fastrand::Rng;

use super::denoising::{Denoising, Told, read_with_null};
use super::{Loss, Objective};
use crate::lab::Lab;
use crate::parameters::Parameters;

/// The diffusion loss; the text encoder learns along, which the original's does not.
pub(super) struct Editor(pub(super) Denoising);

impl Objective for Editor {
    fn needs(&self) -> &'static [&'static str] {
        &["vae_encoder", "text_encoder"]
    }

    fn trains(&self) -> &'static [&'static str] {
        &["denoiser", "text_encoder"]
    }

    fn loss(&self, lab: &Lab, parameters: &Parameters, rng: &mut Rng) -> Result<Loss> {
        let (batch, instructions) = self.0.instructed(lab, parameters, rng)?;
        let (texts, null) = read_with_null(lab, parameters, &instructions)?;
        let told = Told { texts: &texts, null: &null, feature: None };
        let total = batch.loss(lab, parameters, rng, &told)?;
        Ok(Loss { total: total.shallow_clone(), parts: vec![("diffusion", total)] })
    }
}
