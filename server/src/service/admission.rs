//! A bound on the edits that are received or waited for, so that uploads cannot fill the memory before any queue
//! sees them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::failure::Failure;
use crate::status::status;

/// Paths of the calls that are bounded.
const EDITS: [&str; 2] = ["/smartedit.v1.SmartEditService/Edit", "/smartedit.v1.SmartEditService/EditStream"];

/// Refuses edits beyond a number at the same time, over all connections. Other calls pass.
#[derive(Debug, Clone)]
pub struct AdmissionLayer(Arc<Semaphore>);

impl AdmissionLayer {
    /// Lets so many edits be received or waited for.
    pub fn new(edits: usize) -> Self {
        Self(Arc::new(Semaphore::new(edits)))
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Admission { inner, permits: self.0.clone() }
    }
}

/// The service of [`AdmissionLayer`].
#[derive(Debug, Clone)]
pub struct Admission<S> {
    inner: S,
    permits: Arc<Semaphore>,
}

impl<S> Service<Request<Body>> for Admission<S>
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
        if !EDITS.contains(&request.uri().path()) {
            return Box::pin(self.inner.call(request));
        }
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            tracing::info!(outcome = Failure::Overloaded.reason(), "edit refused");
            return Box::pin(async { Ok(status(&Failure::Overloaded, None).into_http()) });
        };
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await;
            drop(permit);
            response
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    fn code(response: &Response<Body>) -> tonic::Code {
        tonic::Status::from_header_map(response.headers()).map_or(tonic::Code::Ok, |status| status.code())
    }

    #[tokio::test]
    async fn edits_are_bounded_and_other_calls_pass() {
        let go = Arc::new(Notify::new());
        let wait = go.clone();
        let mut service = AdmissionLayer::new(1).layer(tower::service_fn(move |request: Request<Body>| {
            let wait = wait.clone();
            async move {
                if request.uri().path() == EDITS[0] {
                    wait.notified().await;
                }
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        }));
        let mut call = |path: &str| service.call(Request::builder().uri(path).body(Body::empty()).unwrap());
        let first = call(EDITS[0]);
        assert_eq!(code(&call(EDITS[1]).await.unwrap()), tonic::Code::ResourceExhausted);
        assert_eq!(code(&call("/grpc.health.v1.Health/Check").await.unwrap()), tonic::Code::Ok);
        go.notify_one();
        assert_eq!(code(&first.await.unwrap()), tonic::Code::Ok);
        assert_eq!(code(&call(EDITS[1]).await.unwrap()), tonic::Code::Ok);
    }
}
