//! What callers are told of a failure: the one place where failures become gRPC statuses.

use std::time::Duration;

use smartedit_core::pipeline::EditError;
use smartedit_core::stage::{StageError, StageKind};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::failure::Failure;

/// Domain of `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "smartedit";

/// What a caller who found the server busy with something of unknown length is told to wait.
const SOON: Duration = Duration::from_secs(1);

/// The status for a failure. With the identifier of the request, if it got as far as having one.
///
/// What is not meant for callers (an engine's words, paths, a panic) is logged by the worker and answered with the
/// bare fact.
pub fn status(failure: &Failure, request_id: Option<&str>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(failure.reason(), DOMAIN, std::collections::HashMap::new());
    if let Some(id) = request_id {
        details.set_request_info(id, "");
    }
    if let Some((field, description)) = failure.violation() {
        details.add_bad_request_violation(&field, &description);
        return Status::with_error_details(Code::InvalidArgument, format!("{field}: {description}"), details);
    }
    let (code, message) = match failure {
        Failure::Invalid(violations) => {
            for (field, description) in violations.iter() {
                details.add_bad_request_violation(field, description);
            }
            (Code::InvalidArgument, failure.to_string())
        }
        Failure::UnknownDeployment { name, .. } => {
            details.set_resource_info("deployment", name, "", "");
            (Code::NotFound, failure.to_string())
        }
        Failure::UnknownModel { name, .. } => {
            details.set_resource_info("model", name, "", "");
            (Code::NotFound, failure.to_string())
        }
        Failure::Unsupported(_) => (Code::Unimplemented, failure.to_string()),
        Failure::Loading(_) | Failure::RouteUnavailable(_) | Failure::ShuttingDown => {
            details.set_retry_info(Some(SOON));
            (Code::Unavailable, failure.to_string())
        }
        Failure::UnknownAdapter { name, .. } => {
            details.set_resource_info("adapter", name, "", "");
            (Code::NotFound, failure.to_string())
        }
        Failure::AdapterExists(name) => {
            details.set_resource_info("adapter", name, "", "");
            (Code::AlreadyExists, failure.to_string())
        }
        Failure::AdaptersFull { .. } => (Code::ResourceExhausted, failure.to_string()),
        Failure::Fixed(_)
        | Failure::MergedAdapter(_)
        | Failure::NoAdapterDirectory
        | Failure::AdapterNotLoaded(_) => (Code::FailedPrecondition, failure.to_string()),
        Failure::NotLoaded { .. }
        | Failure::Configuration(_)
        | Failure::Edit(EditError::ImageTokens { .. }) => (Code::FailedPrecondition, failure.to_string()),
        Failure::Unloaded(name) => {
            details.set_resource_info("deployment", name, "", "");
            (Code::NotFound, failure.to_string())
        }
        Failure::AdminDisabled => (Code::PermissionDenied, failure.to_string()),
        Failure::QueueFull { retry_after, .. } => {
            details.set_retry_info(Some(*retry_after));
            (Code::ResourceExhausted, failure.to_string())
        }
        Failure::Overloaded | Failure::ComparisonsFull | Failure::AdaptersBusy => {
            details.set_retry_info(Some(SOON));
            (Code::ResourceExhausted, failure.to_string())
        }
        Failure::Unauthenticated(_) => (Code::Unauthenticated, failure.to_string()),
        Failure::Forbidden(_) => (Code::PermissionDenied, failure.to_string()),
        Failure::RateLimited { retry_after } => {
            if let Some(delay) = retry_after {
                details.set_retry_info(Some(*delay));
            }
            (Code::ResourceExhausted, failure.to_string())
        }
        Failure::CallerBusy => {
            details.set_retry_info(Some(SOON));
            (Code::ResourceExhausted, failure.to_string())
        }
        // No retry delay: the same message will not fit later either.
        Failure::MessageTooLarge { .. } | Failure::AnswerTooLarge { .. } => {
            (Code::ResourceExhausted, failure.to_string())
        }
        Failure::Abandoned | Failure::NotRead => (Code::Cancelled, failure.to_string()),
        Failure::DeadlineExceeded
        | Failure::DeadlineTooShort { .. }
        | Failure::UploadTooSlow { .. }
        | Failure::StreamIdle { .. } => (Code::DeadlineExceeded, failure.to_string()),
        Failure::Edit(EditError::Stage(StageError::NotFinite { stage, .. })) => {
            (Code::Internal, format!("the {stage} computed values that are not finite"))
        }
        Failure::Edit(EditError::Stage(StageError::Unavailable { stage, retry_after, .. })) => {
            details.set_retry_info(Some(retry_after.unwrap_or(SOON)));
            (Code::Unavailable, format!("what computes the {stage} is not available"))
        }
        Failure::Edit(EditError::Stage(error)) => (Code::Internal, format!("the {} failed", stage(error))),
        Failure::Edit(_)
        | Failure::Picture(_)
        | Failure::Encoding(_)
        | Failure::Panicked(_)
        | Failure::Lost => (Code::Internal, "the edit failed inside the server; its log says why".to_owned()),
    };
    Status::with_error_details(code, message, details)
}

