//! What each stage of training learns.

mod align;
mod clip;
mod drawing;
mod edit;
mod editor;
mod llava;
mod pointing;
mod vae;

use anyhow::Result;
use fastrand::Rng;
use tch::Tensor;

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
        ObjectiveKind::Editor => Box::new(editor::Editor { stage }),
        ObjectiveKind::Drawing => Box::new(drawing::Drawing { stage }),
        ObjectiveKind::Align => Box::new(align::Align { stage }),
        ObjectiveKind::Pointing => Box::new(pointing::Pointing { stage }),
        ObjectiveKind::Edit => Box::new(edit::Edit { stage }),
    }
}

/// The parts of the second stage's conditioning dropout: in one part of the batch the text is replaced, in another
/// the picture, in a third both (InstructPix2Pix, section 3.2.1).
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
            let values: Vec<f32> = draws.iter().map(|&u| if test(u) { 1.0 } else { 0.0 }).collect();
            Tensor::from_slice(&values)
        };
        Self {
            text: flags(&|u| u < 2.0 * probability).reshape([-1, 1, 1]),
            picture: flags(&|u| !(probability..3.0 * probability).contains(&u)).reshape([-1, 1, 1, 1]),
        }
    }
}
