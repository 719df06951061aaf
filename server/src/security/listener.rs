//! A port whose connections are encrypted as is configured when they are made.

use std::net::SocketAddr;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};

use super::connection::Connection;
use super::{Port, Security};

/// Connections that are being made at the same time; others wait in the operating system's queue.
const MAX_HANDSHAKES: usize = 256;

/// How long making a connection may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long to wait where the operating system cannot give another connection, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections that are made and not taken yet.
const READY: usize = 16;

/// A port whose connections are encrypted as is configured when they are made. No one who makes one slowly, or never to
/// its end, holds up others.
pub(crate) struct Secured {
    ready: mpsc::Receiver<(Connection, SocketAddr)>,
    address: SocketAddr,
}

impl Secured {
    /// Takes connections of a port until it is dropped.
    pub(crate) fn new(listener: TcpListener, address: SocketAddr, security: Security, port: Port) -> Self {
        let (sender, ready) = mpsc::channel(READY);
        tokio::spawn(take(listener, security, port, sender));
        Self { ready, address }
    }

    /// The connections, as tonic wants them.
    pub(crate) fn incoming(self) -> impl Stream<Item = std::io::Result<Connection>> {
        ReceiverStream::new(self.ready).map(|(connection, _)| Ok(connection))
    }
}

impl Listener for Secured {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.ready.recv().await {
            Some(made) => made,
            // Only where the runtime ends.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn take(
    listener: TcpListener,
    security: Security,
    port: Port,
    ready: mpsc::Sender<(Connection, SocketAddr)>,
) {
    let mut making = JoinSet::new();
    loop {
        tokio::select! {
            () = ready.closed() => return,
            _ = making.join_next(), if !making.is_empty() => {}
            accepted = listener.accept(), if making.len() < MAX_HANDSHAKES => match accepted {
                Ok((stream, peer)) => {
                    let (acceptor, ready) = (security.acceptor(port), ready.clone());
                    making.spawn(async move {
                        if let Some(connection) = make(stream, peer, acceptor).await {
                            let _ = ready.send((connection, peer)).await;
                        }
                    });
                }
                // A caller who was gone before it was let in, or a shortage that passes.
                Err(error) => {
                    tracing::warn!(error = error.to_string(), "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// A connection, once it is encrypted where it must be; `None` if it cannot be made.
async fn make(stream: TcpStream, peer: SocketAddr, acceptor: Option<TlsAcceptor>) -> Option<Connection> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = error.to_string(), "cannot send small packets at once");
    }
    let Some(acceptor) = acceptor else { return Some(Connection::plain(stream)) };
    let reason = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(Connection::encrypted(stream)),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it took more than {} s", HANDSHAKE.as_secs()),
    };
    tracing::info!(host = %peer.ip(), reason, "no encrypted connection");
    None
}
