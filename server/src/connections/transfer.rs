//! Bounds on how long requests take to arrive and answers to be taken.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use super::answer::Parts;
use super::request::Timely;
use crate::config::ConnectionsConfig;

/// Paths of the calls that stream requests, whose time nothing bounds but the caller.
const STREAMING: [&str; 3] = [
    "/inference.GRPCInferenceService/ModelStreamInfer",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Fails requests that do not arrive in time, and lets go of answers that are not taken in time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransferLayer {
    upload: Duration,
    download: Duration,
}

impl TransferLayer {
    /// With the times that are configured.
    pub(crate) fn new(config: &ConnectionsConfig) -> Self {
        Self { upload: config.upload_timeout(), download: config.download_timeout() }
    }
}

impl<S> Layer<S> for TransferLayer {
    type Service = Transfer<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Transfer { inner, layer: *self }
    }
}

/// The service of [`TransferLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Transfer<S> {
    inner: S,
    layer: TransferLayer,
}

impl<S> Service<Request<Body>> for Transfer<S>
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

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let TransferLayer { upload, download } = self.layer;
        let request = match STREAMING.contains(&request.uri().path()) {
            true => request,
            false => request.map(|body| Body::new(Timely::new(body, upload))),
        };
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            // Without content, its status is all there is.
            if http_body::Body::is_end_stream(response.body()) {
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(Parts::new(body, download))))
        })
    }
}
