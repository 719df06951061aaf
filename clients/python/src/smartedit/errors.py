"""What can go wrong, one exception per gRPC status code that a caller may want to treat on its own."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True)
class FieldViolation:
    """A field of the request has a value that cannot be taken."""

    field: str
    """The field, as it is called in the protocol: `options.steps`."""
    description: str
    """What is wrong with it, and what is needed."""


class SmartEditError(Exception):
    """A call failed."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        violations: tuple[FieldViolation, ...] = (),
        retry_after: float | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        """The gRPC status code."""
        self.message = message
        """The server's words."""
        self.violations = violations
        """Which fields of the request have values that cannot be taken."""
        self.retry_after = retry_after
        """Seconds after which the server suggests to try again."""
        self.reason = reason
        """The reason as a constant, if the server gives one."""

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


class InvalidArgument(SmartEditError):
    """The request cannot be taken; `violations` names the fields."""


class NotFound(SmartEditError):
    """There is no such deployment."""


class Unauthenticated(SmartEditError):
    """The server does not know the API key or token, or was shown none."""


class PermissionDenied(SmartEditError):
    """The holder of the API key or token may not do this."""


class FailedPrecondition(SmartEditError):
    """The deployment cannot work: its model or an engine cannot be had."""


class ResourceExhausted(SmartEditError):
    """The server has no room for the edit; `retry_after` says when to try again."""


class Unavailable(SmartEditError):
    """The server cannot be reached, is shutting down, or still loads the deployment."""


class DeadlineExceeded(SmartEditError):
    """The time allowed for the call has passed."""


class Cancelled(SmartEditError):
    """The call was cancelled."""


@dataclass
class _Details:
    violations: tuple[FieldViolation, ...] = ()
    retry_after: float | None = None
    reason: str | None = None


_CLASSES: dict[grpc.StatusCode, type[SmartEditError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
}


def error_from(failure: grpc.RpcError) -> SmartEditError:
    """Give the exception for a failed call."""
    # Every error that a call raises is the call as well, which `RpcError` does not say.
    call: Any = failure
    code: grpc.StatusCode = call.code()
    details = _details_from(call.trailing_metadata() or ())
    return _CLASSES.get(code, SmartEditError)(
        code,
        call.details() or "",
        violations=details.violations,
        retry_after=details.retry_after,
        reason=details.reason,
    )


def _details_from(metadata: Iterable[tuple[str, str | bytes]]) -> _Details:
    details = _Details()
    encoded = next((value for key, value in metadata if key == _DETAILS_KEY), None)
    if not isinstance(encoded, bytes):
        return details
    try:
        messages = status_pb2.Status.FromString(encoded).details
        for message in messages:
            bad_request = error_details_pb2.BadRequest()
            retry = error_details_pb2.RetryInfo()
            info = error_details_pb2.ErrorInfo()
            if message.Unpack(bad_request):
                details.violations = tuple(
                    FieldViolation(violation.field, violation.description)
                    for violation in bad_request.field_violations
                )
            elif message.Unpack(retry):
                details.retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos * 1e-9
            elif message.Unpack(info):
                details.reason = info.reason
    except DecodeError:
        # Status and message stand for themselves; damaged details only add nothing.
        return _Details()
    return details
