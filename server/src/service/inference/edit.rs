//! A whole edit as a model.

use bytes::Bytes;

use super::Inference;
use super::catalog::{IMAGE, INSTRUCTION, REPLY};
use super::infer::{Answers, Asked};
use super::parameters::{self, EditParameters};
use super::read::Value;
use super::statistics::Phases;
use super::write::Notes;
use crate::failure::{Failure, Violations};
use crate::service::edit::{About, Order, Ticket, next};
use crate::service::routing::{Chosen, Destination};
use crate::status::status;
use crate::work::{Event, Finished, Preview, Progress};

impl Inference {
    /// Makes an edit.
    pub(super) fn edit(self, mut asked: Asked, parameters: EditParameters) -> Answers {
        let limit = self.service.0.config.limits.max_message_bytes;
        let tally = self.statistics.of(&asked.model);
        Box::pin(async_stream::stream! {
            let submitted = match order(&mut asked, &parameters) {
                Ok(order) => self.service.submit(order, asked.arrival).map_err(|mut refused| {
                    refused.failure = renamed(refused.failure);
                    refused.status()
                }),
                Err(failure) => Err(status(&failure, None)),
            };
            let Ticket { about, arrival, mut events, guard: _guard } = match submitted {
                Ok(ticket) => ticket,
                Err(status) => {
                    yield Err(status);
                    return;
                }
            };
            let measure = tally.measure(arrival.at);
            while let Some(event) = next(&mut events, arrival).await {
                let answer = match event {
                    Event::Progress(_) if !parameters.progress => continue,
                    Event::Progress(progress) => {
                        let (outputs, notes) = on_the_way(&about, progress);
                        let answer = asked.answer(outputs, notes, false, limit);
                        yield answer.map_err(|failure| about.status(&failure));
                        continue;
                    }
                    Event::Finished(Ok(finished)) => {
                        let phases = phases(&asked, &finished);
                        let (outputs, notes) = result(&about, *finished);
                        let answer = asked.answer(outputs, notes, true, limit);
                        if answer.is_ok() {
                            measure.answered(phases);
                        }
                        answer
                    }
                    Event::Finished(Err(failure)) => Err(renamed(failure)),
                };
                yield answer.map_err(|failure| about.status(&failure));
                return;
            }
            yield Err(about.status(&Failure::Lost));
        })
    }
}

/// The edit that a request asks for.
fn order(asked: &mut Asked, parameters: &EditParameters) -> Result<Order, Failure> {
    let mut string = |name: &str| match asked.tensors.inputs.remove(name) {
        Some(Value::Strings(strings)) => strings.into_iter().next().unwrap_or_default(),
        _ => Bytes::new(),
    };
    let (image, instruction) = (string(IMAGE), string(INSTRUCTION));
    let instruction = String::from_utf8(instruction.into())
        .map_err(|_| Failure::invalid(format!("inputs.{INSTRUCTION}"), "is not UTF-8"))?;
    let (deployment, route) = (asked.model.deployment.clone(), asked.model.route.clone());
    let destination = Destination::Chosen(Chosen { deployment, route });
    let (options, access) = (parameters.options.clone(), asked.access.clone());
    Ok(Order { image, instruction, destination, options, access })
}

/// The failure of an edit, with what this protocol calls the fields at fault.
fn renamed(failure: Failure) -> Failure {
    let violations = match failure {
        Failure::Invalid(violations) => violations,
        other => match other.violation() {
            Some((field, description)) => Violations::one(field, description),
            None => return other,
        },
    };
    Failure::Invalid(violations.renamed(|field| match field.strip_prefix("options.") {
        Some(option) => format!("{}.{}", parameters::FIELD, option.trim_start_matches("resolution.")),
        None => format!("inputs.{field}"),
    }))
}

fn phases(asked: &Asked, finished: &Finished) -> Phases {
    let timings = &finished.timings;
    Phases {
        queue: timings.queued,
        input: asked.reading + timings.image_decoding,
        infer: timings.stages.iter().map(|stage| stage.duration).sum(),
        output: timings.image_encoding,
    }
}

type Answer = (Vec<(&'static str, Value)>, Notes);

fn result(about: &About, finished: Finished) -> Answer {
    let notes = Notes::default()
        .text("request_id", &about.request_id)
        .text("deployment", &about.deployment)
        .text("mime_type", finished.format.mime_type())
        .integer("seed", about.seed)
        .integer("width", finished.width.into())
        .integer("height", finished.height.into());
    let reply = Bytes::from(finished.reply.unwrap_or_default());
    (vec![(IMAGE, Value::Strings(vec![finished.image])), (REPLY, Value::Strings(vec![reply]))], notes)
}

/// An answer on the way: an event and its details. A preview is an image as the result is one.
fn on_the_way(about: &About, progress: Progress) -> Answer {
    let notes = Notes::default().text("request_id", &about.request_id);
    let mut outputs = Vec::new();
    let notes = match progress {
        Progress::Accepted => notes.text("event", "accepted").integer("seed", about.seed),
        Progress::Queued(ahead) => notes.text("event", "queued").integer("position", ahead as u64),
        Progress::StageStarted { stage, .. } => {
            notes.text("event", "stage_started").text("stage", stage.name())
        }
        Progress::StageFinished { stage, cached, .. } => {
            notes.text("event", "stage_finished").text("stage", stage.name()).flag("cached", cached)
        }
        Progress::Reply(reply) => {
            outputs.push((REPLY, Value::Strings(vec![reply.into()])));
            notes.text("event", "reply")
        }
        Progress::Step { done, total, preview } => {
            let notes =
                notes.text("event", "step").integer("step", done as u64).integer("steps", total as u64);
            match preview {
                Some(Preview { image, format, step }) => {
                    outputs.push((IMAGE, Value::Strings(vec![image])));
                    notes.text("mime_type", format.mime_type()).integer("preview_step", step as u64)
                }
                None => notes,
            }
        }
    };
    (outputs, notes)
}
