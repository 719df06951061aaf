//! Asks who calls before anything of a call is received.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::ConnectInfo;
use http::{Extensions, Request, Response};
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tower::{Layer, Service};

use super::Security;
use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::status::status;

/// Asks who calls, and lets those through who may. What they may do goes with the request, as
/// [`Access`](super::Access).
#[derive(Clone)]
pub struct AccessLayer {
    security: Security,
    metrics: Metrics,
}

impl AccessLayer {
    /// Asks as is configured, and counts whom it refuses.
    pub fn new(security: Security, metrics: Metrics) -> Self {
        Self { security, metrics }
    }

    /// Asks who makes a request, and writes down what that caller may do.
    ///
    /// # Errors
    ///
    /// The caller is not known, or may not make this request.
    pub(crate) fn admit<B>(&self, request: &mut Request<B>) -> Result<(), Failure> {
        let host = host(request.extensions());
        let admitted = self.security.admit(request.uri().path(), request.headers(), host);
        let access = admitted.inspect_err(|failure| {
            self.metrics.denied(failure);
            let path = request.uri().path();
            let host = host.map(tracing::field::display);
            tracing::info!(host, path, outcome = failure.reason(), reason = %failure, "call refused");
        })?;
        request.extensions_mut().insert(access);
        Ok(())
    }
}

/// Where a request comes from, by what either port writes down.
fn host(extensions: &Extensions) -> Option<IpAddr> {
    let tcp = extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    let http = || extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| *address);
    tcp.or_else(http).map(|address| address.ip())
}

impl<S> Layer<S> for AccessLayer {
    type Service = Asking<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Asking { inner, layer: self.clone() }
    }
}

/// The service of [`AccessLayer`].
#[derive(Clone)]
pub struct Asking<S> {
    inner: S,
    layer: AccessLayer,
}

impl<S> Service<Request<Body>> for Asking<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.layer.admit(&mut request) {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(failure) => Box::pin(async move { Ok(status(&failure, None).into_http()) }),
        }
    }
}
