//! What is kept of an edit that is compared with others: latents, picture and memory.

use std::sync::Arc;

use image::RgbImage;
use ndarray::Array4;
use smartedit_core::picture::{PictureDifference, ValueDifference};

use super::memory::{Memory, MemoryWatch};

/// What to keep of an edit.
#[derive(Debug, Clone)]
pub enum Record {
    /// All that others are compared with.
    Reference,
    /// How it differs from this one.
    Against(Arc<Reference>),
    /// The edited picture alone.
    Picture,
    /// How the edited picture differs from this one.
    AgainstPicture(Arc<RgbImage>),
}

/// An edit that others are compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// The latents after each step, `[1, c, h, w]`.
    latents: Vec<Array4<f32>>,
    /// The edited picture, before it was encoded.
    picture: RgbImage,
}

/// What was kept of an edit.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// What was asked for.
    pub kept: Kept,
    /// Resident memory of the process; `None` where the system does not tell, and where only the picture is kept.
    pub memory: Option<Memory>,
}

/// What a [`Record`] asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Kept {
    /// All that others are compared with.
    Reference(Arc<Reference>),
    /// How it differs from another edit, or why it cannot be compared.
    Difference {
        /// Of the latents.
        latents: Result<LatentDifference, String>,
        /// Of the edited pictures, before they are encoded.
        pixels: Result<PictureDifference, String>,
    },
    /// The edited picture, before it was encoded.
    Picture(Arc<RgbImage>),
    /// How the edited pictures differ, before they are encoded, or why they cannot be compared.
    PictureDifference(Result<ValueDifference, String>),
}

/// How latents differ from another edit's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LatentDifference {
    /// The largest absolute difference after the last step.
    pub max: f32,
    /// The mean absolute difference after the last step.
    pub mean: f32,
    /// The largest absolute difference after each step.
    pub step_max: Vec<f32>,
}

impl LatentDifference {
    /// The first step, from 1, whose difference is above a threshold.
    pub fn parting_step(&self, threshold: f32) -> Option<usize> {
        self.step_max.iter().position(|max| *max > threshold).map(|index| index + 1)
    }
}

/// Keeps what a [`Record`] asks for while an edit runs.
pub(super) struct Recorder {
    recording: Recording,
    memory: Option<MemoryWatch>,
}

enum Recording {
    Reference(Vec<Array4<f32>>),
    Difference { from: Arc<Reference>, latents: Result<LatentDifference, String> },
    Picture,
    PictureDifference(Arc<RgbImage>),
}

impl Recorder {
    pub(super) fn new(record: &Record) -> Self {
        let recording = match record {
            Record::Reference => Recording::Reference(Vec::new()),
            Record::Against(from) => {
                Recording::Difference { from: from.clone(), latents: Ok(LatentDifference::default()) }
            }
            Record::Picture => Recording::Picture,
            Record::AgainstPicture(from) => Recording::PictureDifference(from.clone()),
        };
        let watched = matches!(record, Record::Reference | Record::Against(_));
        Self { recording, memory: watched.then(MemoryWatch::start) }
    }

    /// A unit of work is done.
    pub(super) fn unit(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.look();
        }
    }

    /// A denoising step is done, with these latents.
    pub(super) fn step(&mut self, found: &Array4<f32>) {
        match &mut self.recording {
            Recording::Reference(latents) => latents.push(found.clone()),
            Recording::Difference { from, latents } => {
                if let Ok(difference) = latents
                    && let Err(why) = difference.step(&from.latents, found)
                {
                    *latents = Err(why);
                }
            }
            Recording::Picture | Recording::PictureDifference(_) => {}
        }
    }

    /// The edit is done, with this picture.
    pub(super) fn finish(self, picture: RgbImage) -> Recorded {
        let memory = self.memory.and_then(MemoryWatch::finish);
        let kept = match self.recording {
            Recording::Reference(latents) => Kept::Reference(Arc::new(Reference { latents, picture })),
            Recording::Difference { from, latents } => Kept::Difference {
                latents: latents.and_then(|difference| difference.whole(&from.latents)),
                pixels: PictureDifference::between(&from.picture, &picture)
                    .ok_or_else(|| other_size(&picture, &from.picture)),
            },
            Recording::Picture => Kept::Picture(Arc::new(picture)),
            Recording::PictureDifference(from) => Kept::PictureDifference(
                ValueDifference::between(&from, &picture).ok_or_else(|| other_size(&picture, &from)),
            ),
        };
        Recorded { kept, memory }
    }
}

fn other_size(found: &RgbImage, expected: &RgbImage) -> String {
    let [found, expected] =
        [found, expected].map(|picture| format!("{}×{}", picture.width(), picture.height()));
    format!("size {found} instead of {expected}")
}

