//! What each stage of training learns.

mod align;
mod clip;
mod denoising;
mod drawing;
mod edit;
mod editor;
mod llava;
mod pointing;
mod vae;

use anyhow::Result;
use fastrand::Rng;
use tch::Tensor;

use self::denoising::Denoising;
use crate::lab::Lab;
use crate::parameters::Parameters;
use crate::recipe::{ObjectiveKind, StageRecipe};

/// What a stage learns.
pub trait Objective {
    /// Networks that must be there before, trained by earlier stages.
    fn needs(&self) -> &'static [&'static str];

    /// Networks that the stage trains, all or in part; those that are missing begin anew.
    fn trains(&self) -> &'static [&'static str];

    /// Whether a parameter of these networks is trained.
    fn trained(&self, _parameter: &str) -> bool {
        true
    }

    /// By how much a trained parameter's learning rate differs from the stage's.
    fn rate(&self, _parameter: &str) -> f64 {
        1.0
    }

    /// Adds parameters of its own, before the first step.
    fn prepare(&self, _lab: &Lab, _parameters: &mut Parameters) -> Result<()> {
        Ok(())
    }

    /// The loss on a batch that `rng` draws.
    fn loss(&self, lab: &Lab, parameters: &Parameters, rng: &mut Rng) -> Result<Loss>;

    /// Changes the trained parameters after the last step.
    fn finish(&self, _lab: &Lab, _parameters: &mut Parameters) -> Result<()> {
        Ok(())
    }
}

/// A loss and what it is made of.
pub struct Loss {
    /// What is to become less.
    pub total: Tensor,
    /// What is shown and drawn as curves, by name.
    pub parts: Vec<(&'static str, Tensor)>,
}

/// The objective of a stage.
pub fn objective(stage: &StageRecipe) -> Box<dyn Objective> {
    let stage = stage.clone();
    match stage.objective {
        ObjectiveKind::Vae => Box::new(vae::Vae { stage }),
        ObjectiveKind::Clip => Box::new(clip::Clip { stage }),
        ObjectiveKind::Llava => Box::new(llava::Llava { stage }),
        ObjectiveKind::Editor => Box::new(editor::Editor(Denoising::new(stage))),
        ObjectiveKind::Drawing => Box::new(drawing::Drawing(Denoising::new(stage))),
        ObjectiveKind::Align => Box::new(align::Align { stage }),
        ObjectiveKind::Pointing => Box::new(pointing::Pointing { stage }),
        ObjectiveKind::Edit => Box::new(edit::Edit(Denoising::new(stage))),
    }
}
