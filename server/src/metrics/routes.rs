//! What routes choose, and what becomes of edits that are made a second time.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use smartedit_core::picture::ValueDifference;

use super::{Metrics, seconds};
use crate::failure::Failure;

/// What a route has chosen a deployment by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The request's key.
    Key,
    /// Chance, by weight.
    Chance,
    /// The request's own choice.
    Override,
}

impl By {
    const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Chance => "chance",
            Self::Override => "override",
        }
    }
}

/// A route and its shadow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ShadowOf {
    /// The route.
    pub route: Arc<str>,
    /// The deployment that makes edits a second time.
    pub deployment: Arc<str>,
}

/// What has become of an edit that was to be made a second time.
#[derive(Debug)]
pub enum ShadowEnd {
    /// It was made, and compared with the first one's picture.
    Compared {
        /// How the pictures differ.
        difference: ValueDifference,
        /// How long the edit that was answered was worked on.
        primary_took: Duration,
        /// How long this one was.
        took: Duration,
    },
    /// It was made, and its picture has another size.
    Incomparable,
    /// The deployment could not begin it at once.
    Busy,
    /// As many waited as may.
    Full,
    /// It failed.
    Failed(Failure),
}

impl ShadowEnd {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Compared { .. } => "OK",
            Self::Incomparable => "INCOMPARABLE",
            Self::Busy => "BUSY",
            Self::Full => "FULL",
            Self::Failed(failure) => failure.reason(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Choice {
    route: Arc<str>,
    deployment: Arc<str>,
    decided_by: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    route: Arc<str>,
    deployment: Arc<str>,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Made {
    route: Arc<str>,
    deployment: Arc<str>,
    edit: &'static str,
}

/// What is counted of routes.
pub(super) struct Routes {
    choices: Family<Choice, Counter>,
    shadows: Family<Ended, Counter>,
    duration: Family<Made, Histogram>,
    mean: Family<ShadowOf, Histogram>,
    max: Family<ShadowOf, Histogram>,
}

/// Upper bounds of differences between pictures of values in 0…255; those of equal ones are in the first.
const LEVELS: [f64; 12] = [0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

fn levels() -> Histogram {
    Histogram::new(LEVELS)
}

impl Routes {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let routes = Self {
            choices: Family::default(),
            shadows: Family::default(),
            duration: Family::new_with_constructor(seconds),
            mean: Family::new_with_constructor(levels),
            max: Family::new_with_constructor(levels),
        };
        let registry = registry.sub_registry_with_prefix("smartedit");
        let help = "Requests that a route gave to a deployment, by what decided";
        registry.register("route_choices", help, routes.choices.clone());
        let help = "Edits of a route that were to be made a second time, by outcome";
        registry.register("shadow_edits", help, routes.shadows.clone());
        let help = "How long an edit was worked on by the deployment that answered, and by the shadow";
        registry.register_with_unit("shadow_duration", help, Unit::Seconds, routes.duration.clone());
        let help = "Mean absolute difference of the shadow's picture from the one that was answered, of values in 0 to 255";
        registry.register("shadow_difference_mean", help, routes.mean.clone());
        let help = "Largest absolute difference of the shadow's picture from the one that was answered, of values in 0 to 255";
        registry.register("shadow_difference_max", help, routes.max.clone());
        routes
    }
}

impl Metrics {
    /// Counts a deployment that a route has chosen.
    pub fn chosen(&self, route: &Arc<str>, deployment: &str, by: By) {
        let choice = Choice { route: route.clone(), deployment: deployment.into(), decided_by: by.name() };
        self.0.routes.choices.get_or_create(&choice).inc();
    }

    /// Counts an edit that was to be made a second time.
    pub fn shadowed(&self, of: &ShadowOf, end: &ShadowEnd) {
        let routes = &self.0.routes;
        if let ShadowEnd::Compared { difference, primary_took, took } = end {
            for (edit, took) in [("primary", primary_took), ("shadow", took)] {
                let ShadowOf { route, deployment } = of.clone();
                let made = Made { route, deployment, edit };
                routes.duration.get_or_create(&made).observe(took.as_secs_f64());
            }
            routes.mean.get_or_create(of).observe(difference.mean);
            routes.max.get_or_create(of).observe(difference.max.into());
        }
        // Last, so that whoever sees it finds the rest.
        let ShadowOf { route, deployment } = of.clone();
        let ended = Ended { route, deployment, outcome: end.outcome() };
        routes.shadows.get_or_create(&ended).inc();
    }
}