impl LatentDifference {
    /// Takes the latents after the next step.
    fn step(&mut self, from: &[Array4<f32>], found: &Array4<f32>) -> Result<(), String> {
        let steps = from.len();
        let expected = from.get(self.step_max.len()).ok_or_else(|| format!("more than {steps} steps"))?;
        if found.shape() != expected.shape() {
            return Err(format!("shape {:?} instead of {:?}", found.shape(), expected.shape()));
        }
        let (mut max, mut sum) = (0.0_f32, 0.0_f64);
        for (found, expected) in found.iter().zip(expected) {
            let difference = (found - expected).abs();
            max = max.max(difference);
            sum += f64::from(difference);
        }
        self.step_max.push(max);
        self.max = max;
        self.mean = (sum / found.len().max(1) as f64) as f32;
        Ok(())
    }

    /// Makes sure that there were as many steps as of the other edit.
    fn whole(self, from: &[Array4<f32>]) -> Result<Self, String> {
        let (found, expected) = (self.step_max.len(), from.len());
        match found == expected {
            true => Ok(self),
            false => Err(format!("{found} steps instead of {expected}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latents(value: f32, side: usize) -> Array4<f32> {
        Array4::from_elem((1, 4, side, side), value)
    }

    fn recorded(record: &Record, steps: &[Array4<f32>], picture: RgbImage) -> Kept {
        let mut recorder = Recorder::new(record);
        steps.iter().for_each(|latents| recorder.step(latents));
        recorder.finish(picture).kept
    }

    /// What is kept of an edit of these latents and a picture of this width, against one of three steps and width 16.
    fn kept(
        steps: &[Array4<f32>],
        width: u32,
    ) -> (Result<LatentDifference, String>, Result<PictureDifference, String>) {
        let first = [latents(1.0, 2), latents(2.0, 2), latents(3.0, 2)];
        let Kept::Reference(reference) = recorded(&Record::Reference, &first, RgbImage::new(16, 8)) else {
            panic!("a reference was asked for")
        };
        match recorded(&Record::Against(reference), steps, RgbImage::new(width, 8)) {
            Kept::Difference { latents, pixels } => (latents, pixels),
            other => panic!("a difference was asked for, not {other:?}"),
        }
    }

    fn difference(steps: &[Array4<f32>]) -> Result<LatentDifference, String> {
        kept(steps, 16).0
    }

    #[test]
    fn the_step_after_which_latents_part_is_the_first_above_the_threshold() {
        let mut last = latents(3.0, 2);
        last[[0, 0, 0, 0]] = 2.0;
        let difference = difference(&[latents(1.0, 2), latents(2.25, 2), last]).unwrap();
        assert_eq!(difference.step_max, [0.0, 0.25, 1.0]);
        assert_eq!((difference.max, difference.mean), (1.0, 1.0 / 16.0));
        let parting = [0.0, 0.25, 1.0].map(|threshold| difference.parting_step(threshold));
        assert_eq!(parting, [Some(2), Some(3), None]);
    }

    #[test]
    fn equal_latents_never_part() {
        let difference = difference(&[latents(1.0, 2), latents(2.0, 2), latents(3.0, 2)]).unwrap();
        assert_eq!((difference.max, difference.mean, difference.parting_step(0.0)), (0.0, 0.0, None));
    }

    #[test]
    fn latents_that_cannot_be_compared_say_why() {
        let one = latents(1.0, 2);
        let four = vec![one.clone(); 4];
        assert_eq!(difference(&four[..2]).unwrap_err(), "2 steps instead of 3");
        assert_eq!(difference(&four).unwrap_err(), "more than 3 steps");
        let shape = difference(&[one, latents(1.0, 3)]).unwrap_err();
        assert_eq!(shape, "shape [1, 4, 3, 3] instead of [1, 4, 2, 2]");
    }

    #[test]
    fn pictures_are_compared_alone_where_nothing_else_is_asked_for() {
        let Kept::Picture(first) = recorded(&Record::Picture, &[latents(1.0, 2)], RgbImage::new(16, 8))
        else {
            panic!("a picture was asked for")
        };
        let against = |picture: RgbImage| match recorded(&Record::AgainstPicture(first.clone()), &[], picture)
        {
            Kept::PictureDifference(difference) => difference,
            other => panic!("a difference was asked for, not {other:?}"),
        };
        let equal = against(RgbImage::new(16, 8)).unwrap();
        assert_eq!((equal.max, equal.mean, equal.psnr), (0, 0.0, f64::INFINITY));
        let mut other = RgbImage::new(16, 8);
        other.put_pixel(3, 4, image::Rgb([0, 96, 0]));
        let unequal = against(other).unwrap();
        assert_eq!((unequal.max, unequal.mean), (96, 96.0 / (16.0 * 8.0 * 3.0)));
        assert_eq!(against(RgbImage::new(24, 8)).unwrap_err(), "size 24×8 instead of 16×8");
    }

    #[test]
    fn pictures_are_compared_where_their_size_is_the_same() {
        assert_eq!(kept(&[], 16).1.unwrap().max, 0);
        assert_eq!(kept(&[], 24).1.unwrap_err(), "size 24×8 instead of 16×8");
    }
}
