//! Bounds on what is received: how many edits at the same time, so that uploads cannot fill the memory before any
//! queue sees them, and how large a message.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::failure::Failure;
use crate::status::status;

/// Paths of the calls that are bounded.
const BOUNDED: [&str; 5] = [
    "/smartedit.v1.SmartEditService/Edit",
    "/smartedit.v1.SmartEditService/EditStream",
    "/smartedit.v1.SmartEditService/Compare",
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelStreamInfer",
];

/// A call's place among those that are received at the same time, which a handler may keep for longer.
#[derive(Debug, Clone)]
pub(super) struct Permit(#[expect(dead_code, reason = "it is held")] Arc<OwnedSemaphorePermit>);

/// Refuses edits beyond a number at the same time, over all connections, and gives those whose message is too large
/// the code that gRPC has for it. Other calls pass.
#[derive(Debug, Clone)]
pub struct AdmissionLayer {
    permits: Arc<Semaphore>,
    max_message_bytes: usize,
}

impl AdmissionLayer {
    /// Lets so many edits be received or waited for; the service itself refuses larger messages than this.
    pub fn new(edits: usize, max_message_bytes: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(edits)), max_message_bytes }
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Admission { inner, layer: self.clone() }
    }
}

/// The service of [`AdmissionLayer`].
#[derive(Debug, Clone)]
pub struct Admission<S> {
    inner: S,
    layer: AdmissionLayer,
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

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if !BOUNDED.contains(&request.uri().path()) {
            return Box::pin(self.inner.call(request));
        }
        let Ok(permit) = self.layer.permits.clone().try_acquire_owned() else {
            tracing::info!(outcome = Failure::Overloaded.reason(), "edit refused");
            return Box::pin(async { Ok(status(&Failure::Overloaded, None).into_http()) });
        };
        let permit = Permit(Arc::new(permit));
        request.extensions_mut().insert(permit.clone());
        let response = self.inner.call(request);
        let limit = self.layer.max_message_bytes;
        Box::pin(async move {
            let response = response.await;
            drop(permit);
            response.map(|response| if is_too_large(&response) { refuse_too_large(limit) } else { response })
        })
    }
}

/// tonic calls a message above its limit OUT_OF_RANGE, which nothing else here does.
fn is_too_large(response: &Response<Body>) -> bool {
    Status::from_header_map(response.headers()).is_some_and(|status| status.code() == Code::OutOfRange)
}

fn refuse_too_large(limit: usize) -> Response<Body> {
    let failure = Failure::MessageTooLarge { limit };
    tracing::info!(outcome = failure.reason(), "edit refused");
    status(&failure, None).into_http()
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    fn code(response: &Response<Body>) -> Code {
        Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
    }

    #[tokio::test]
    async fn edits_are_bounded_and_other_calls_pass() {
        let go = Arc::new(Notify::new());
        let wait = go.clone();
        let mut service =
            AdmissionLayer::new(1, 1000).layer(tower::service_fn(move |request: Request<Body>| {
                let wait = wait.clone();
                async move {
                    if request.uri().path() == BOUNDED[0] {
                        wait.notified().await;
                    }
                    Ok::<_, Infallible>(Response::new(Body::empty()))
                }
            }));
        let mut call = |path: &str| service.call(Request::builder().uri(path).body(Body::empty()).unwrap());
        let first = call(BOUNDED[0]);
        assert_eq!(code(&call(BOUNDED[1]).await.unwrap()), Code::ResourceExhausted);
        assert_eq!(code(&call("/grpc.health.v1.Health/Check").await.unwrap()), Code::Ok);
        go.notify_one();
        assert_eq!(code(&first.await.unwrap()), Code::Ok);
        assert_eq!(code(&call(BOUNDED[1]).await.unwrap()), Code::Ok);
    }
}
