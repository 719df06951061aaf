//! What workers report, as messages.

use std::time::Duration;

use smartedit_core::stage::StageKind;
use smartedit_proto::v1;
use smartedit_proto::v1::edit_stream_response::Event;

use super::edit::About;
use crate::work::{Finished, Progress};

/// The message for something that happens on the way.
pub(super) fn progress(about: &About, progress: Progress) -> v1::EditStreamResponse {
    event(match progress {
        Progress::Accepted => Event::Accepted(v1::AcceptedEvent {
            request_id: about.request_id.clone(),
            deployment: about.deployment.clone(),
            seed: about.seed,
        }),
        Progress::Queued(ahead) => Event::Queued(v1::QueuedEvent { position: count(ahead) }),
        Progress::StageStarted { stage: kind, elapsed } => Event::StageStarted(v1::StageStartedEvent {
            stage: stage(kind).into(),
            elapsed: Some(duration(elapsed)),
        }),
        Progress::StageFinished { stage: kind, duration: took, elapsed, cached } => {
            Event::StageFinished(v1::StageFinishedEvent {
                stage: stage(kind).into(),
                duration: Some(duration(took)),
                elapsed: Some(duration(elapsed)),
                cached,
            })
        }
        Progress::Step { done, total, preview } => Event::Step(v1::StepEvent {
            index: count(done),
            total: count(total),
            preview: preview.map(|preview| v1::Preview {
                image: preview.image,
                mime_type: preview.format.mime_type().to_owned(),
                step: count(preview.step),
            }),
        }),
        Progress::Reply(text) => Event::Reply(v1::ReplyEvent { text }),
    })
}

/// The message for something that happens on the way of one edit of a comparison; its acceptance is nothing new.
pub(super) fn compare_progress(about: &About, what: Progress) -> Option<v1::CompareResponse> {
    use v1::compare_progress_event::Event as Compared;
    let event = match progress(about, what).event? {
        Event::Queued(event) => Compared::Queued(event),
        Event::StageStarted(event) => Compared::StageStarted(event),
        Event::StageFinished(event) => Compared::StageFinished(event),
        Event::Step(event) => Compared::Step(event),
        Event::Reply(event) => Compared::Reply(event),
        Event::Accepted(_) | Event::Result(_) => return None,
    };
    let deployment = about.deployment.clone();
    let progress = v1::CompareProgressEvent { deployment, event: Some(event) };
    Some(v1::CompareResponse { event: Some(v1::compare_response::Event::Progress(progress)) })
}

/// The last message of a stream.
pub(super) fn finished(about: &About, finished: Finished) -> v1::EditStreamResponse {
    event(Event::Result(result(about, finished)))
}

/// The message for an edited picture.
pub(super) fn result(about: &About, finished: Finished) -> v1::EditResult {
    let timings = finished.timings;
    let stages = timings.stages.iter().map(|time| v1::StageTiming {
        stage: stage(time.stage).into(),
        duration: Some(duration(time.duration)),
        cached: time.cached,
    });
    v1::EditResult {
        image: finished.image,
        mime_type: finished.format.mime_type().to_owned(),
        width: finished.width,
        height: finished.height,
        seed: about.seed,
        deployment: about.deployment.clone(),
        reply: finished.reply,
        timings: Some(v1::EditTimings {
            total: Some(duration(timings.total)),
            queued: Some(duration(timings.queued)),
            image_decoding: Some(duration(timings.image_decoding)),
            stages: stages.collect(),
            image_encoding: Some(duration(timings.image_encoding)),
            mean_batch: timings.mean_batch,
        }),
        request_id: about.request_id.clone(),
        deployment_version: about.version,
    }
}

/// The message's word for a stage.
pub(super) const fn stage(kind: StageKind) -> v1::Stage {
    match kind {
        StageKind::VisionEncoder => v1::Stage::VisionEncoder,
        StageKind::LanguageModel => v1::Stage::LanguageModel,
        StageKind::Connector => v1::Stage::Connector,
        StageKind::TextEncoder => v1::Stage::TextEncoder,
        StageKind::VaeEncoder => v1::Stage::VaeEncoder,
        StageKind::Denoiser => v1::Stage::Denoiser,
        StageKind::VaeDecoder => v1::Stage::VaeDecoder,
    }
}

/// A number of things; none are as many as a message cannot hold.
pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn event(event: Event) -> v1::EditStreamResponse {
    v1::EditStreamResponse { event: Some(event) }
}

fn duration(duration: Duration) -> prost_types::Duration {
    duration.try_into().unwrap_or_default()
}
