//! Handing an edit to its deployment, and reporting on it.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use smartedit_proto::v1;
use tokio_stream::Stream;
use tonic::{Response, Status};

use super::validate::Checked;
use super::{Arrival, Service, messages, trace, validate};
use crate::deployment::Lease;
use crate::failure::Failure;
use crate::security::Access;
use crate::status::status;
use crate::work::{Event, Events, Guard, Job, Progress, Refusal, Registration, Stop, channel};

/// The stream of events of an edit.
pub(super) type EventStream = Pin<Box<dyn Stream<Item = Result<v1::EditStreamResponse, Status>> + Send>>;

/// The metadata key of a response that holds the request's identifier.
const REQUEST_ID: &str = "x-request-id";

/// A request, unary or streaming.
pub(crate) struct Order {
    pub(crate) image: Bytes,
    pub(crate) instruction: String,
    pub(crate) deployment: String,
    pub(crate) options: v1::EditOptions,
    /// Who asks for it, and what that caller may do.
    pub(crate) access: Access,
}

/// What a caller holds while its edit is waited for: events, and the guard that stops the edit when the caller
/// goes away.
pub(crate) struct Ticket {
    pub(super) about: About,
    pub(super) arrival: Arrival,
    pub(super) events: Events,
    pub(super) guard: Guard,
}

/// An order that its deployment can be given.
pub(super) struct Prepared {
    pub(super) deployment: Lease,
    pub(super) checked: Checked,
}

/// An order that was not taken.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(super) request_id: String,
    pub(super) failure: Failure,
}

/// What is known of an edit before it is begun.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub(super) request_id: String,
    pub(super) deployment: String,
    pub(super) version: u64,
    pub(super) seed: u64,
}

impl Service {
    /// Checks an order and puts it into its deployment's queue.
    pub(crate) fn submit(&self, order: Order, arrival: Arrival) -> Result<Ticket, Refused> {
        let request_id = format!("{:016x}", fastrand::u64(..));
        let empty = tracing::field::Empty;
        let caller = order.access.name().map(str::to_owned);
        let span = tracing::info_span!("edit", request_id, caller, deployment = empty, trace_id = empty);
        trace::join(&span, arrival.trace);
        let submit = || {
            self.enqueue(order, arrival, &request_id, span.clone()).map_err(|failure| {
                self.metrics().refused(&failure);
                tracing::info!(request_id, outcome = failure.reason(), reason = %failure, "edit refused");
                Refused { request_id: request_id.clone(), failure }
            })
        };
        span.in_scope(submit)
    }

    fn enqueue(
        &self,
        order: Order,
        arrival: Arrival,
        request_id: &str,
        span: tracing::Span,
    ) -> Result<Ticket, Failure> {
        if !self.is_accepting() {
            return Err(Failure::ShuttingDown);
        }
        let access = order.access.clone();
        let prepared = self.prepare(order)?;
        span.record("deployment", prepared.deployment.name());
        let stop = Stop::new(arrival.deadline.filter(|_| !prepared.checked.keep));
        let registration = self.admit(request_id, stop.clone(), &access)?;
        self.push(prepared, arrival, request_id, span, (stop, registration))
    }

    /// Finds an order's deployment and checks the order against its model.
    pub(super) fn prepare(&self, order: Order) -> Result<Prepared, Failure> {
        let deployment = self.lease(&order.deployment, &order.access)?;
        let editor = deployment.editor()?;
        let checked = validate::check(order, &self.0.config.limits, editor.config(), editor.adapters())?;
        Ok(Prepared { deployment, checked })
    }

    /// Registers a request unless the server shuts down or as many of the caller's go on as may.
    pub(super) fn admit(
        &self,
        request_id: &str,
        stop: Stop,
        access: &Access,
    ) -> Result<Registration, Failure> {
        let place = access.work()?;
        let registration = self.requests().register(request_id, stop).holding(place);
        // Whoever shuts the server down first refuses edits, then looks at the registry.
        match self.is_accepting() {
            true => {
                self.metrics().admitted(access);
                Ok(registration)
            }
            false => Err(Failure::ShuttingDown),
        }
    }

