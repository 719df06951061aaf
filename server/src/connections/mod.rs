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

use tokio::sync::Semaphore;
use tokio_stream::{Stream, StreamExt};

use crate::config::ConnectionsConfig;

pub(crate) use guarded::Guarded;
pub(crate) use transfer::TransferLayer;

/// The connections of a port. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Connections {
    free: Arc<Semaphore>,
    config: ConnectionsConfig,
}

impl Connections {
    pub(crate) fn new(config: ConnectionsConfig) -> Self {
        Self { free: Arc::new(Semaphore::new(config.max)), config }
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
        match self.free.clone().try_acquire_owned() {
            Ok(permit) => Some(Guarded::new(io, permit, &self.config)),
            Err(_) => {
                tracing::warn!(max = self.config.max, "too many connections; closing a new one");
                None
            }
        }
    }
}
