//! Connections of each port.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Metrics;

/// What is counted of connections.
pub(super) struct Connections {
    open: Family<Of, Gauge>,
    refused: Family<Of, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    port: &'static str,
}

impl Connections {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let connections = Self { open: Family::default(), refused: Family::default() };
        let registry = registry.sub_registry_with_prefix("smartedit");
        registry.register("connections", "Connections that are open", connections.open.clone());
        let help = "Connections that were closed at once because as many were open as may be";
        registry.register("connections_refused", help, connections.refused.clone());
        connections
    }
}

/// What is counted of one port's connections.
#[derive(Clone)]
pub(crate) struct PortMetrics {
    pub(crate) open: Gauge,
    pub(crate) refused: Counter,
}

impl Metrics {
    /// What counts the connections of a port: `grpc` or `http`.
    pub(crate) fn port(&self, port: &'static str) -> PortMetrics {
        let (connections, of) = (&self.0.connections, Of { port });
        let open = connections.open.get_or_create_owned(&of);
        PortMetrics { open, refused: connections.refused.get_or_create_owned(&of) }
    }
}
