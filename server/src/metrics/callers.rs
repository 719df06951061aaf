//! Callers: what they ask for, and whom the server does not let in.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::Metrics;
use crate::failure::Failure;
use crate::security::Access;

/// What is counted of callers.
pub(super) struct Callers {
    admitted: Family<By, Counter>,
    denied: Family<For, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    caller: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct For {
    reason: &'static str,
}

impl Callers {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let callers = Self { admitted: Family::default(), denied: Family::default() };
        let registry = registry.sub_registry_with_prefix("smartedit");
        let help = "Edits and stages that were accepted, by the name of the caller's key";
        registry.register("caller_requests", help, callers.admitted.clone());
        let help = "Calls of callers who are not known or lack a permission, by reason";
        registry.register("calls_denied", help, callers.denied.clone());
        callers
    }
}

impl Metrics {
    /// Counts an edit or stage that is accepted, where callers are asked who they are.
    pub(crate) fn admitted(&self, access: &Access) {
        if access.name().is_some() {
            self.0.callers.admitted.get_or_create(&By { caller: access.label().clone() }).inc();
        }
    }

    /// Counts a call that is not let in.
    pub(crate) fn denied(&self, failure: &Failure) {
        self.0.callers.denied.get_or_create(&For { reason: failure.reason() }).inc();
    }
}
