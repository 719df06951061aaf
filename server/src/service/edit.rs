//! Handing an edit to its deployment, and reporting on it.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use smartedit_proto::v1;
use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

use super::routing::{DEPLOYMENT, Destination};
use super::shadow::Follower;
use super::validate::Checked;
use super::{Arrival, Service, messages, shadow, trace, validate};
use crate::deployment::Lease;
use crate::failure::Failure;
use crate::security::Access;
use crate::status::status;
use crate::work::{Event, Events, Guard, Job, Progress, Record, Refusal, Registration, Stop, channel};

/// The stream of events of an edit.
pub(super) type EventStream = Pin<Box<dyn Stream<Item = Result<v1::EditStreamResponse, Status>> + Send>>;

/// The metadata key of a response that holds the request's identifier.
const REQUEST_ID: &str = "x-request-id";

/// A request, unary or streaming.
#[derive(Clone)]
pub(crate) struct Order {
    pub(crate) image: Bytes,
    pub(crate) instruction: String,
    pub(crate) destination: Destination,
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
    /// What makes the edit a second time.
    pub(super) follower: Option<Follower>,
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
        let (route, deployment, trace_id) = (&empty, &empty, &empty);
        let span = tracing::info_span!("edit", request_id, caller, route, deployment, trace_id);
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
        let prepared = self.route(order, arrival, request_id, &span)?;
        let stop = Stop::new(arrival.deadline.filter(|_| !prepared.checked.keep));
        let registration = self.admit(request_id, stop.clone(), &access)?;
        self.push(prepared, arrival, request_id, span, (stop, registration))
    }

    /// Chooses an order's deployment, checks the order against its model, and decides whether the edit is made twice.
    fn route(
        &self,
        order: Order,
        arrival: Arrival,
        request_id: &str,
        span: &tracing::Span,
    ) -> Result<Prepared, Failure> {
        let chosen = self.choose(order.destination.clone(), &order.options.route_key, &order.access)?;
        span.record("deployment", chosen.deployment.name());
        if let Some(route) = &chosen.route {
            span.record("route", &**route.name());
        }
        let second = shadow::wanted(&chosen).map(|shadow| (shadow, order.clone()));
        let mut prepared = self.prepare(chosen.deployment, order)?;
        if let Some((shadow, mut order)) = second {
            order.options.seed = Some(prepared.checked.seed);
            prepared.checked.task.record = Some(Record::Picture);
            prepared.follower = Some(self.follower(shadow, order, arrival, request_id));
        }
        Ok(prepared)
    }

    /// Checks an order against a deployment's model.
    pub(super) fn prepare(&self, deployment: Lease, order: Order) -> Result<Prepared, Failure> {
        let editor = deployment.editor()?;
        let checked = validate::check(order, &self.0.config.limits, editor.config(), editor.adapters())?;
        Ok(Prepared { deployment, checked, follower: None })
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
        let Prepared { deployment, checked: Checked { task, account, seed, keep, .. }, follower } = prepared;
        if self.0.config.log.instructions {
            span.in_scope(|| tracing::info!(instruction = task.instruction, "edit accepted"));
        }
        let (reporter, events) = channel();
        let label = self.deployments().label(&deployment);
        let mut reporter = reporter.observed_by(self.metrics().observer(&deployment, &label));
        if let Some(follower) = follower {
            reporter = reporter.observed_by(follower);
        }
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

    /// The deployment that makes the edit.
    pub(crate) fn deployment(&self) -> &str {
        &self.about.deployment
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
    /// The status for a failure, which names the deployment.
    pub(super) fn status(&self, failure: &Failure) -> Status {
        let mut status = status(failure, Some(&self.request_id));
        self.name_deployment(status.metadata_mut());
        status
    }

    /// A response that names the request and, if there is but one, the deployment.
    pub(super) fn label<T>(&self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        let metadata = response.metadata_mut();
        if let Ok(id) = self.request_id.parse() {
            metadata.insert(REQUEST_ID, id);
        }
        self.name_deployment(metadata);
        response
    }

    fn name_deployment(&self, metadata: &mut MetadataMap) {
        if let (false, Ok(deployment)) = (self.deployment.is_empty(), self.deployment.parse()) {
            metadata.insert(DEPLOYMENT, deployment);
        }
    }
}
