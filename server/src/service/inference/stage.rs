//! One stage of a deployment as a model.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use smartedit_core::interest;
use smartedit_core::pipeline::EditError;
use smartedit_core::stage::{Stage, StageError};
use smartedit_core::tensor::{HostTensor, Tensors};
use smartedit_proto::inference::ModelInferResponse;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::Inference;
use super::infer::{Answers, Asked};
use super::read::Value;
use super::statistics::{Phases, Tally};
use super::write::Notes;
use crate::failure::Failure;
use crate::metrics::StageRun;
use crate::service::trace;
use crate::status::status;
use crate::work::{Stop, StopReason, stage_span};

/// What a caller who found no room is told to wait while no run has been measured.
const UNMEASURED: Duration = Duration::from_secs(1);

/// The least that such a caller is told to wait.
const SHORTEST: Duration = Duration::from_millis(50);

impl Inference {
    /// Runs a stage.
    pub(super) fn run(self, mut asked: Asked, stage: Arc<dyn Stage>) -> Answers {
        let request_id = format!("{:016x}", fastrand::u64(..));
        let inputs = std::mem::take(&mut asked.tensors.inputs);
        let span = span(&request_id, &asked);
        let label = self.service.deployments().label(&asked.model.deployment);
        let counted = self.service.metrics().stage_run(&label, stage.info());
        Box::pin(async_stream::stream! {
            let run = self.run_once(&request_id, &asked, &counted, stage, inputs);
            let outcome = run.instrument(span.clone()).await;
            counted.ended(outcome.as_ref().map(drop));
            span.in_scope(|| log(&asked, &outcome));
            yield outcome.map_err(|failure| status(&failure, Some(&request_id)));
        })
    }

    async fn run_once(
        &self,
        request_id: &str,
        asked: &Asked,
        counted: &StageRun,
        stage: Arc<dyn Stage>,
        inputs: Inputs,
    ) -> Result<ModelInferResponse, Failure> {
        let tally = self.statistics.of(&asked.model);
        let measure = tally.measure(asked.arrival.at);
        let kind = stage.info().kind;
        let Run { mut outputs, queue, infer } =
            self.compute(request_id, asked, &tally, stage, inputs).await?;
        counted.computed(queue, infer);
        let started = Instant::now();
        let mut wanted = Vec::new();
        for name in asked.tensors.wanted.iter().copied() {
            let array = outputs.take_f32(name);
            let array =
                array.map_err(|source| EditError::Stage(StageError::Tensors { stage: kind, source }))?;
            wanted.push((name, Value::Numbers(HostTensor::F32(array))));
        }
        let notes = Notes::default().text("request_id", request_id);
        let answer = asked.answer(wanted, notes, true, self.service.0.config.limits.max_message_bytes)?;
        measure.answered(Phases { queue, input: asked.reading, infer, output: started.elapsed() });
        Ok(answer)
    }

    /// Waits for a turn and runs the stage, in a session of its own.
    async fn compute(
        &self,
        request_id: &str,
        asked: &Asked,
        tally: &Tally,
        stage: Arc<dyn Stage>,
        inputs: Inputs,
    ) -> Result<Run, Failure> {
        let lease = asked.model.deployment.clone();
        let deployment = lease.name();
        let stop = Stop::new(asked.arrival.deadline);
        // Dropped with the call, when its caller leaves.
        let _abandon = Abandon(stop.clone());
        let registration = self.service.admit(request_id, stop.clone(), &asked.access)?;
        let lane = lease.lane().map_err(|error| {
            tracing::error!(deployment, error = error.to_string(), "cannot start threads for stages");
            Failure::Lost
        })?;
        let bytes = inputs.values().map(Value::bytes).sum();
        let place = lane.enter(bytes).ok_or_else(|| Failure::QueueFull {
            deployment: deployment.to_owned(),
            retry_after: tally.mean().map_or(UNMEASURED, |mean| mean.max(SHORTEST)),
        })?;
        let waiting = Instant::now();
        let turn = tokio::select! {
            turn = place.turn() => turn,
            () = asked.arrival.passed() => return Err(Failure::DeadlineExceeded),
        };
        if let Some(reason) = stop.reason() {
            return Err(reason.into());
        }
        let queue = waiting.elapsed();
        let inputs = tensors(inputs);
        let (running, span) = (lease.clone(), Span::current());
        let run = turn.run(move || {
            // Whoever shuts the server down or unloads the model waits for what runs.
            let (_registration, _lease) = (registration, running);
            let info = stage.info();
            let span = span.in_scope(|| stage_span(info.kind, info.engine));
            let started = Instant::now();
            let run = || stage.session().run(&inputs);
            let outputs = interest::during(stop.interests(), || span.in_scope(run));
            (outputs, started.elapsed())
        });
        let (outputs, infer) = tokio::select! {
            done = run => done?,
            () = asked.arrival.passed() => return Err(Failure::DeadlineExceeded),
        };
        Ok(Run { outputs: outputs.map_err(failure)?, queue, infer })
    }
}

/// Stops a run when dropped, as far as it can be stopped: where another server computes the stage.
struct Abandon(Stop);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.set(StopReason::Abandoned);
    }
}

/// Every input that is given, by name.
type Inputs = BTreeMap<&'static str, Value>;

/// What a stage gave, and how long it waited and ran.
struct Run {
    outputs: Tensors,
    queue: Duration,
    infer: Duration,
}

fn tensors(inputs: Inputs) -> Tensors {
    let mut tensors = Tensors::new();
    for (name, value) in inputs {
        if let Value::Numbers(tensor) = value {
            tensors.insert(name, tensor);
        }
    }
    tensors
}

/// The span of a run, in its caller's trace.
fn span(request_id: &str, asked: &Asked) -> Span {
    let (caller, model) = (asked.access.name(), &asked.model.contract.name);
    let span = tracing::info_span!("stage_run", request_id, caller, model, trace_id = tracing::field::Empty);
    trace::join(&span, asked.arrival.trace);
    span
}

fn log(asked: &Asked, outcome: &Result<ModelInferResponse, Failure>) {
    let total_ms = asked.arrival.at.elapsed().as_millis() as u64;
    match outcome {
        Ok(_) => tracing::info!(outcome = "OK", total_ms, "inference finished"),
        Err(failure) if failure.is_internal() => {
            let error: &dyn std::error::Error = failure;
            tracing::error!(outcome = failure.reason(), total_ms, error, "inference failed");
        }
        Err(failure) => {
            tracing::info!(outcome = failure.reason(), total_ms, reason = %failure, "inference ended");
        }
    }
}

/// What is wrong with the inputs is the caller's fault, all else the server's.
fn failure(error: StageError) -> Failure {
    match error {
        StageError::Input { input, message, .. } => Failure::invalid(format!("inputs.{input}"), message),
        StageError::Tensors { source, .. } => Failure::invalid("inputs", source),
        error @ (StageError::Engine { .. }
        | StageError::Unavailable { .. }
        | StageError::NotFinite { .. }
        | StageError::Foreign { .. }) => Failure::Edit(EditError::Stage(error)),
    }
}
