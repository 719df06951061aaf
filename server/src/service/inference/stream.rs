//! Many requests in one call.

use std::pin::Pin;

use smartedit_proto::inference::infer_parameter::ParameterChoice;
use smartedit_proto::inference::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
};
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt, StreamMap};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status, Streaming};

use super::Inference;
use super::infer::Answers;
use crate::failure::Failure;
use crate::security::Access;
use crate::service::admission::Permit;
use crate::service::{Arrival, Hints};
use crate::status::status;

/// The answers of a call.
pub(super) type Responses = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

/// Requests of a call that are computed at the same time. The next one is not received before one of them is over.
const MAX_IN_FLIGHT: usize = 16;

/// The metadata key that makes the whole call fail with the first request that does.
const FAILS_AS_A_WHOLE: &str = "triton_grpc_error";

/// Whether a call fails with the first request that does.
pub(super) fn fails_as_a_whole(metadata: &MetadataMap) -> bool {
    metadata.get(FAILS_AS_A_WHOLE).is_some_and(|value| value == "true")
}

/// What all requests of a call have in common.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) arrival: Arrival,
    pub(super) access: Access,
    pub(super) hints: Hints,
    /// Whether the call fails with the first request that does.
    pub(super) fails_as_a_whole: bool,
}

/// A request whose answers are awaited.
struct Pending {
    model: String,
    id: String,
}

impl Inference {
    /// Answers requests as they come. The call counts among those received for as long as it is open.
    pub(super) fn responses(
        self,
        mut requests: Streaming<ModelInferRequest>,
        call: Call,
        permit: Option<Permit>,
    ) -> Responses {
        let arrival = call.arrival;
        Box::pin(async_stream::stream! {
            let _permit = permit;
            let mut running: StreamMap<u64, Tagged> = StreamMap::new();
            let mut received = 0;
            let mut open = true;
            let idle = self.service.0.config.connections.stream_idle_timeout();
            while open || !running.is_empty() {
                tokio::select! {
                    // None: what was running is over, which only polling tells.
                    next = running.next(), if !running.is_empty() => match next {
                        Some((_, (_, Err(status)))) if call.fails_as_a_whole => {
                            yield Err(status);
                            return;
                        }
                        Some((_, (pending, answer))) => yield Ok(response(&pending, answer)),
                        None => {}
                    },
                    message = requests.message(), if open && running.len() < MAX_IN_FLIGHT => match message {
                        Ok(Some(request)) => {
                            let arrival = Arrival { at: Instant::now(), ..arrival };
                            let hints = call.hints.drawn_anew();
                            let call = Call { arrival, hints, ..call.clone() };
                            running.insert(received, self.tagged(request, call));
                            received += 1;
                        }
                        Ok(None) => open = false,
                        Err(error) => {
                            yield Err(self.broken(error));
                            return;
                        }
                    },
                    () = tokio::time::sleep(idle), if running.is_empty() => {
                        yield Err(status(&Failure::StreamIdle { timeout: idle }, None));
                        return;
                    }
                    () = arrival.passed() => {
                        yield Err(status(&Failure::DeadlineExceeded, None));
                        return;
                    }
                }
            }
        })
    }

    /// The answers to a request, each with what it answers.
    fn tagged(&self, request: ModelInferRequest, call: Call) -> Tagged {
        let (model, id) = (request.model_name.clone(), request.id.clone());
        let answers: Answers = self.clone().answers(request, call.arrival, call.access, call.hints, true);
        Box::pin(answers.map(move |answer| (Pending { model: model.clone(), id: id.clone() }, answer)))
    }

    /// Why no further request can be received. tonic calls a message above its limit OUT_OF_RANGE.
    fn broken(&self, error: Status) -> Status {
        match error.code() {
            Code::OutOfRange => {
                let limit = self.service.0.config.limits.max_message_bytes;
                status(&Failure::MessageTooLarge { limit }, None)
            }
            _ => error,
        }
    }
}

type Tagged = Pin<Box<dyn Stream<Item = (Pending, Result<ModelInferResponse, Status>)> + Send>>;

fn response(pending: &Pending, answer: Result<ModelInferResponse, Status>) -> ModelStreamInferResponse {
    match answer {
        Ok(answer) => ModelStreamInferResponse { error_message: String::new(), infer_response: Some(answer) },
        Err(status) => {
            let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
            let about = ModelInferResponse {
                model_name: pending.model.clone(),
                id: pending.id.clone(),
                parameters: [("triton_final_response".to_owned(), last)].into(),
                ..ModelInferResponse::default()
            };
            ModelStreamInferResponse {
                error_message: status.message().to_owned(),
                infer_response: Some(about),
            }
        }
    }
}
