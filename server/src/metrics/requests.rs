//! HTTP requests, by OpenTelemetry's names.

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use super::{Metrics, seconds};

/// HTTP requests answered.
pub(super) struct Requests {
    duration: Family<Answered, Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    http_request_method: &'static str,
    http_route: String,
    http_response_status_code: u16,
}

impl Requests {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let requests = Self { duration: Family::new_with_constructor(seconds) };
        let help = "From a request's headers to those of its response";
        let duration = requests.duration.clone();
        registry.register_with_unit("http_server_request_duration", help, Unit::Seconds, duration);
        requests
    }
}

/// The middleware that counts requests of a route.
pub(crate) async fn observe(
    State(metrics): State<Metrics>,
    route: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let http_request_method = name(request.method());
    let response = next.run(request).await;
    let labels = Answered {
        http_request_method,
        http_route: route.as_str().to_owned(),
        http_response_status_code: response.status().as_u16(),
    };
    metrics.0.requests.duration.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
    response
}

/// A method's name. Callers may make up others: those have one name.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "_OTHER",
    }
}
