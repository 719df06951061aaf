//! What a server reports of an edit.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use smartedit_proto::v1;

use crate::{Error, Result};

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The request is valid and will be worked on.
    Accepted {
        /// The request's identifier, as in the server's log.
        request_id: String,
        /// The deployment that makes the edit.
        deployment: String,
        /// The seed that is used.
        seed: u64,
    },
    /// The request waits; so many are ahead of it.
    Queued(u32),
    /// A stage begins.
    StageStarted(Stage),
    /// A stage has done all it had to.
    StageFinished {
        /// The stage.
        stage: Stage,
        /// How long it took.
        duration: Duration,
        /// Whether its result was kept from an earlier request, so that it has not run.
        cached: bool,
    },
    /// A denoising step is done.
    Step {
        /// Steps done, from 1.
        index: u32,
        /// Steps in all.
        total: u32,
        /// The latest preview, if there is a new one.
        preview: Option<Preview>,
    },
    /// The language model's reply.
    Reply(String),
    /// The edit is done; the last event.
    Finished(Box<Edited>),
}

/// A picture in the middle of the denoising loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// A whole file.
    pub image: Bytes,
    /// Its media type.
    pub mime_type: String,
    /// The step after which it was taken.
    pub step: u32,
}

/// An edited picture and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Edited {
    /// A whole file of the format asked for.
    pub image: Bytes,
    /// Its media type.
    pub mime_type: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The seed that was used.
    pub seed: u64,
    /// The deployment that made the edit.
    pub deployment: String,
    /// The version of the deployment.
    pub deployment_version: u64,
    /// The language model's reply; `None` where none takes part.
    pub reply: Option<String>,
    /// How long it took, on the server.
    pub timings: Timings,
    /// The request's identifier, as in the server's log.
    pub request_id: String,
}

/// How long an edit took on the server.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timings {
    /// From arrival to encoded result.
    pub total: Duration,
    /// Waiting to be begun.
    pub queued: Duration,
    /// Decoding the source file.
    pub image_decoding: Duration,
    /// Every stage, in the order in which they first ran.
    pub stages: Vec<StageTiming>,
    /// Encoding the edited picture.
    pub image_encoding: Duration,
    /// Edits that shared its runs of the denoiser, itself included, in the mean over its steps.
    pub mean_batch: f32,
}

/// How long a stage took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageTiming {
    /// The stage.
    pub stage: Stage,
    /// The sum over its runs.
    pub duration: Duration,
    /// Whether its result was kept from an earlier request, so that it has not run.
    pub cached: bool,
}

/// A stage of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// CLIP vision tower.
    VisionEncoder,
    /// LLaMA with the vision projector.
    LanguageModel,
    /// QFormer and Bidirectional Interaction Module.
    Connector,
    /// CLIP text encoder.
    TextEncoder,
    /// Image to latents.
    VaeEncoder,
    /// UNet.
    Denoiser,
    /// Latents to image.
    VaeDecoder,
    /// A stage that this client does not know.
    Unknown,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VisionEncoder => "vision_encoder",
            Self::LanguageModel => "language_model",
            Self::Connector => "connector",
            Self::TextEncoder => "text_encoder",
            Self::VaeEncoder => "vae_encoder",
            Self::Denoiser => "denoiser",
            Self::VaeDecoder => "vae_decoder",
            Self::Unknown => "unknown",
        })
    }
}

impl From<v1::Stage> for Stage {
    fn from(stage: v1::Stage) -> Self {
        match stage {
            v1::Stage::Unspecified => Self::Unknown,
            v1::Stage::VisionEncoder => Self::VisionEncoder,
            v1::Stage::LanguageModel => Self::LanguageModel,
            v1::Stage::Connector => Self::Connector,
            v1::Stage::TextEncoder => Self::TextEncoder,
            v1::Stage::VaeEncoder => Self::VaeEncoder,
            v1::Stage::Denoiser => Self::Denoiser,
            v1::Stage::VaeDecoder => Self::VaeDecoder,
        }
    }
}

impl Event {
    /// `None` for an event of a newer server, which this client does not know.
    pub(crate) fn from_proto(response: v1::EditStreamResponse) -> Result<Option<Self>> {
        use v1::edit_stream_response::Event as Wire;
        Ok(Some(match response.event {
            None => return Ok(None),
            Some(Wire::Accepted(event)) => Self::Accepted {
                request_id: event.request_id,
                deployment: event.deployment,
                seed: event.seed,
            },
            Some(Wire::Queued(event)) => Self::Queued(event.position),
            Some(Wire::StageStarted(event)) => Self::StageStarted(event.stage().into()),
            Some(Wire::StageFinished(event)) => Self::StageFinished {
                stage: event.stage().into(),
                duration: duration(event.duration),
                cached: event.cached,
            },
            Some(Wire::Step(event)) => Self::Step {
                index: event.index,
                total: event.total,
                preview: event.preview.map(|preview| Preview {
                    image: preview.image,
                    mime_type: preview.mime_type,
                    step: preview.step,
                }),
            },
            Some(Wire::Reply(event)) => Self::Reply(event.text),
            Some(Wire::Result(result)) => Self::Finished(Box::new(Edited::from_proto(result))),
        }))
    }
}

impl Edited {
    pub(crate) fn from_response(response: v1::EditResponse) -> Result<Self> {
        response.result.map(Self::from_proto).ok_or(Error::Incomplete("result"))
    }

    pub(crate) fn from_proto(result: v1::EditResult) -> Self {
        let timings = result.timings.unwrap_or_default();
        let stages = timings.stages.into_iter().map(|timing| StageTiming {
            stage: timing.stage().into(),
            duration: duration(timing.duration),
            cached: timing.cached,
        });
        Self {
            image: result.image,
            mime_type: result.mime_type,
            width: result.width,
            height: result.height,
            seed: result.seed,
            deployment: result.deployment,
            deployment_version: result.deployment_version,
            reply: result.reply,
            timings: Timings {
                total: duration(timings.total),
                queued: duration(timings.queued),
                image_decoding: duration(timings.image_decoding),
                stages: stages.collect(),
                image_encoding: duration(timings.image_encoding),
                mean_batch: timings.mean_batch,
            },
            request_id: result.request_id,
        }
    }
}

fn duration(wire: Option<prost_types::Duration>) -> Duration {
    wire.and_then(|wire| wire.try_into().ok()).unwrap_or_default()
}
