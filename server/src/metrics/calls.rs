//! gRPC calls, by the names and labels of `go-grpc-middleware`, which ready-made dashboards and alerts expect.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::{Metrics, seconds};

/// Calls begun and ended.
pub(super) struct Calls {
    started: Family<Method, Counter>,
    handled: Family<Handled, Counter>,
    handling: Family<Method, Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    grpc_type: &'static str,
    grpc_service: Arc<str>,
    grpc_method: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Handled {
    #[prometheus(flatten)]
    method: Method,
    grpc_code: &'static str,
}

impl Calls {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let calls = Self {
            started: Family::default(),
            handled: Family::default(),
            handling: Family::new_with_constructor(seconds),
        };
        registry.register("grpc_server_started", "Calls begun", calls.started.clone());
        registry.register("grpc_server_handled", "Calls ended, whatever the outcome", calls.handled.clone());
        let help = "From a call's headers to its end";
        registry.register_with_unit("grpc_server_handling", help, Unit::Seconds, calls.handling.clone());
        calls
    }
}

/// The methods of services, by path. A path that is none of them is counted as unknown, whatever it says.
#[derive(Clone)]
pub struct Methods {
    by_path: Arc<HashMap<String, Method>>,
    unknown: Method,
}

impl Methods {
    /// The methods in these encoded `google.protobuf.FileDescriptorSet`s.
    ///
    /// # Errors
    ///
    /// One of them is damaged.
    pub fn described(sets: &[&[u8]]) -> Result<Self, prost::DecodeError> {
        let mut by_path = HashMap::new();
        for set in sets {
            for file in FileDescriptorSet::decode(*set)?.file {
                for service in &file.service {
                    let name: Arc<str> = format!("{}.{}", file.package(), service.name()).into();
                    for method in &service.method {
                        let path = format!("/{name}/{}", method.name());
                        let grpc_type = match (method.client_streaming(), method.server_streaming()) {
                            (false, false) => "unary",
                            (true, false) => "client_stream",
                            (false, true) => "server_stream",
                            (true, true) => "bidi_stream",
                        };
                        let grpc_method = method.name().into();
                        by_path.insert(path, Method { grpc_type, grpc_service: name.clone(), grpc_method });
                    }
                }
            }
        }
        let unknown =
            Method { grpc_type: "unary", grpc_service: "unknown".into(), grpc_method: "unknown".into() };
        Ok(Self { by_path: Arc::new(by_path), unknown })
    }

    fn of(&self, path: &str) -> &Method {
        self.by_path.get(path).unwrap_or(&self.unknown)
    }
}

/// Counts calls and how they end. The outermost layer: what others refuse counts, too.
#[derive(Clone)]
pub struct CallsLayer {
    metrics: Metrics,
    methods: Methods,
}

impl CallsLayer {
    /// Counts calls of these methods.
    pub fn new(metrics: Metrics, methods: Methods) -> Self {
        Self { metrics, methods }
    }
}

impl<S> Layer<S> for CallsLayer {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counted { inner, layer: self.clone() }
    }
}

/// The service of [`CallsLayer`].
#[derive(Clone)]
pub struct Counted<S> {
    inner: S,
    layer: CallsLayer,
}

impl<S> Service<Request<Body>> for Counted<S>
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
        let CallsLayer { metrics, methods } = &self.layer;
        let call = Call::begin(metrics, methods.of(request.uri().path()));
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            Ok(match Status::from_header_map(response.headers()) {
                Some(status) => {
                    call.end(status.code());
                    response
                }
                None => response.map(|body| Body::new(Followed { body, call })),
            })
        })
    }
}

/// A call; dropped, it has ended.
struct Call {
    metrics: Metrics,
    method: Method,
    started: Instant,
    /// A call that ends without a word from the server was left by its caller.
    code: Code,
}

impl Call {
    fn begin(metrics: &Metrics, method: &Method) -> Self {
        metrics.0.calls.started.get_or_create(method).inc();
        Self {
            metrics: metrics.clone(),
            method: method.clone(),
            started: Instant::now(),
            code: Code::Cancelled,
        }
    }

    fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Calls { handled, handling, .. } = &self.metrics.0.calls;
        let labels = Handled { method: self.method.clone(), grpc_code: name(self.code) };
        handled.get_or_create(&labels).inc();
        handling.get_or_create(&self.method).observe(self.started.elapsed().as_secs_f64());
    }
}

/// A response's body, whose trailers say how the call ended.
struct Followed {
    body: Body,
    call: Call,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    self.call.code = status.code();
                }
            }
            Some(Err(status)) => self.call.code = status.code(),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The name of a code as Go's library writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
