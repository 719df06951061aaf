//! Bounds on what is received: how many edits at the same time, so that uploads cannot fill the memory before any
//! queue sees them, and how large a message.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::security::{Access, Place};
use crate::status::status;

/// Paths of the calls that are bounded.
const BOUNDED: [&str; 5] = [
    "/smartedit.v1.SmartEditService/Edit",
    "/smartedit.v1.SmartEditService/EditStream",
    "/smartedit.v1.SmartEditService/Compare",
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelStreamInfer",
];

/// The one of them that holds many requests, each of which is counted when it comes.
const MANY: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// A call's place among those that are received at the same time, which a handler may keep for longer.
#[derive(Debug, Clone)]
pub(crate) struct Permit(#[expect(dead_code, reason = "it is held")] Arc<(OwnedSemaphorePermit, Place)>);

/// Refuses edits beyond a number at the same time, over all connections, and gives those whose message is too large
/// the code that gRPC has for it. Other calls pass.
#[derive(Clone)]
pub struct AdmissionLayer {
    permits: Arc<Semaphore>,
    max_message_bytes: usize,
    metrics: Metrics,
}

impl AdmissionLayer {
    /// Lets so many edits be received or waited for; the service itself refuses larger messages than this.
    pub fn new(edits: usize, max_message_bytes: usize, metrics: Metrics) -> Self {
        Self { permits: Arc::new(Semaphore::new(edits)), max_message_bytes, metrics }
    }

    /// Lets one more edit be received, for as long as the permit is held, and counts so many requests of its caller.
    ///
    /// # Errors
    ///
    /// [`Failure::Overloaded`] if as many are as may; [`Failure::CallerBusy`] and [`Failure::RateLimited`] if it is the
    /// caller that asks for too much.
    pub(crate) fn admit(&self, access: &Access, requests: u32) -> Result<Permit, Failure> {
        let overloaded = |_| Failure::Overloaded;
        let place = access.receive().and_then(|place| {
            let permit = self.permits.clone().try_acquire_owned().map_err(overloaded)?;
            access.charge(requests)?;
            Ok(Permit(Arc::new((permit, place))))
        });
        place.map_err(|failure| self.refused(failure))
    }

    fn refused(&self, failure: Failure) -> Failure {
        self.metrics.refused(&failure);
        tracing::info!(outcome = failure.reason(), "edit refused");
        failure
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Admission { inner, layer: self.clone() }
    }
}

/// The service of [`AdmissionLayer`].
#[derive(Clone)]
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
        let requests = u32::from(request.uri().path() != MANY);
        let permit = match self.layer.admit(&Access::of(request.extensions()), requests) {
            Ok(permit) => permit,
            Err(failure) => return Box::pin(async move { Ok(status(&failure, None).into_http()) }),
        };
        request.extensions_mut().insert(permit.clone());
        let response = self.inner.call(request);
        let layer = self.layer.clone();
        Box::pin(async move {
            let response = response.await?;
            if !is_too_large(&response) {
                return Ok(match response.body().is_end_stream() {
                    true => response,
                    false => response.map(|body| Body::new(Held { body, permit: Some(permit) })),
                });
            }
            let failure = layer.refused(Failure::MessageTooLarge { limit: layer.max_message_bytes });
            Ok(status(&failure, None).into_http())
        })
    }
}

/// An answer that counts among the edits that are waited for until all but its end is taken.
struct Held {
    body: Body,
    permit: Option<Permit>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        // Whoever has the end of an answer finds its place free.
        match &frame {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(part))) if !part.is_trailers() => {}
            Poll::Ready(_) => self.permit = None,
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// tonic calls a message above its limit OUT_OF_RANGE, which nothing else here does.
fn is_too_large(response: &Response<Body>) -> bool {
    Status::from_header_map(response.headers()).is_some_and(|status| status.code() == Code::OutOfRange)
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
        let metrics = Metrics::of_nothing();
        let go = Arc::new(Notify::new());
        let wait = go.clone();
        let mut service = AdmissionLayer::new(1, 1000, metrics.clone()).layer(tower::service_fn(
            move |request: Request<Body>| {
                let wait = wait.clone();
                async move {
                    if request.uri().path() == BOUNDED[0] {
                        wait.notified().await;
                    }
                    Ok::<_, Infallible>(Response::new(Body::empty()))
                }
            },
        ));
        let mut call = |path: &str| service.call(Request::builder().uri(path).body(Body::empty()).unwrap());
        let first = call(BOUNDED[0]);
        assert_eq!(code(&call(BOUNDED[1]).await.unwrap()), Code::ResourceExhausted);
        assert_eq!(code(&call("/grpc.health.v1.Health/Check").await.unwrap()), Code::Ok);
        go.notify_one();
        assert_eq!(code(&first.await.unwrap()), Code::Ok);
        assert_eq!(code(&call(BOUNDED[1]).await.unwrap()), Code::Ok);
        let refused = "smartedit_edit_refusals_total{reason=\"OVERLOADED\"} 1";
        assert!(metrics.expose(None).text.contains(refused));
    }
}
