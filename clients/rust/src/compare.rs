//! One edit on several deployments.

use std::time::Duration;

use bytes::Bytes;
use smartedit_proto::v1;
use tonic::Code;

use crate::{EditOptions, Edited, Error, Event, Result};

/// A picture, what to change in it, and what is to be compared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CompareRequest {
    /// A whole PNG, JPEG or WebP file.
    pub image: Bytes,
    /// What to change.
    pub instruction: String,
    /// The deployments, two or more; the first is what the others are measured against.
    pub deployments: Vec<String>,
    /// How to make the edit.
    pub options: EditOptions,
    /// The largest absolute difference of latents at which they are still together; `None` is the server's default.
    pub latent_threshold: Option<f32>,
    /// How long the call may take, retries included; `None` is the client's default.
    pub timeout: Option<Duration>,
}

impl CompareRequest {
    /// A comparison with all defaults.
    pub fn new<D: Into<String>>(
        image: impl Into<Bytes>,
        instruction: impl Into<String>,
        deployments: impl IntoIterator<Item = D>,
    ) -> Self {
        let deployments = deployments.into_iter().map(Into::into).collect();
        Self { image: image.into(), instruction: instruction.into(), deployments, ..Self::default() }
    }

    pub(crate) fn into_proto(self) -> v1::CompareRequest {
        v1::CompareRequest {
            image: self.image,
            instruction: self.instruction,
            deployments: self.deployments,
            options: Some(self.options.into()),
            latent_threshold: self.latent_threshold,
        }
    }
}

/// One event of a comparison.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum CompareEvent {
    /// The comparison is valid and begins.
    Started {
        /// The request's identifier, as in the server's log.
        request_id: String,
        /// The deployments, in the order in which they make the edit.
        deployments: Vec<String>,
        /// The seed that all of them use.
        seed: u64,
        /// The threshold above which latents part.
        latent_threshold: f32,
    },
    /// Something happens on the way of one deployment's edit.
    Progress {
        /// The deployment.
        deployment: String,
        /// What happens.
        event: Event,
    },
    /// A deployment is done with its edit.
    Entry(Box<CompareEntry>),
}

/// What one deployment has made of the edit.
#[derive(Debug, Clone, PartialEq)]
pub struct CompareEntry {
    /// The deployment.
    pub deployment: String,
    /// How it ended.
    pub outcome: std::result::Result<Compared, CompareFailure>,
}

/// A deployment's edit, and how it differs from the first deployment's.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// The edited picture and how it came about.
    pub edited: Edited,
    /// The memory that it took.
    pub memory: CompareMemory,
    /// The difference from the first deployment's edit; `None` for that one itself.
    pub difference: Option<Difference>,
}

/// Why a deployment failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code:?})")]
pub struct CompareFailure {
    /// The code of gRPC.
    pub code: Code,
    /// The stable name of the reason.
    pub reason: String,
    /// The reason in words.
    pub message: String,
}

/// The memory of a deployment's edit, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompareMemory {
    /// The parameters of all stages, in their weight files.
    pub weight_bytes: u64,
    /// Memory of the server's process that is resident at the end of the edit, whatever it is used for; `None` where
    /// the system does not tell.
    pub resident_bytes: Option<u64>,
    /// The most of that while the edit ran, as far as it was seen.
    pub peak_resident_bytes: Option<u64>,
}

/// How a deployment's edit differs from the first deployment's; or why it cannot be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Of the latents.
    pub latents: std::result::Result<LatentDifference, String>,
    /// Of the edited pictures, before they are encoded.
    pub pixels: std::result::Result<PixelDifference, String>,
}

/// How latents differ.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentDifference {
    /// The largest absolute difference after the last step.
    pub max: f32,
    /// The mean absolute difference after the last step.
    pub mean: f32,
    /// The largest absolute difference after each step.
    pub step_max: Vec<f32>,
    /// The first step, from 1, after which the largest absolute difference is above the threshold.
    pub parting_step: Option<u32>,
}

