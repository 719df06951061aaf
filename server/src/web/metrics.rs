//! `GET /metrics`.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;

use super::Shared;
use crate::metrics::Exposition;

/// All metrics, in the format that is asked for.
pub(super) async fn expose(State(shared): State<Shared>, headers: HeaderMap) -> impl IntoResponse {
    let Exposition { text, media_type } = shared.service.metrics().expose(headers.get(header::ACCEPT));
    ([(header::CONTENT_TYPE, media_type)], text)
}