    /// Puts an order that has been checked into its deployment's queue.
    pub(super) fn push(
        &self,
        prepared: Prepared,
        arrival: Arrival,
        request_id: &str,
        span: tracing::Span,
        (stop, registration): (Stop, Registration),
    ) -> Result<Ticket, Failure> {
        let Prepared { deployment, checked: Checked { task, account, seed, keep, .. } } = prepared;
        if self.0.config.log.instructions {
            span.in_scope(|| tracing::info!(instruction = task.instruction, "edit accepted"));
        }
        let (reporter, events) = channel();
        let reporter = reporter
            .observed_by(self.metrics().observer(&deployment, &self.deployments().label(&deployment)));
        let queue = deployment.queue();
        let guard = Guard::new(Arc::clone(queue), stop.clone(), keep);
        reporter.report(Progress::Accepted);
        let id = request_id.to_owned();
        let job = Job { id, task, account, arrival: arrival.at, stop, reporter, span, registration };
        queue.push(job).map_err(|refusal| match refusal {
            Refusal::Full { retry_after } => {
                Failure::QueueFull { deployment: deployment.name().to_owned(), retry_after }
            }
            Refusal::Late { needed, allowed } => Failure::DeadlineTooShort { needed, allowed },
        })?;
        let about = About {
            request_id: request_id.to_owned(),
            deployment: deployment.name().to_owned(),
            version: deployment.version(),
            seed,
        };
        Ok(Ticket { about, arrival, events, guard })
    }
}

impl Ticket {
    /// The request's identifier.
    pub(crate) fn request_id(&self) -> &str {
        &self.about.request_id
    }

    /// Waits for the result.
    pub(crate) async fn result(self) -> Result<Response<v1::EditResponse>, Status> {
        let Self { about, mut events, guard: _guard, .. } = self;
        loop {
            match events.next().await {
                Some(Event::Progress(_)) => {}
                Some(Event::Finished(outcome)) => {
                    let finished = outcome.map_err(|failure| about.status(&failure))?;
                    let result = Some(messages::result(&about, *finished));
                    return Ok(about.label(v1::EditResponse { result }));
                }
                None => return Err(about.status(&Failure::Lost)),
            }
        }
    }

    /// The events, down to the result. The deadline also bounds a caller who reads slowly.
    pub(super) fn stream(self) -> Response<EventStream> {
        let Self { about, arrival, mut events, guard } = self;
        let labelled = about.clone();
        let stream = async_stream::stream! {
            let _guard = guard;
            loop {
                match next(&mut events, arrival).await {
                    Some(Event::Progress(progress)) => yield Ok(messages::progress(&about, progress)),
                    Some(Event::Finished(Ok(finished))) => {
                        yield Ok(messages::finished(&about, *finished));
                        return;
                    }
                    Some(Event::Finished(Err(failure))) => {
                        yield Err(about.status(&failure));
                        return;
                    }
                    None => return,
                }
            }
        };
        labelled.label(Box::pin(stream))
    }
}

/// The next event, which is the end of the edit once the deadline has passed; `None` after the last.
pub(super) async fn next(events: &mut Events, arrival: Arrival) -> Option<Event> {
    tokio::select! {
        biased;
        event = events.next() => event,
        () = arrival.passed() => Some(Event::Finished(Err(Failure::DeadlineExceeded))),
    }
}

impl Refused {
    pub(crate) fn status(&self) -> Status {
        status(&self.failure, Some(&self.request_id))
    }
}

impl About {
    pub(super) fn status(&self, failure: &Failure) -> Status {
        status(failure, Some(&self.request_id))
    }

    /// A response that names the request.
    pub(super) fn label<T>(&self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        if let Ok(id) = self.request_id.parse() {
            response.metadata_mut().insert(REQUEST_ID, id);
        }
        response
    }
}