/// How edited pictures differ, over all pixels and channels, of values in 0…255.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelDifference {
    /// The largest absolute difference.
    pub max: u8,
    /// The mean absolute difference.
    pub mean: f64,
    /// Peak signal-to-noise ratio in dB; infinite for equal pictures.
    pub psnr: f64,
    /// Structural similarity, 1 for equal pictures; `None` for pictures with a side below 11 pixels.
    pub ssim: Option<f64>,
}

impl CompareEvent {
    /// `None` for an event of a newer server, which this client does not know.
    pub(crate) fn from_proto(response: v1::CompareResponse) -> Result<Option<Self>> {
        use v1::compare_response::Event as Wire;
        Ok(match response.event {
            None => None,
            Some(Wire::Started(started)) => Some(Self::Started {
                request_id: started.request_id,
                deployments: started.deployments,
                seed: started.seed,
                latent_threshold: started.latent_threshold,
            }),
            Some(Wire::Progress(progress)) => {
                let deployment = progress.deployment;
                let event = progress.event.map(edit_event).map(Event::from_proto).transpose()?.flatten();
                event.map(|event| Self::Progress { deployment, event })
            }
            Some(Wire::Entry(entry)) => Some(Self::Entry(Box::new(CompareEntry::from_proto(entry)?))),
        })
    }
}

/// The same event as an edit alone would report it.
fn edit_event(event: v1::compare_progress_event::Event) -> v1::EditStreamResponse {
    use v1::compare_progress_event::Event as Compared;
    use v1::edit_stream_response::Event as Alone;
    let event = Some(match event {
        Compared::Queued(event) => Alone::Queued(event),
        Compared::StageStarted(event) => Alone::StageStarted(event),
        Compared::StageFinished(event) => Alone::StageFinished(event),
        Compared::Step(event) => Alone::Step(event),
        Compared::Reply(event) => Alone::Reply(event),
    });
    v1::EditStreamResponse { event }
}

impl CompareEntry {
    fn from_proto(entry: v1::CompareEntry) -> Result<Self> {
        use v1::compare_entry::Outcome;
        let outcome = match entry.outcome.ok_or(Error::Incomplete("outcome"))? {
            Outcome::Result(result) => Ok(Compared::from_proto(result)?),
            Outcome::Failure(v1::CompareFailure { code, reason, message }) => {
                Err(CompareFailure { code: Code::from_i32(code), reason, message })
            }
        };
        Ok(Self { deployment: entry.deployment, outcome })
    }
}

impl Compared {
    fn from_proto(result: v1::CompareResult) -> Result<Self> {
        let memory = result.memory.unwrap_or_default();
        Ok(Self {
            edited: Edited::from_proto(result.edit.ok_or(Error::Incomplete("edit"))?),
            memory: CompareMemory {
                weight_bytes: memory.weight_bytes,
                resident_bytes: memory.resident_bytes,
                peak_resident_bytes: memory.peak_resident_bytes,
            },
            difference: result.difference.map(Difference::from_proto).transpose()?,
        })
    }
}

impl Difference {
    fn from_proto(difference: v1::CompareDifference) -> Result<Self> {
        use v1::compare_difference::{LatentOutcome, PixelOutcome};
        let latents = match difference.latent_outcome.ok_or(Error::Incomplete("latents"))? {
            LatentOutcome::Latents(v1::LatentDifference { max, mean, step_max, parting_step }) => {
                Ok(LatentDifference { max, mean, step_max, parting_step })
            }
            LatentOutcome::LatentsIncomparable(why) => Err(why),
        };
        let pixels = match difference.pixel_outcome.ok_or(Error::Incomplete("pixels"))? {
            PixelOutcome::Pixels(v1::PixelDifference { max, mean, psnr, ssim }) => {
                let max = u8::try_from(max).unwrap_or(u8::MAX);
                Ok(PixelDifference { max, mean, psnr, ssim })
            }
            PixelOutcome::PixelsIncomparable(why) => Err(why),
        };
        Ok(Self { latents, pixels })
    }
}
