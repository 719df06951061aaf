//! What probes ask.
//!
//! A server that is not alive should be restarted; one that is not ready should be sent nothing. A full queue is
//! neither: it refuses with 429 and a time to come back.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::Shared;

/// `GET /healthz`: 200 as long as anything answers.
pub(super) async fn live() -> &'static str {
    "alive\n"
}

/// `GET /readyz`: 200 if edits that name no deployment are served, else 503 and the reason.
pub(super) async fn ready(State(shared): State<Shared>) -> Response {
    match shared.service.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(failure) => (StatusCode::SERVICE_UNAVAILABLE, format!("{failure}\n")).into_response(),
    }
}
