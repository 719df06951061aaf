"""The client for asyncio."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from typing_extensions import Unpack

from smartedit.channel import channel_options
from smartedit.client import compare_request, edit_request, no_result
from smartedit.comparisons import CompareEvent, Entry, compare_event_from
from smartedit.credentials import call_metadata
from smartedit.deployments import Deployment, deployment_from
from smartedit.errors import error_from
from smartedit.events import Event, Result, event_from, result_from
from smartedit.options import EditOptions
from smartedit.pictures import Picture
from smartedit.v1 import service_pb2
from smartedit.v1.service_pb2_grpc import SmartEditServiceStub

_Event = TypeVar("_Event")


class AsyncClient:
    """A connection to a server, for the event loop in which it is made.

    `timeout` bounds every call that has none of its own, in seconds, retries included. A call that finds the
    server unavailable is tried again a few times; cancelling the task that waits for a call cancels the call.
    Without `credentials`, such as those of `tls()`, the connection is not encrypted. `api_key` is an API key
    or a token; without encryption, everyone on the way can read it.
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
            self._channel = grpc.aio.insecure_channel(address, options)
        else:
            self._channel = grpc.aio.secure_channel(address, credentials, options)
        self._stub: Any = SmartEditServiceStub(self._channel)
        self._timeout = timeout
        self._metadata = call_metadata(api_key)

    async def edit(
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
        return result_from((await self._call(self._stub.Edit, request, timeout)).result)

    def edit_stream(
        self,
        image: Picture,
        instruction: str,
        *,
        deployment: str | None = None,
        timeout: float | None = None,
        **options: Unpack[EditOptions],
    ) -> "AsyncEditStream":
        """Edit a picture as the instruction says and report how it goes; the last event is the `Result`."""
        request = edit_request(service_pb2.EditStreamRequest, image, instruction, deployment, options)
        return AsyncEditStream(
            self._stub.EditStream(request, timeout=self._timeout_of(timeout), metadata=self._metadata)
        )

    async def compare(
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
        async with self.compare_stream(
            image, instruction, deployments, latent_threshold=latent_threshold, timeout=timeout, **options
        ) as stream:
            return await stream.entries()

    def compare_stream(
        self,
        image: Picture,
        instruction: str,
        deployments: Sequence[str],
        *,
        latent_threshold: float | None = None,
        timeout: float | None = None,
        **options: Unpack[EditOptions],
    ) -> "AsyncCompareStream":
        """Compare deployments and report how it goes; each deployment's last event is its `Entry`."""
        request = compare_request(image, instruction, deployments, latent_threshold, options)
        return AsyncCompareStream(
            self._stub.Compare(request, timeout=self._timeout_of(timeout), metadata=self._metadata)
        )

    async def deployments(
        self,
        *,
        timeout: float | None = None,
    ) -> list[Deployment]:
        """List what the server has deployed, sorted by name."""
        request = service_pb2.ListDeploymentsRequest()
        response = await self._call(self._stub.ListDeployments, request, timeout)
        return [deployment_from(deployment) for deployment in response.deployments]

    async def deployment(
        self,
        name: str | None = None,
        *,
        timeout: float | None = None,
    ) -> Deployment:
        """Describe one deployment, or the default one."""
        request = service_pb2.GetDeploymentRequest(name=name or "")
        return deployment_from((await self._call(self._stub.GetDeployment, request, timeout)).deployment)

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _call(
        self, method: Callable[..., Awaitable[Any]], request: object, timeout: float | None
    ) -> Any:
        try:
            return await method(request, timeout=self._timeout_of(timeout), metadata=self._metadata)
        except grpc.RpcError as failure:
            raise error_from(failure) from failure

    def _timeout_of(self, timeout: float | None) -> float | None:
        return self._timeout if timeout is None else timeout


class _AsyncStream(AsyncIterator[_Event]):
    """The events of a call under way. Leaving its `async with` block before the end cancels the call."""

    def __init__(self, call: Any, event_from: Callable[[Any], _Event | None]) -> None:
        self._call = call
        self._messages = aiter(call)
        self._event_from = event_from

    async def __anext__(self) -> _Event:
        while True:
            try:
                event = self._event_from(await anext(self._messages))
            except grpc.RpcError as failure:
                raise error_from(failure) from failure
            if event is not None:
                return event

    def cancel(self) -> None:
        """Cancel the call; after its end this does nothing."""
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()


class AsyncEditStream(_AsyncStream[Event]):
    """The events of an edit under way. Leaving its `async with` block before the end cancels the edit."""

    def __init__(self, call: Any) -> None:
        super().__init__(call, event_from)

    async def result(self) -> Result:
        """Skip to the result."""
        async for event in self:
            if isinstance(event, Result):
                return event
        raise no_result()


class AsyncCompareStream(_AsyncStream[CompareEvent]):
    """The events of a comparison under way. Leaving its `async with` block before the end cancels it."""

    def __init__(self, call: Any) -> None:
        super().__init__(call, compare_event_from)

    async def entries(self) -> list[Entry]:
        """Skip to the end and give what each deployment has made, in the order asked for."""
        return [event async for event in self if isinstance(event, Entry)]
