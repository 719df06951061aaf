//! Making an edit of a route a second time, on the route's shadow, after it has been answered.
//!
//! Nothing of it is on the way of a request: it begins when the request's result is there, at the priority of batches and on an
//! account of its own, only where the deployment could begin it at once, and within the bounds of the route. What cannot be
//! made so is not made, and counted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use image::RgbImage;
use smartedit_core::picture::ValueDifference;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::edit::Order;
use super::routing::Chosen;
use super::{Arrival, Service, caller, trace, validate};
use crate::failure::Failure;
use crate::metrics::{ShadowEnd, ShadowOf};
use crate::route::{Place, Shadow};
use crate::work::{
    Event, Finished, Guard, Job, Kept, Observer, Priority, Progress, Record, Refusal, Stop, StopReason,
    channel,
};

/// An edit that is to be made a second time.
struct Plan {
    service: Service,
    shadow: Arc<Shadow>,
    of: ShadowOf,
    request_id: String,
    order: Order,
    arrival: Arrival,
    runtime: Handle,
}

/// Waits for the first edit's result.
pub(super) struct Follower(Mutex<Option<Plan>>);

/// The shadow of the route that an edit's deployment was chosen by, if it is to make this edit, too.
pub(super) fn wanted(chosen: &Chosen) -> Option<(Arc<str>, Arc<Shadow>)> {
    let route = chosen.route.as_ref()?;
    let shadow = route.shadow().filter(|shadow| shadow.wants(chosen.deployment.name()))?;
    Some((route.name().clone(), shadow.clone()))
}

impl Service {
    /// What makes an edit a second time when it has been made. The order has the seed of the first.
    pub(super) fn follower(
        &self,
        (route, shadow): (Arc<str>, Arc<Shadow>),
        order: Order,
        arrival: Arrival,
        request_id: &str,
    ) -> Follower {
        let deployment = shadow.config().deployment.as_str().into();
        Follower(Mutex::new(Some(Plan {
            service: self.clone(),
            shadow,
            of: ShadowOf { route, deployment },
            request_id: format!("{request_id}-shadow"),
            order,
            arrival,
            runtime: Handle::current(),
        })))
    }
}

impl Observer for Follower {
    fn progress(&self, _: &Progress) {}

    fn finished(&self, outcome: Result<&Finished, &Failure>) {
        let plan = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let picture = outcome.ok().and_then(|finished| {
            let Kept::Picture(picture) = &finished.recorded.as_ref()?.kept else { return None };
            Some((picture.clone(), worked(finished)))
        });
        if let (Some(plan), Some((picture, took))) = (plan, picture) {
            plan.begin(picture, took);
        }
    }
}

/// How long an edit was worked on.
fn worked(finished: &Finished) -> Duration {
    finished.timings.total.saturating_sub(finished.timings.queued)
}

impl Plan {
    /// Puts the edit in line, without waiting, if there is a place.
    fn begin(self, first: Arc<RgbImage>, primary_took: Duration) {
        match self.shadow.enter(self.bytes() + first.as_raw().len()) {
            Some(place) => {
                let runtime = self.runtime.clone();
                runtime.spawn(self.follow(place, first, primary_took));
            }
            None => self.service.metrics().shadowed(&self.of, &ShadowEnd::Full),
        }
    }

    /// Bytes of the request that are held on to.
    fn bytes(&self) -> usize {
        let replay = self.order.options.replay.as_ref();
        let tensors =
            replay.into_iter().flat_map(|replay| replay.initial_latents.iter().chain(&replay.step_noise));
        let noise: usize = tensors.map(|tensor| tensor.data.len()).sum();
        self.order.image.len() + self.order.instruction.len() + noise
    }

    /// Waits for its turn, makes the edit and tells how that ended.
    async fn follow(self, place: Place, first: Arc<RgbImage>, primary_took: Duration) {
        let (service, of) = (self.service.clone(), self.of.clone());
        let end = tokio::select! {
            biased;
            () = service.0.closing.cancelled() => ShadowEnd::Failed(Failure::ShuttingDown),
            turn = place.turn() => {
                let end = self.run(first, primary_took).await.unwrap_or_else(ShadowEnd::Failed);
                drop(turn);
                end
            }
        };
        service.metrics().shadowed(&of, &end);
    }

    async fn run(self, first: Arc<RgbImage>, primary_took: Duration) -> Result<ShadowEnd, Failure> {
        let Self { service, shadow, of, request_id, mut order, arrival, .. } = self;
        // Held until the end, so that what is unloaded waits for it.
        let deployment = service.deployments().lease(&shadow.config().deployment)?;
        let editor = deployment.editor()?;
        // What callers have made is not to take the place of what others will need.
        order.options.no_cache = true;
        order.options.preview_interval = None;
        let mut checked =
            validate::check(order, &service.0.config.limits, editor.config(), editor.adapters())?;
        checked.task.record = Some(Record::AgainstPicture(first));
        checked.account.priority = Priority::Batch;
        checked.account.caller = caller::shadow(&of.route);

        let empty = tracing::field::Empty;
        let (route, name) = (&*of.route, deployment.name());
        let span = tracing::info_span!("shadow", request_id, route, deployment = name, trace_id = empty);
        trace::join(&span, arrival.trace);
        let arrival = Instant::now();
        let stop = Stop::new(arrival.checked_add(shadow.config().timeout()));
        let registration = service.0.shadows.register(&request_id, stop.clone());
        // Whoever shuts the server down first refuses edits, then looks at the registry.
        if !service.is_accepting() {
            return Err(Failure::ShuttingDown);
        }
        let (reporter, mut events) = channel();
        let guard = Guard::new(deployment.queue().clone(), stop.clone(), false);
        let (task, account) = (checked.task, checked.account);
        let job = Job { id: request_id, task, account, arrival, stop, reporter, span, registration };
        match deployment.queue().push_if_free(job) {
            Ok(true) => {}
            Ok(false) | Err(Refusal::Full { .. }) => return Ok(ShadowEnd::Busy),
            Err(Refusal::Late { needed, allowed }) => {
                return Err(Failure::DeadlineTooShort { needed, allowed });
            }
        }
        let finished = loop {
            match events.next().await {
                Some(Event::Progress(_)) => {}
                Some(Event::Finished(outcome)) => break outcome?,
                None => return Err(Failure::Lost),
            }
        };
        drop(guard);
        let took = worked(&finished);
        let difference: Option<Result<ValueDifference, String>> =
            finished.recorded.and_then(|recorded| match recorded.kept {
                Kept::PictureDifference(difference) => Some(difference),
                _ => None,
            });
        match difference.ok_or(Failure::Lost)? {
            Ok(difference) => Ok(ShadowEnd::Compared { difference, primary_took, took }),
            Err(_) => Ok(ShadowEnd::Incomparable),
        }
    }
}

impl Service {
    /// Stops all edits that are made a second time, and lets no more begin. Edits must be refused by now.
    pub(super) fn stop_shadows(&self) {
        self.0.closing.cancel();
        self.0.shadows.stop_all(StopReason::ShuttingDown);
        self.deployments().all().iter().for_each(|deployment| deployment.queue().prune());
    }
}
