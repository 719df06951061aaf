//! Which pages' scripts browsers let call.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::config::ANY_ORIGIN;
use crate::service::DEPLOYMENT;

/// How long a browser need not ask again.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// What scripts may read of a response besides its content.
const EXPOSED: [HeaderName; 8] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static(DEPLOYMENT),
    header::RETRY_AFTER,
    header::CONTENT_TYPE,
    header::WWW_AUTHENTICATE,
];

/// Lets pages of these origins call; `None` where there are none.
pub(super) fn layer(origins: &[String]) -> Option<CorsLayer> {
    let origins = match origins {
        [] => return None,
        origins if origins.iter().any(|origin| origin == ANY_ORIGIN) => AllowOrigin::any(),
        origins => AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok())),
    };
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED)
        .max_age(MAX_AGE);
    Some(layer)
}
