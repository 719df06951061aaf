//! From a request to its answers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use smartedit_core::stage::Stage;
use smartedit_proto::inference::{ModelInferRequest, ModelInferResponse};
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::Inference;
use super::catalog::{Computes, Model};
use super::parameters::{self, EditParameters, Parameters};
use super::read::Tensors;
use crate::failure::{Failure, Violations};
use crate::security::Access;
use crate::service::{Arrival, Hints};
use crate::status::status;

/// The answers to one request. The last one is the result, or why there is none; others come only if asked for.
pub(super) type Answers = Pin<Box<dyn Stream<Item = Result<ModelInferResponse, Status>> + Send>>;

/// A request that has been checked.
pub(super) struct Asked {
    pub(super) model: Model,
    /// The caller's own identifier of the request.
    pub(super) id: String,
    pub(super) tensors: Tensors,
    /// When the request arrived; its deadline is the nearer of the call's and the request's.
    pub(super) arrival: Arrival,
    /// Who asks for it, and what that caller may do.
    pub(super) access: Access,
    /// How long its inputs took to read.
    pub(super) reading: Duration,
    /// Whether it came in a stream, where the last answer is marked.
    pub(super) streaming: bool,
}

/// What the parameters of a request ask for, by what its model computes.
enum Work {
    Edit(Box<EditParameters>),
    Stage(Arc<dyn Stage>),
}

impl Inference {
    /// Computes a model once.
    pub(super) async fn infer(
        self,
        request: ModelInferRequest,
        arrival: Arrival,
        access: Access,
        hints: Hints,
    ) -> Result<ModelInferResponse, Status> {
        let answer = self.answers(request, arrival, access, hints, false).next().await;
        answer.unwrap_or_else(|| Err(status(&Failure::Lost, None)))
    }

    /// Checks a request and computes its model.
    pub(super) fn answers(
        self,
        request: ModelInferRequest,
        arrival: Arrival,
        access: Access,
        hints: Hints,
        streaming: bool,
    ) -> Answers {
        match self.check(request, arrival, access, hints, streaming) {
            Ok((asked, Work::Edit(parameters))) => self.edit(asked, *parameters),
            Ok((asked, Work::Stage(stage))) => self.run(asked, stage),
            Err(failure) => {
                tracing::info!(outcome = failure.reason(), reason = %failure, "inference refused");
                Box::pin(tokio_stream::once(Err(status(&failure, None))))
            }
        }
    }

    /// Checks all of a request that can be checked before anything is computed.
    fn check(
        &self,
        mut request: ModelInferRequest,
        mut arrival: Arrival,
        access: Access,
        hints: Hints,
        streaming: bool,
    ) -> Result<(Asked, Work), Failure> {
        if !self.service.is_accepting() {
            return Err(Failure::ShuttingDown);
        }
        if streaming {
            access.charge(1)?;
        }
        let key = parameters::route_key(&request.parameters);
        let model = self.chosen_model(&request.model_name, &request.model_version, (hints, key), &access)?;
        let started = Instant::now();
        let mut violations = Violations::default();
        let limits = &self.service.0.config.limits;
        let tensors = Tensors::read(&model.contract, &mut request, limits, &mut violations);
        let mut parameters = Parameters::new(request.parameters, &mut violations);
        let timeout = parameters.timeout();
        let work = match &model.computes {
            Computes::Edit => Work::Edit(Box::new(parameters.edit(streaming))),
            Computes::Stage(stage) => {
                parameters.stage();
                Work::Stage(stage.clone())
            }
        };
        parameters.finish();
        if !violations.is_empty() {
            return Err(Failure::Invalid(violations));
        }
        let due = timeout.and_then(|timeout| arrival.at.checked_add(timeout));
        arrival.deadline = arrival.deadline.into_iter().chain(due).min();
        let reading = started.elapsed();
        Ok((Asked { model, id: request.id, tensors, arrival, access, reading, streaming }, work))
    }
}
