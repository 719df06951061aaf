//! What callers over HTTP are told of a failure: the gRPC status of it, in the form of OpenAI's errors.

use std::time::Duration;

use axum::Json;
use axum::extract::multipart::{MultipartError, MultipartRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// A request over HTTP that is not served.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    error: ErrorBody,
    retry_after: Option<Duration>,
    request_id: Option<String>,
    /// How to say who calls, for who has not.
    challenge: Option<&'static str>,
}

/// The form of OpenAI's errors.
#[derive(Debug, Serialize)]
struct ErrorBody {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field of the request that is at fault.
    param: Option<String>,
    code: Option<String>,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().map_or("", |info| info.reason.as_str());
        let http = http_status(status.code(), reason);
        let (message, param) = violations(&details).unwrap_or_else(|| (status.message().to_owned(), None));
        let code = match status.code() {
            // The name that clients of OpenAI's interface look for.
            Code::NotFound => "model_not_found".to_owned(),
            Code::Unauthenticated => "invalid_api_key".to_owned(),
            _ => reason.to_lowercase(),
        };
        let param = param.or_else(|| (status.code() == Code::NotFound).then(|| "model".to_owned()));
        Self {
            status: http,
            error: ErrorBody { message, kind: kind(http), param, code: Some(code) },
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            request_id: details.request_info().map(|info| info.request_id.clone()),
            challenge: (status.code() == Code::Unauthenticated).then(|| challenge(reason)),
        }
    }
}

impl From<MultipartError> for Refused {
    fn from(error: MultipartError) -> Self {
        Self::form(error.status(), error.body_text())
    }
}

impl From<MultipartRejection> for Refused {
    fn from(rejection: MultipartRejection) -> Self {
        Self::form(rejection.status(), rejection.body_text())
    }
}

impl Refused {
    /// The form could not be received.
    pub(super) fn form(status: StatusCode, message: String) -> Self {
        let error = ErrorBody { message, kind: kind(status), param: None, code: None };
        Self { status, error, retry_after: None, request_id: None, challenge: None }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: ErrorBody,
        }
        let mut response = (self.status, Json(Body { error: self.error })).into_response();
        let headers = response.headers_mut();
        if let Some(delay) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(delay.as_secs_f64().ceil() as u64));
            // What OpenAI's libraries read first.
            let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            headers.insert("retry-after-ms", HeaderValue::from(millis));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(id) = self.request_id.and_then(|id| HeaderValue::try_from(id).ok()) {
            headers.insert("x-request-id", id);
        }
        response
    }
}

/// The status for a gRPC code, as `google.rpc.Code` maps them, but for what the reason tells better.
fn http_status(code: Code, reason: &str) -> StatusCode {
    match (code, reason) {
        (_, "MESSAGE_TOO_LARGE") => StatusCode::PAYLOAD_TOO_LARGE,
        (Code::InvalidArgument | Code::OutOfRange, _) => StatusCode::BAD_REQUEST,
        (Code::NotFound, _) => StatusCode::NOT_FOUND,
        (Code::ResourceExhausted, _) => StatusCode::TOO_MANY_REQUESTS,
        (Code::Unavailable, _) | (_, "DEPLOYMENT_FAILED") => StatusCode::SERVICE_UNAVAILABLE,
        (Code::FailedPrecondition, _) => StatusCode::UNPROCESSABLE_ENTITY,
        (Code::DeadlineExceeded, _) => StatusCode::GATEWAY_TIMEOUT,
        (Code::Unauthenticated, _) => StatusCode::UNAUTHORIZED,
        (Code::PermissionDenied, _) => StatusCode::FORBIDDEN,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What goes into `WWW-Authenticate` (RFC 6750).
fn challenge(reason: &str) -> &'static str {
    match reason {
        "CREDENTIALS_MISSING" => "Bearer realm=\"smartedit\"",
        _ => "Bearer realm=\"smartedit\", error=\"invalid_token\"",
    }
}

fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    }
}

/// What is wrong with which fields, and the first of them, by their names in the form.
fn violations(details: &ErrorDetails) -> Option<(String, Option<String>)> {
    let violations = &details.bad_request()?.field_violations;
    let fields = violations.iter().map(|violation| (parameter(&violation.field), &violation.description));
    let messages: Vec<_> = fields.map(|(field, description)| format!("{field}: {description}")).collect();
    let first = violations.first().map(|violation| parameter(&violation.field).to_owned());
    Some((messages.join("; "), first))
}

/// The form's name of a field of a gRPC message.
fn parameter(field: &str) -> &str {
    match field {
        "instruction" => "prompt",
        "deployment" => "model",
        "options.output_quality" => "output_compression",
        field if field.starts_with("options.resolution") => "size",
        field => field.strip_prefix("options.").unwrap_or(field),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Failure, Violations};
    use crate::status::status;

    fn refused(failure: &Failure) -> Refused {
        status(failure, Some("id")).into()
    }

    #[test]
    fn fields_have_the_forms_names() {
        let mut violations = Violations::default();
        violations.add("options.resolution.width", "is 7");
        violations.add("instruction", "is empty");
        let Refused { status, error, request_id, .. } = refused(&Failure::Invalid(violations));
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(error.message, "size: is 7; prompt: is empty");
        assert_eq!(error.param.as_deref(), Some("size"));
        assert_eq!((error.kind, error.code.as_deref()), ("invalid_request_error", Some("invalid_request")));
        assert_eq!(request_id.as_deref(), Some("id"));
    }

    #[test]
    fn who_is_to_come_back_is_told_when_in_both_ways() {
        let delay = Duration::from_millis(1200);
        let full = Failure::QueueFull { deployment: "d".to_owned(), retry_after: delay };
        let response = refused(&full).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["retry-after-ms"], "1200");
    }

    #[test]
    fn failures_have_the_statuses_of_http() {
        for (failure, status, kind) in [
            (Failure::ShuttingDown, 503, "server_error"),
            (Failure::Loading("d".to_owned()), 503, "server_error"),
            (Failure::NotLoaded { name: "d".to_owned(), reason: "r".to_owned() }, 503, "server_error"),
            (Failure::Overloaded, 429, "rate_limit_error"),
            (Failure::MessageTooLarge { limit: 9 }, 413, "invalid_request_error"),
            (Failure::DeadlineExceeded, 504, "server_error"),
            (Failure::Lost, 500, "server_error"),
        ] {
            let refused = refused(&failure);
            assert_eq!((refused.status.as_u16(), refused.error.kind), (status, kind), "{failure}");
        }
        let unknown = Failure::UnknownDeployment { name: "x".to_owned(), known: "`y`".to_owned() };
        let Refused { status, error, .. } = refused(&unknown);
        assert_eq!((status, error.param.as_deref()), (StatusCode::NOT_FOUND, Some("model")));
        assert_eq!(error.code.as_deref(), Some("model_not_found"));
    }
}
