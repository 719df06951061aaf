"""The blocking client."""

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from typing_extensions import Unpack

from smartedit.channel import channel_options
from smartedit.comparisons import CompareEvent, Entry, compare_event_from
from smartedit.credentials import call_metadata
from smartedit.deployments import Deployment, deployment_from
from smartedit.errors import SmartEditError, error_from
from smartedit.events import Event, Result, event_from, result_from
from smartedit.options import EditOptions, to_message
from smartedit.pictures import Picture, encode
from smartedit.v1 import service_pb2
from smartedit.v1.service_pb2_grpc import SmartEditServiceStub

_Request = TypeVar("_Request", service_pb2.EditRequest, service_pb2.EditStreamRequest)
_Event = TypeVar("_Event")


class Client:
    """A connection to a server. Safe to share among threads.

    `timeout` bounds every call that has none of its own, in seconds, retries included. A call that finds the
    server unavailable is tried again a few times. Without `credentials`, such as those of `tls()`, the
    connection is not encrypted. `api_key` is an API key or a token; without encryption, everyone on the way
    can read it.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        api_key: str | None = None,
    ) -> None:
        options = channel_options()
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options)
        self._stub: Any = SmartEditServiceStub(self._channel)
        self._timeout = timeout
        self._metadata = call_metadata(api_key)

    def edit(
        self,
        image: Picture,
        instruction: str,
        *,
        deployment: str | None = None,
        timeout: float | None = None,
        **options: Unpack[EditOptions],
    ) -> Result:
        """Edit a picture as the instruction says and wait for the result."""
        request = edit_request(service_pb2.EditRequest, image, instruction, deployment, options)
        return result_from(self._call(self._stub.Edit, request, timeout).result)

    def edit_stream(
        self,
        image: Picture,
        instruction: str,
        *,
        deployment: str | None = None,
        timeout: float | None = None,
        **options: Unpack[EditOptions],
    ) -> "EditStream":
        """Edit a picture as the instruction says and report how it goes; the last event is the `Result`."""
        request = edit_request(service_pb2.EditStreamRequest, image, instruction, deployment, options)
        return EditStream(
            self._stub.EditStream(request, timeout=self._timeout_of(timeout), metadata=self._metadata)
        )

    def compare(
        self,
        image: Picture,
        instruction: str,
        deployments: Sequence[str],
        *,
        latent_threshold: float | None = None,
        timeout: float | None = None,
        **options: Unpack[EditOptions],
    ) -> list[Entry]:
        """Make one edit on several deployments, one after the other, and measure them against the first.

        A deployment that fails alone has a `Failure` in its entry.
        """
        with self.compare_stream(
            image, instruction, deployments, latent_threshold=latent_threshold, timeout=timeout, **options
        ) as stream:
            return stream.entries()

    def compare_stream(
        self,
        image: Picture,
        instruction: str,
        deployments: Sequence[str],
        *,
        latent_threshold: float | None = None,
        timeout: float | None = None,
        **options: Unpack[EditOptions],
    ) -> "CompareStream":
        """Compare deployments and report how it goes; each deployment's last event is its `Entry`."""
        request = compare_request(image, instruction, deployments, latent_threshold, options)
        return CompareStream(
            self._stub.Compare(request, timeout=self._timeout_of(timeout), metadata=self._metadata)
        )

    def deployments(self, *, timeout: float | None = None) -> list[Deployment]:
        """List what the server has deployed, sorted by name."""
        response = self._call(self._stub.ListDeployments, service_pb2.ListDeploymentsRequest(), timeout)
        return [deployment_from(deployment) for deployment in response.deployments]

    def deployment(self, name: str | None = None, *, timeout: float | None = None) -> Deployment:
        """Describe one deployment, or the default one."""
        request = service_pb2.GetDeploymentRequest(name=name or "")
        return deployment_from(self._call(self._stub.GetDeployment, request, timeout).deployment)

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, method: Callable[..., Any], request: object, timeout: float | None) -> Any:
        try:
            return method(request, timeout=self._timeout_of(timeout), metadata=self._metadata)
        except grpc.RpcError as failure:
            raise error_from(failure) from failure

    def _timeout_of(self, timeout: float | None) -> float | None:
        return self._timeout if timeout is None else timeout


class _Stream(Iterator[_Event]):
    """The events of a call under way. Leaving its `with` block before the end cancels the call."""

    def __init__(self, call: Any, event_from: Callable[[Any], _Event | None]) -> None:
        self._call = call
        self._event_from = event_from

    def __next__(self) -> _Event:
        while True:
            try:
                event = self._event_from(next(self._call))
            except grpc.RpcError as failure:
                raise error_from(failure) from failure
            if event is not None:
                return event

    def cancel(self) -> None:
        """Cancel the call; after its end this does nothing."""
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()


class EditStream(_Stream[Event]):
    """The events of an edit under way. Leaving its `with` block before the end cancels the edit."""

    def __init__(self, call: Any) -> None:
        super().__init__(call, event_from)

    def result(self) -> Result:
        """Skip to the result."""
        for event in self:
            if isinstance(event, Result):
                return event
        raise no_result()


class CompareStream(_Stream[CompareEvent]):
    """The events of a comparison under way. Leaving its `with` block before the end cancels it."""

    def __init__(self, call: Any) -> None:
        super().__init__(call, compare_event_from)

    def entries(self) -> list[Entry]:
        """Skip to the end and give what each deployment has made, in the order asked for."""
        return [event for event in self if isinstance(event, Entry)]


def edit_request(
    kind: type[_Request], image: Picture, instruction: str, deployment: str | None, options: EditOptions
) -> _Request:
    """Give the request for an edit."""
    return kind(
        image=encode(image, upright=options.get("exif_orientation") != "ignore"),
        instruction=instruction,
        deployment=deployment or "",
        options=to_message(options),
    )


def compare_request(
    image: Picture,
    instruction: str,
    deployments: Sequence[str],
    latent_threshold: float | None,
    options: EditOptions,
) -> service_pb2.CompareRequest:
    """Give the request for a comparison."""
    return service_pb2.CompareRequest(
        image=encode(image, upright=options.get("exif_orientation") != "ignore"),
        instruction=instruction,
        deployments=deployments,
        options=to_message(options),
        latent_threshold=latent_threshold,
    )


def no_result() -> SmartEditError:
    """Give the exception for a stream that ended well but without a result."""
    return SmartEditError(grpc.StatusCode.INTERNAL, "the stream ended without a result")