fn stage(error: &StageError) -> StageKind {
    match error {
        StageError::Tensors { stage, .. }
        | StageError::Input { stage, .. }
        | StageError::Engine { stage, .. }
        | StageError::Foreign { stage }
        | StageError::Unavailable { stage, .. }
        | StageError::NotFinite { stage, .. } => *stage,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::failure::Violations;
    use crate::security::Denial;
    use smartedit_core::diffusion::DiffusionError;
    use smartedit_core::engine::EngineError;
    use smartedit_core::picture::{Format, PictureError};
    use smartedit_core::text::TextError;

    #[test]
    fn every_violation_is_named() {
        let mut violations = Violations::default();
        violations.add("options.steps", "must be 1 or more");
        violations.add("instruction", "is empty");
        let status = status(&Failure::Invalid(violations), Some("id"));
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let fields: Vec<_> =
            details.bad_request().unwrap().field_violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["options.steps", "instruction"]);
        assert_eq!(details.error_info().unwrap().reason, "INVALID_REQUEST");
        assert_eq!(details.request_info().unwrap().request_id, "id");
    }

    #[test]
    fn a_field_that_the_pipeline_refuses_is_named() {
        let invalid = EditError::Invalid { field: "options.template", message: "is 3".to_owned() };
        let steps = DiffusionError::Steps { steps: 2000, max: 1000 };
        let guidance = DiffusionError::Guidance { scale: "text", value: f32::NAN };
        let size = PictureError::Size { width: 4, height: 4, multiple: 8 };
        for (failure, field) in [
            (Failure::Edit(invalid), "options.template"),
            (Failure::Edit(EditError::Diffusion(steps)), "options.steps"),
            (Failure::Edit(EditError::Diffusion(guidance)), "options.text_guidance"),
            (Failure::Edit(EditError::Picture(size)), "options.resolution"),
            (Failure::Edit(EditError::Text(TextError::Encode("NUL".to_owned()))), "instruction"),
            (Failure::Picture(PictureError::Empty), "image"),
        ] {
            let status = status(&failure, None);
            assert_eq!(status.code(), Code::InvalidArgument, "{failure}");
            assert!(status.message().starts_with(field), "{}", status.message());
            let details = status.get_error_details();
            assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
            assert!(!failure.is_internal());
        }
    }

    fn unavailable(retry_after: Option<Duration>) -> Failure {
        let (stage, message) = (StageKind::Denoiser, "http://secret:1 is down".to_owned());
        Failure::Edit(EditError::Stage(StageError::Unavailable { stage, message, retry_after }))
    }

    #[test]
    fn a_stage_that_cannot_be_had_is_told_without_its_server() {
        let status = status(&unavailable(None), None);
        assert_eq!(status.get_error_details().error_info().unwrap().reason, "STAGE_UNAVAILABLE");
        assert!(status.message().contains("denoiser") && !status.message().contains("secret"), "{status}");
    }

    #[test]
    fn codes_and_delays() {
        let delay = Duration::from_secs(3);
        let full = Failure::QueueFull { deployment: "d".to_owned(), retry_after: delay };
        let cases = [
            (full, Code::ResourceExhausted, Some(delay)),
            (Failure::Overloaded, Code::ResourceExhausted, Some(SOON)),
            (Failure::ShuttingDown, Code::Unavailable, Some(SOON)),
            (Failure::Loading("d".to_owned()), Code::Unavailable, Some(SOON)),
            (Failure::RouteUnavailable("r".to_owned()), Code::Unavailable, Some(SOON)),
            (Failure::DeadlineExceeded, Code::DeadlineExceeded, None),
            (
                Failure::DeadlineTooShort { needed: delay, allowed: Duration::ZERO },
                Code::DeadlineExceeded,
                None,
            ),
            (Failure::RateLimited { retry_after: Some(delay) }, Code::ResourceExhausted, Some(delay)),
            (Failure::RateLimited { retry_after: None }, Code::ResourceExhausted, None),
            (Failure::CallerBusy, Code::ResourceExhausted, Some(SOON)),
            (Failure::Unauthenticated(Denial::Missing), Code::Unauthenticated, None),
            (Failure::Forbidden("no".to_owned()), Code::PermissionDenied, None),
            (Failure::Abandoned, Code::Cancelled, None),
            (Failure::Lost, Code::Internal, None),
            (unavailable(None), Code::Unavailable, Some(SOON)),
            (unavailable(Some(delay)), Code::Unavailable, Some(delay)),
        ];
        for (failure, code, delay) in cases {
            let status = status(&failure, None);
            assert_eq!(status.code(), code, "{failure}");
            assert_eq!(status.get_error_details().retry_info().and_then(|info| info.retry_delay), delay);
        }
    }

    #[test]
    fn an_unknown_deployment_is_a_missing_resource() {
        let failure = Failure::UnknownDeployment { name: "x".to_owned(), known: "`y`".to_owned() };
        let status = status(&failure, None);
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.get_error_details().resource_info().unwrap().resource_name, "x");
        assert!(status.message().contains("`y`"));
    }

    #[test]
    fn callers_learn_nothing_of_the_inside() {
        let path = PathBuf::from("/secret/tokenizer.model");
        let engine = EngineError::new("conv2d", "/secret/kernel");
        let failures = [
            Failure::Panicked("/secret".to_owned()),
            Failure::Encoding(PictureError::Damaged { format: Format::Png, message: "/secret".to_owned() }),
            Failure::Edit(EditError::Output { stage: StageKind::VaeDecoder, message: "/secret".to_owned() }),
            Failure::Edit(EditError::Text(TextError::NoImage { template: "/secret".to_owned() })),
            Failure::Edit(EditError::Text(TextError::Tokenizer { path, message: String::new() })),
            Failure::Edit(EditError::Stage(StageError::Engine {
                stage: StageKind::Denoiser,
                source: engine,
            })),
        ];
        for failure in failures {
            let status = status(&failure, None);
            assert_eq!(status.code(), Code::Internal);
            assert!(!status.message().contains("secret"), "{}", status.message());
        }
    }
}
