//! What is told of each edit of a comparison.

use std::sync::Arc;

use smartedit_core::picture::PictureDifference;
use smartedit_proto::v1;
use smartedit_proto::v1::compare_difference::{LatentOutcome, PixelOutcome};
use smartedit_proto::v1::compare_entry::Outcome;

use crate::deployment::Deployment;
use crate::failure::Failure;
use crate::service::edit::About;
use crate::service::messages;
use crate::status::status;
use crate::work::{Finished, Kept, LatentDifference, Memory, Record, Reference};

/// Measures edits against the first one.
pub(super) struct Measure {
    threshold: f32,
    first: First,
}

/// What has become of the first edit.
enum First {
    Awaited,
    Failed,
    Made(Arc<Reference>),
}

impl Measure {
    pub(super) fn new(threshold: f32) -> Self {
        Self { threshold, first: First::Awaited }
    }

    /// What is to be kept of the next edit.
    pub(super) fn record(&self) -> Record {
        match &self.first {
            First::Made(reference) => Record::Against(reference.clone()),
            First::Awaited | First::Failed => Record::Reference,
        }
    }

    /// What is told of the next edit.
    pub(super) fn entry(
        &mut self,
        deployment: &Deployment,
        outcome: Result<(About, Finished), Failure>,
    ) -> v1::CompareEntry {
        let outcome = match outcome {
            Ok((about, finished)) => Outcome::Result(self.result(deployment, &about, finished)),
            Err(failure) => {
                if matches!(self.first, First::Awaited) {
                    self.first = First::Failed;
                }
                Outcome::Failure(compare_failure(&failure))
            }
        };
        v1::CompareEntry { deployment: deployment.name().to_owned(), outcome: Some(outcome) }
    }

    fn result(
        &mut self,
        deployment: &Deployment,
        about: &About,
        mut finished: Finished,
    ) -> v1::CompareResult {
        let recorded = finished.recorded.take();
        let memory = recorded.as_ref().and_then(|recorded| recorded.memory);
        let difference = match (recorded.map(|recorded| recorded.kept), &self.first) {
            (Some(Kept::Reference(reference)), First::Awaited) => {
                self.first = First::Made(reference);
                None
            }
            (Some(Kept::Difference { latents, pixels }), _) => Some(v1::CompareDifference {
                latent_outcome: Some(self.latent_outcome(latents)),
                pixel_outcome: Some(pixel_outcome(pixels)),
            }),
            (Some(Kept::Reference(_) | Kept::Picture(_) | Kept::PictureDifference(_)) | None, _) => {
                let why = "the first deployment failed".to_owned();
                Some(v1::CompareDifference {
                    latent_outcome: Some(LatentOutcome::LatentsIncomparable(why.clone())),
                    pixel_outcome: Some(PixelOutcome::PixelsIncomparable(why)),
                })
            }
        };
        v1::CompareResult {
            edit: Some(messages::result(about, finished)),
            memory: Some(compare_memory(deployment, memory)),
            difference,
        }
    }

    fn latent_outcome(&self, latents: Result<LatentDifference, String>) -> LatentOutcome {
        match latents {
            Ok(difference) => LatentOutcome::Latents(v1::LatentDifference {
                max: difference.max,
                mean: difference.mean,
                parting_step: difference.parting_step(self.threshold).map(messages::count),
                step_max: difference.step_max,
            }),
            Err(why) => LatentOutcome::LatentsIncomparable(why),
        }
    }
}

fn pixel_outcome(pixels: Result<PictureDifference, String>) -> PixelOutcome {
    match pixels {
        Ok(PictureDifference { max, mean, psnr, ssim }) => {
            PixelOutcome::Pixels(v1::PixelDifference { max: max.into(), mean, psnr, ssim })
        }
        Err(why) => PixelOutcome::PixelsIncomparable(why),
    }
}

fn compare_memory(deployment: &Deployment, memory: Option<Memory>) -> v1::CompareMemory {
    let weights = deployment
        .editor()
        .map_or(0, |editor| editor.stages().iter().map(|placed| placed.info.weight_bytes).sum());
    v1::CompareMemory {
        weight_bytes: weights,
        resident_bytes: memory.map(|memory| memory.resident),
        peak_resident_bytes: memory.map(|memory| memory.peak),
    }
}

/// A failure in the words that its status would have.
fn compare_failure(failure: &Failure) -> v1::CompareFailure {
    let told = status(failure, None);
    v1::CompareFailure {
        code: told.code().into(),
        reason: failure.reason().to_owned(),
        message: told.message().to_owned(),
    }
}
