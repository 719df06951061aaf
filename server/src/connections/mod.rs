//! What callers may cost who are slow, gone or malicious, before and beside anything that they ask for.
//!
//! | who | is stopped by |
//! | --- | --- |
//! | opens connections and says nothing | [`Guarded`]: a time until the first bytes, and a number of connections |
//! | sends the head of a request byte by byte | [`http`]'s time for a head; over HTTP/2, the number of connections |
//! | sends a request byte by byte | [`TransferLayer`]: a time for the whole request |
//! | asks and does not read the answer | [`TransferLayer`]: a time for every part of it |
//! | reads nothing of the connection at all | [`Guarded`]: a time until something can be written |
//! | is gone | signs of life that HTTP/2 asks for |

mod answer;
mod guarded;
pub(crate) mod http;
mod request;
mod transfer;

use std::io;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::{Stream, StreamExt};

use crate::config::ConnectionsConfig;
use crate::metrics::{Metrics, PortMetrics};

pub(crate) use guarded::Guarded;
pub(crate) use transfer::TransferLayer;

/// Bytes without which nothing has been said: HTTP/2's preface, after which it asks for signs of life by itself.
const HTTP2_OPENING: usize = 24;

/// The same of HTTP/1, whose heads have a time of their own.
const HTTP1_OPENING: usize = 1;

/// The connections of a port. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Connections {
    free: Arc<Semaphore>,
    opening: usize,
    config: ConnectionsConfig,
    metrics: PortMetrics,
}

/// A connection's place among those that may be open.
struct Place {
    _permit: OwnedSemaphorePermit,
    metrics: PortMetrics,
}

impl Connections {
    /// Those of the port for gRPC.
    pub(crate) fn grpc(config: &ConnectionsConfig, metrics: &Metrics) -> Self {
        Self::new(config, HTTP2_OPENING, metrics.port("grpc"))
    }

    /// Those of the port for HTTP.
    pub(crate) fn http(config: &ConnectionsConfig, metrics: &Metrics) -> Self {
        Self::new(config, HTTP1_OPENING, metrics.port("http"))
    }

    fn new(config: &ConnectionsConfig, opening: usize, metrics: PortMetrics) -> Self {
        Self { free: Arc::new(Semaphore::new(config.max)), opening, config: config.clone(), metrics }
    }

    /// Connections as they are accepted, under guard; what is more than may be is closed.
    pub(crate) fn guarded<S>(
        self,
        incoming: impl Stream<Item = io::Result<S>>,
    ) -> impl Stream<Item = io::Result<Guarded<S>>> {
        incoming.filter_map(move |accepted| match accepted {
            Ok(io) => self.guard(io).map(Ok),
            Err(error) => Some(Err(error)),
        })
    }

    /// A connection that has just been accepted, under guard; `None`, and it is closed, if there are as many as may be.
    pub(crate) fn guard<S>(&self, io: S) -> Option<Guarded<S>> {
        let Ok(permit) = self.free.clone().try_acquire_owned() else {
            self.metrics.refused.inc();
            tracing::debug!(
                max = self.config.max,
                "as many connections are open as may be; closing a new one"
            );
            return None;
        };
        self.metrics.open.inc();
        let place = Place { _permit: permit, metrics: self.metrics.clone() };
        Some(Guarded::new(io, place, self.opening, &self.config))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.open.dec();
    }
}
