//! What is served over HTTP: health for probes, metrics for Prometheus, OpenAI's call to edit images, and the gRPC
//! services for browsers.
//!
//! | path | answers |
//! | --- | --- |
//! | `GET /healthz`, `GET /readyz` | whether the server is alive, and whether it serves edits; see [`health`] |
//! | `GET /metrics` | everything in [`crate::metrics`] |
//! | `POST /v1/images/edits` | an edit, in OpenAI's form; see [`images`] |
//! | `GET /v1/models`, `GET /v1/models/NAME` | the deployments and routes, in OpenAI's form |
//! | `POST /SERVICE/METHOD` | the gRPC services, in the form of gRPC-Web |

mod cors;
mod error;
mod health;
mod images;
mod metrics;
mod models;

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state, map_request};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, post_service};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpConnectInfo;

use self::error::Refused;
use crate::config::{Config, HttpConfig};
use crate::connections::Connections;
use crate::connections::http::serve;
use crate::metrics::observe;
use crate::security::{AccessLayer, Port, Secured, Security};
use crate::service::{AdmissionLayer, Service};
use crate::status::status;

/// A port for HTTP.
pub(crate) struct Web {
    listener: TcpListener,
    address: SocketAddr,
}

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    service: Service,
    admission: AdmissionLayer,
}

impl Web {
    /// Binds an address.
    pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { address: listener.local_addr()?, listener })
    }

    /// The address it is bound to.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until it is closed and those there are have been answered.
    pub(crate) async fn serve(
        self,
        router: Router,
        security: Security,
        connections: Connections,
        closed: CancellationToken,
    ) {
        let listener = Secured::new(self.listener, self.address, security, Port::Http);
        serve(listener, connections, router, closed).await;
    }
}

/// Everything that is served over HTTP. `grpc` answers calls in the form of gRPC-Web.
pub(crate) fn router<S>(
    config: &Config,
    service: Service,
    access: AccessLayer,
    admission: AdmissionLayer,
    grpc: S,
) -> Router
where
    S: tower::Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    let HttpConfig { cors_origins, .. } = &config.http;
    let metrics = service.metrics().clone();
    let router = Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::expose))
        .route("/v1/images/edits", post(images::edit))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{name}", get(models::describe))
        .route_layer(from_fn_with_state(access, ask))
        // It asks for itself, and refuses in the form of its protocol.
        .route("/{service}/{method}", post_service(grpc).layer(map_request(introduce)))
        .route_layer(from_fn_with_state(metrics, observe))
        .layer(DefaultBodyLimit::max(config.limits.max_message_bytes))
        .with_state(Shared { service, admission });
    match cors::layer(cors_origins) {
        Some(layer) => router.layer(layer),
        None => router,
    }
}

/// Asks who calls, before anything of a request is received.
async fn ask(State(access): State<AccessLayer>, mut request: Request, next: Next) -> Response {
    match access.admit(&mut request) {
        Ok(()) => next.run(request).await,
        Err(failure) => Refused::from(status(&failure, None)).into_response(),
    }
}

/// Tells the gRPC services who calls in the way that their own port does.
async fn introduce(mut request: Request) -> Request {
    if let Some(ConnectInfo(address)) = request.extensions().get::<ConnectInfo<SocketAddr>>() {
        let info = TcpConnectInfo { local_addr: None, remote_addr: Some(*address) };
        request.extensions_mut().insert(info);
    }
    request
}

#[cfg(test)]
mod tests;
