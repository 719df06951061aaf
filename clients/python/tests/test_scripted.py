"""The client against a scripted server: what it sends, retries, raises and makes of answers."""

import io
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from PIL import Image

from smartedit import (
    Accepted,
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    FieldViolation,
    InvalidArgument,
    Preview,
    Queued,
    Reply,
    ResourceExhausted,
    Result,
    SmartEditError,
    StageFinished,
    StageStarted,
    Step,
    Timings,
    Unavailable,
)
from smartedit.v1 import edit_pb2, event_pb2, service_pb2, stage_pb2

from servers import Scripted


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def result_message(picture: Image.Image) -> edit_pb2.EditResult:
    return edit_pb2.EditResult(
        image=png(picture),
        mime_type="image/png",
        width=64,
        height=64,
        seed=2**64 - 1,
        deployment="default",
        reply="",
        timings=edit_pb2.EditTimings(
            total=Duration(seconds=2, nanos=500_000_000),
            queued=Duration(seconds=1),
            stages=[
                edit_pb2.StageTiming(
                    stage=stage_pb2.STAGE_VAE_ENCODER, duration=Duration(nanos=250_000_000), cached=True
                ),
                edit_pb2.StageTiming(stage=stage_pb2.STAGE_DENOISER, duration=Duration(seconds=1)),
            ],
            mean_batch=2.5,
        ),
        request_id="r1",
    )


def fail(context: grpc.ServicerContext, code: grpc.StatusCode, *details: Any) -> None:
    status = status_pb2.Status(code=code.value[0], message="no")
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, "no")


def test_a_result_is_whole(scripted: Scripted, picture: Image.Image) -> None:
    scripted.script.edit = lambda *_: service_pb2.EditResponse(result=result_message(picture))
    with Client(scripted.address) as client:
        result = client.edit(picture, "Make it winter", deployment="d", steps=3)
    request = scripted.script.requests[0]
    assert (request.instruction, request.deployment, request.options.steps) == ("Make it winter", "d", 3)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(request.image))), np.asarray(picture))
    assert np.array_equal(np.asarray(result.image), np.asarray(picture))
    assert (result.seed, result.reply, result.request_id) == (2**64 - 1, "", "r1")
    stages = {"vae_encoder": 0.25, "denoiser": 1.0}
    assert result.timings == Timings(2.5, 1.0, 0.0, stages, 0.0, frozenset(["vae_encoder"]), 2.5)
    assert list(result.timings.stages) == ["vae_encoder", "denoiser"]


def test_no_reply_is_none(scripted: Scripted, picture: Image.Image) -> None:
    message = result_message(picture)
    message.ClearField("reply")
    scripted.script.edit = lambda *_: service_pb2.EditResponse(result=message)
    with Client(scripted.address) as client:
        assert client.edit(picture, "x").reply is None


def events(picture: Image.Image) -> Iterator[service_pb2.EditStreamResponse]:
    response = service_pb2.EditStreamResponse
    yield response(accepted=event_pb2.AcceptedEvent(request_id="r1", deployment="d", seed=7))
    yield response(queued=event_pb2.QueuedEvent(position=2))
    yield response(
        stage_started=event_pb2.StageStartedEvent(
            stage=stage_pb2.STAGE_DENOISER, elapsed=Duration(nanos=500_000_000)
        )
    )
    # An event and a stage that only a newer client knows.
    yield response()
    yield response(step=event_pb2.StepEvent(index=1, total=2))
    preview = event_pb2.Preview(image=png(picture), mime_type="image/png", step=2)
    yield response(step=event_pb2.StepEvent(index=2, total=2, preview=preview))
    yield response(
        stage_finished=event_pb2.StageFinishedEvent(
            stage=99,  # type: ignore[arg-type]
            duration=Duration(seconds=1),
            elapsed=Duration(seconds=2),
            cached=True,
        )
    )
    yield response(reply=event_pb2.ReplyEvent(text="Certainly."))
    yield response(result=result_message(picture))


def test_a_stream_reports_everything_and_the_result_last(scripted: Scripted, picture: Image.Image) -> None:
    scripted.script.edit_stream = lambda *_: events(picture)
    with Client(scripted.address) as client:
        seen = list(client.edit_stream(picture, "x"))
    assert seen[:-1] == [
        Accepted("r1", "d", 7),
        Queued(2),
        StageStarted("denoiser", 0.5),
        Step(1, 2, None),
        Step(2, 2, Preview(png(picture), "image/png", 2)),
        StageFinished("99", 1.0, 2.0, True),
        Reply("Certainly."),
    ]
    assert isinstance(seen[-1], Result)


async def test_asyncio_reports_the_same(scripted: Scripted, picture: Image.Image) -> None:
    scripted.script.edit_stream = lambda *_: events(picture)
    with Client(scripted.address) as client:
        expected = list(client.edit_stream(picture, "x"))
    async with AsyncClient(scripted.address) as client_:
        assert [event async for event in client_.edit_stream(picture, "x")] == expected
        assert await client_.edit_stream(picture, "x").result() == expected[-1]


