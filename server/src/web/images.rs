//! `POST /v1/images/edits`: an edit in OpenAI's form, for programs that speak it.
//!
//! The form's `model` is a deployment or a route, and its `prompt` the instruction. A route gives all edits of a request to one
//! deployment. Every request goes through the checks, limits and
//! queue of the gRPC call, and a caller who hangs up stops its edits.

mod form;

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::extract::multipart::{Multipart, MultipartRejection};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use smartedit_proto::v1;

use self::form::Form;
use super::Shared;
use super::error::Refused;
use crate::security::Access;
use crate::service::{Arrival, DEPLOYMENT, Hints};
use crate::status::status;

/// Edited pictures.
#[derive(Serialize)]
struct Edited {
    created: u64,
    output_format: String,
    /// `WIDTHxHEIGHT`, of the first picture.
    size: String,
    data: Vec<Image>,
}

/// One edited picture.
#[derive(Serialize)]
struct Image {
    b64_json: String,
    /// What repeats this picture.
    seed: u64,
}

/// Makes `n` edits of a picture.
pub(super) async fn edit(
    State(shared): State<Shared>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response, Refused> {
    let arrival = Arrival::new(&headers);
    // Held until everything is answered: a form is memory that no queue counts.
    let _permit = shared.admission.admit(&access, 1).map_err(|failure| status(&failure, None))?;
    let patience = shared.service.config().connections.upload_timeout();
    let form = tokio::time::timeout(patience, Form::receive(form?)).await.map_err(|_| {
        let message = format!("the form took more than {} s to arrive", patience.as_secs_f64());
        Refused::form(StatusCode::REQUEST_TIMEOUT, message)
    })??;
    // The call itself has been counted as one request.
    let more = u32::try_from(form.edits()).unwrap_or(u32::MAX).saturating_sub(1);
    access.charge(more).map_err(|failure| status(&failure, None))?;
    // All are in line before the first is waited for. Where one is refused or fails, dropping the others stops them.
    let submit = |order| shared.service.submit(order, arrival).map_err(|refused| refused.status());
    let tickets = form.orders(access, Hints::of(&headers)).map(submit);
    let tickets = tickets.collect::<Result<Vec<_>, _>>()?;
    let about =
        tickets.first().map(|first| [("x-request-id", first.request_id()), (DEPLOYMENT, first.deployment())]);
    let about = about.map(|about| about.map(|(name, value)| (name, HeaderValue::try_from(value))));
    let mut results = Vec::new();
    for ticket in tickets {
        results.extend(ticket.result().await?.into_inner().result);
    }
    let mut response = Json(Edited::of(&results)).into_response();
    for (name, value) in about.into_iter().flatten() {
        response.headers_mut().extend(value.ok().map(|value| (HeaderName::from_static(name), value)));
    }
    Ok(response)
}

impl Edited {
    fn of(results: &[v1::EditResult]) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (format, size) = results.first().map_or_else(Default::default, |first| {
            let format = first.mime_type.strip_prefix("image/").unwrap_or(&first.mime_type);
            (format.to_owned(), format!("{}x{}", first.width, first.height))
        });
        let image =
            |result: &v1::EditResult| Image { b64_json: STANDARD.encode(&result.image), seed: result.seed };
        Self {
            created: now.as_secs(),
            output_format: format,
            size,
            data: results.iter().map(image).collect(),
        }
    }
}
