//! Serving HTTP/1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::{Connections, Guarded};

/// Answers the requests of all connections until it is closed, and then those there are.
pub(crate) async fn serve<L>(
    mut listener: L,
    connections: Connections,
    router: Router,
    closed: CancellationToken,
) where
    L: Listener<Addr = SocketAddr>,
{
    let idle = connections.config.idle_timeout();
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            () = closed.cancelled() => break,
            (io, address) = listener.accept() => {
                if let Some(io) = connections.guard(io) {
                    open.spawn(answer(io, address, router.clone(), idle, closed.clone()));
                }
            }
            Some(_) = open.join_next() => {}
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// Answers the requests of a connection, each of whose heads must have arrived in the time `idle`.
async fn answer<S>(
    io: Guarded<S>,
    address: SocketAddr,
    router: Router,
    idle: Duration,
    closed: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(address));
        answered(router.clone(), request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = closed.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(host = %address.ip(), error = error.to_string(), "a connection ended early");
    }
}

async fn answered(mut router: Router, request: Request<Body>) -> Result<Response<Body>, Infallible> {
    // A router is always ready.
    router.call(request).await
}