def test_a_stream_without_a_result_is_an_error(scripted: Scripted, picture: Image.Image) -> None:
    scripted.script.edit_stream = lambda *_: iter([service_pb2.EditStreamResponse()])
    with Client(scripted.address) as client, pytest.raises(SmartEditError, match="without a result"):
        client.edit_stream(picture, "x").result()


@pytest.mark.parametrize("size", [1, 6 * 2**20])
def test_an_unavailable_server_is_asked_again(scripted: Scripted, picture: Image.Image, size: int) -> None:
    def edit(_: Any, context: grpc.ServicerContext) -> service_pb2.EditResponse:
        if len(scripted.script.requests) < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
        return service_pb2.EditResponse(result=result_message(picture))

    scripted.script.edit = edit
    with Client(scripted.address) as client:
        client.edit(bytes(size), "x")
    assert [len(request.image) for request in scripted.script.requests] == [size] * 3


async def test_asyncio_asks_again_and_then_gives_up(scripted: Scripted) -> None:
    scripted.script.edit = lambda _, context: context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
    async with AsyncClient(scripted.address) as client:
        with pytest.raises(Unavailable, match="draining"):
            await client.edit(b"x", "x")
    assert len(scripted.script.requests) == 4


def test_no_other_failure_is_retried(scripted: Scripted) -> None:
    scripted.script.edit = lambda _, context: context.abort(grpc.StatusCode.INTERNAL, "broken")
    with Client(scripted.address) as client, pytest.raises(SmartEditError, match="INTERNAL: broken"):
        client.edit(b"x", "x")
    assert len(scripted.script.requests) == 1


def test_messages_above_4_mib_come_back(scripted: Scripted, picture: Image.Image) -> None:
    message = result_message(picture)
    message.image = bytes(6 * 2**20)
    scripted.script.edit = lambda *_: service_pb2.EditResponse(result=message)
    with Client(scripted.address) as client:
        assert len(client.edit(b"x", "x").data) == 6 * 2**20


def test_violations_name_the_fields(scripted: Scripted) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation
    details = error_details_pb2.BadRequest(
        field_violations=[violation(field="options.steps", description="too many"), violation(field="image")]
    )
    info = error_details_pb2.ErrorInfo(reason="INVALID_REQUEST", domain="smartedit")
    scripted.script.edit = lambda _, context: fail(context, grpc.StatusCode.INVALID_ARGUMENT, info, details)
    with Client(scripted.address) as client, pytest.raises(InvalidArgument) as caught:
        client.edit(b"x", "x")
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.reason == "INVALID_REQUEST"
    assert caught.value.violations == (
        FieldViolation("options.steps", "too many"),
        FieldViolation("image", ""),
    )


def test_a_busy_server_says_when_to_come_back(scripted: Scripted) -> None:
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))
    scripted.script.edit = lambda _, context: fail(context, grpc.StatusCode.RESOURCE_EXHAUSTED, retry)
    with Client(scripted.address) as client, pytest.raises(ResourceExhausted) as caught:
        client.edit(b"x", "x")
    assert caught.value.retry_after == 1.5


def test_damaged_details_do_not_hide_the_failure(scripted: Scripted) -> None:
    def edit(_: Any, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "no such deployment")

    scripted.script.edit = edit
    with (
        Client(scripted.address) as client,
        pytest.raises(SmartEditError, match="no such deployment") as caught,
    ):
        client.edit(b"x", "x")
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("own", [True, False])
def test_the_deadline_reaches_the_server(scripted: Scripted, own: bool) -> None:
    remaining: list[float] = []

    def edit(_: Any, context: grpc.ServicerContext) -> None:
        remaining.append(context.time_remaining())
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "too late")

    scripted.script.edit = edit
    arguments = (None, 50.0) if own else (50.0, None)
    with Client(scripted.address, timeout=arguments[0]) as client, pytest.raises(DeadlineExceeded):
        client.edit(b"x", "x", timeout=arguments[1])
    assert remaining[0] == pytest.approx(50, abs=10)


def test_leaving_a_stream_cancels_it(scripted: Scripted, picture: Image.Image) -> None:
    ended = threading.Event()

    def edit_stream(_: Any, context: grpc.ServicerContext) -> Iterator[service_pb2.EditStreamResponse]:
        context.add_callback(ended.set)
        yield next(events(picture))
        ended.wait()

    scripted.script.edit_stream = edit_stream
    with Client(scripted.address) as client:
        with client.edit_stream(picture, "x") as stream:
            assert isinstance(next(stream), Accepted)
        assert ended.wait(60)
        with pytest.raises(Cancelled):
            next(stream)


def test_nobody_there_is_unavailable() -> None:
    with Client("127.0.0.1:1", timeout=60) as client, pytest.raises(Unavailable):
        client.deployments()
