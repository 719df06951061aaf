//! One stage of a deployment as a model.

use std::sync::Arc;
use std::time::Duration;

use smartedit_core::pipeline::EditError;
use smartedit_core::stage::{Stage, StageError};
use smartedit_core::tensor::Tensors;
use smartedit_proto::inference::ModelInferResponse;
use tokio::time::Instant;

use super::Inference;
use super::catalog::Computes;
use super::infer::{Answers, Asked};
use super::read::Value;
use super::statistics::{Phases, Tally};
use super::write::Notes;
use crate::failure::Failure;
use crate::status::status;
use crate::work::Stop;

/// What a caller who found no room is told to wait while no run has been measured.
const UNMEASURED: Duration = Duration::from_secs(1);

/// The least that such a caller is told to wait.
const SHORTEST: Duration = Duration::from_millis(50);

impl Inference {
    /// Runs a stage.
    pub(super) fn run(self, asked: Asked) -> Answers {
        let request_id = format!("{:016x}", fastrand::u64(..));
        Box::pin(async_stream::stream! {
            let outcome = self.run_once(&request_id, asked).await;
            yield outcome.map_err(|failure| status(&failure, Some(&request_id)));
        })
    }

    async fn run_once(&self, request_id: &str, mut asked: Asked) -> Result<ModelInferResponse, Failure> {
        let Computes::Stage(stage) = asked.model.computes.clone() else { return Err(Failure::Lost) };
        let tally = self.statistics.of(&asked.model.contract.name);
        let measure = tally.measure(asked.arrival.at);
        let mut inputs = Tensors::new();
        for (name, value) in std::mem::take(&mut asked.tensors.inputs) {
            if let Value::Numbers(tensor) = value {
                inputs.insert(name, tensor);
            }
        }
        let outcome = self.compute(request_id, &asked, &tally, stage, inputs).await;
        let ms = |duration: Duration| duration.as_millis() as u64;
        let (model, total_ms) = (&asked.model.contract.name, ms(asked.arrival.at.elapsed()));
        let (outputs, queue, infer) = outcome.inspect_err(|failure| {
            let outcome = failure.reason();
            if failure.is_internal() {
                let error: &dyn std::error::Error = failure;
                tracing::error!(request_id, model, outcome, total_ms, error, "inference failed");
            } else {
                tracing::info!(request_id, model, outcome, total_ms, reason = %failure, "inference ended");
            }
        })?;
        let started = Instant::now();
        let specs = asked.model.contract.outputs.iter();
        let outputs = specs.filter_map(|spec| {
            outputs.get(spec.name).map(|tensor| (spec.name, Value::Numbers(tensor.clone())))
        });
        let notes = Notes::default().text("request_id", request_id);
        let limit = self.service.0.config.limits.max_message_bytes;
        let answer = asked.answer(outputs.collect(), notes, true, limit)?;
        tracing::info!(
            request_id,
            model,
            outcome = "OK",
            total_ms,
            queued_ms = ms(queue),
            "inference finished"
        );
        measure.answered(Phases { queue, input: asked.reading, infer, output: started.elapsed() });
        Ok(answer)
    }

    /// Waits for a turn and runs the stage, in a session of its own. Tells how long each took.
    async fn compute(
        &self,
        request_id: &str,
        asked: &Asked,
        tally: &Tally,
        stage: Arc<dyn Stage>,
        inputs: Tensors,
    ) -> Result<(Tensors, Duration, Duration), Failure> {
        let deployment = asked.model.deployment.name();
        let stop = Stop::new(asked.arrival.deadline);
        let registration = self.service.admit(request_id, stop.clone())?;
        let limits = &self.service.0.config.limits;
        let lane = self.lanes.of(deployment, self.instances(deployment), limits);
        let bytes = inputs.iter().map(|(_, tensor)| tensor.shape().iter().product::<usize>() * 8).sum();
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
        let queued = waiting.elapsed();
        let run = tokio::task::spawn_blocking(move || {
            // A run cannot be stopped: whoever gives it up leaves its turn and its place to its end.
            let _held = (turn, registration);
            let started = Instant::now();
            let outputs = stage.session().run(&inputs);
            (outputs, started.elapsed())
        });
        let done = tokio::select! {
            done = run => done,
            () = asked.arrival.passed() => return Err(Failure::DeadlineExceeded),
        };
        let (outputs, took) = done.map_err(|error| Failure::Panicked(error.to_string()))?;
        Ok((outputs.map_err(failure)?, queued, took))
    }
}

/// What is wrong with the inputs is the caller's fault, all else the server's.
fn failure(error: StageError) -> Failure {
    match error {
        StageError::Input { input, message, .. } => Failure::invalid(format!("inputs.{input}"), message),
        StageError::Tensors { source, .. } => Failure::invalid("inputs", source),
        error @ (StageError::Engine { .. } | StageError::NotFinite { .. } | StageError::Foreign { .. }) => {
            Failure::Edit(EditError::Stage(error))
        }
    }
}
