//! One edit on several deployments, one after the other.

mod check;
mod measure;

use std::pin::Pin;

use smartedit_proto::v1;
use smartedit_proto::v1::compare_response::Event as Wire;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::{Response, Status};

use self::measure::Measure;
use super::edit::{About, Prepared, Ticket, next};
use super::{Arrival, Service, messages, trace};
use crate::failure::Failure;
use crate::security::Access;
use crate::status::status;
use crate::work::{Event, Record, Registration, Stop};

/// The stream of events of a comparison.
pub(super) type EventStream = Pin<Box<dyn Stream<Item = Result<v1::CompareResponse, Status>> + Send>>;

/// A comparison that has been checked.
struct Comparison {
    request_id: String,
    arrival: Arrival,
    seed: u64,
    threshold: f32,
    edits: Vec<Prepared>,
    stop: Stop,
    /// Who asks for it, where that is asked.
    caller: Option<String>,
    /// The comparison's place among all requests: a server that shuts down waits for all of its edits.
    _registration: Registration,
    /// The memory that it may hold on to.
    _memory: OwnedSemaphorePermit,
}

impl Service {
    /// Checks a comparison and begins it.
    pub(super) fn begin_comparison(
        &self,
        request: v1::CompareRequest,
        arrival: Arrival,
        access: Access,
    ) -> Result<Response<EventStream>, Status> {
        let request_id = format!("{:016x}", fastrand::u64(..));
        let comparison = self.check_comparison(request, arrival, &access, &request_id).map_err(|failure| {
            self.metrics().refused(&failure);
            tracing::info!(request_id, outcome = failure.reason(), reason = %failure, "comparison refused");
            status(&failure, Some(&request_id))
        })?;
        let about = About { request_id, deployment: String::new(), version: 0, seed: comparison.seed };
        Ok(about.label(self.clone().compare_all(comparison)))
    }

    /// Makes the edits one after the other, so that none disturbs the measurement of another. The next one begins when
    /// the last one's result has been read.
    fn compare_all(self, mut comparison: Comparison) -> EventStream {
        Box::pin(async_stream::stream! {
            yield Ok(response(Wire::Started(comparison.started())));
            let mut measure = Measure::new(comparison.threshold);
            for (index, edit) in std::mem::take(&mut comparison.edits).into_iter().enumerate() {
                let deployment = edit.deployment.clone();
                let mut outcome = Err(Failure::Lost);
                match self.begin_edit(edit, &comparison, index, measure.record()) {
                    Err(failure) => {
                        self.metrics().refused(&failure);
                        outcome = Err(failure);
                    }
                    Ok(Ticket { about, arrival, mut events, guard: _guard }) => {
                        while let Some(event) = next(&mut events, arrival).await {
                            match event {
                                Event::Progress(progress) => {
                                    if let Some(message) = messages::compare_progress(&about, progress) {
                                        yield Ok(message);
                                    }
                                }
                                Event::Finished(finished) => {
                                    outcome = finished.map(|finished| (about, *finished));
                                    break;
                                }
                            }
                        }
                    }
                }
                if let Err(failure) = &outcome && failure.ends_the_call() {
                    yield Err(status(failure, Some(&comparison.request_id)));
                    return;
                }
                let entry = measure.entry(&deployment, outcome);
                yield Ok(response(Wire::Entry(entry)));
            }
        })
    }

    /// Puts one edit of a comparison into its deployment's queue.
    fn begin_edit(
        &self,
        mut edit: Prepared,
        comparison: &Comparison,
        index: usize,
        record: Record,
    ) -> Result<Ticket, Failure> {
        if let Some(reason) = comparison.stop.reason() {
            return Err(reason.into());
        }
        edit.checked.task.record = Some(record);
        let request_id = format!("{}-{}", comparison.request_id, index + 1);
        let arrival = Arrival { at: Instant::now(), ..comparison.arrival };
        let deployment = edit.deployment.name();
        let caller = comparison.caller.as_deref();
        let span =
            tracing::info_span!("edit", request_id, caller, deployment, trace_id = tracing::field::Empty);
        trace::join(&span, arrival.trace);
        let stop = Stop::new(arrival.deadline);
        let registration = self.requests().register(&request_id, stop.clone());
        self.push(edit, arrival, &request_id, span, (stop, registration))
    }
}

impl Comparison {
    fn started(&self) -> v1::CompareStartedEvent {
        v1::CompareStartedEvent {
            request_id: self.request_id.clone(),
            deployments: self.edits.iter().map(|edit| edit.deployment.name().to_owned()).collect(),
            seed: self.seed,
            latent_threshold: self.threshold,
        }
    }
}

fn response(event: Wire) -> v1::CompareResponse {
    v1::CompareResponse { event: Some(event) }
}
