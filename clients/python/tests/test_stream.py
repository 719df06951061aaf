"""Progress, cancellation and deadlines of the real server."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smartedit import (
    Accepted,
    AsyncClient,
    Client,
    DeadlineExceeded,
    EditOptions,
    EditStream,
    Event,
    Queued,
    Reply,
    Result,
    StageFinished,
    StageStarted,
    Step,
)

from servers import Server, running, wait_for

INSTRUCTION = "Change the left cat to a fox"


def check_order(events: list[Event], steps: int) -> None:
    assert isinstance(events[0], Accepted)
    assert isinstance(events[-1], Result)
    assert sum(isinstance(event, Result) for event in events) == 1
    assert (events[0].seed, events[0].deployment) == (events[-1].seed, events[-1].deployment)
    assert events[0].request_id == events[-1].request_id
    started = [event.stage for event in events if isinstance(event, StageStarted)]
    finished = [event.stage for event in events if isinstance(event, StageFinished)]
    assert started == list(events[-1].timings.stages)
    assert sorted(started) == sorted(finished)
    positions = [event.position for event in events if isinstance(event, Queued)]
    assert positions == sorted(positions, reverse=True)
    reported = [event.index for event in events if isinstance(event, Step)]
    assert all(one < next_ for one, next_ in pairwise(reported))
    # A slow reader may miss steps in between, never the last.
    assert reported[-1] == steps
    denoiser = [
        index
        for index, event in enumerate(events)
        if isinstance(event, StageStarted | StageFinished) and event.stage == "denoiser"
    ]
    within = [index for index, event in enumerate(events) if isinstance(event, Step)]
    assert denoiser[0] < within[0] <= within[-1] < denoiser[-1]


def test_progress_comes_in_order_and_the_result_last(client: Client, picture: Image.Image) -> None:
    with client.edit_stream(picture, INSTRUCTION, seed=5, steps=4, resolution=(64, 64)) as stream:
        events = list(stream)
    check_order(events, steps=4)
    assert isinstance(events[-1], Result)
    replies = [event.text for event in events if isinstance(event, Reply)]
    assert replies == ([] if events[-1].reply is None else [events[-1].reply])
    unary = client.edit(picture, INSTRUCTION, seed=5, steps=4, resolution=(64, 64))
    assert np.array_equal(np.asarray(events[-1].image), np.asarray(unary.image))


def test_previews_are_pictures(client: Client, picture: Image.Image) -> None:
    stream = client.edit_stream(picture, INSTRUCTION, steps=4, resolution=(64, 64), preview_interval=2)
    previews = [event.preview for event in stream if isinstance(event, Step) and event.preview]
    assert previews
    for preview in previews:
        assert preview.step % 2 == 0
        assert preview.image.size == (64, 64)


def test_no_previews_unless_asked_for(client: Client, picture: Image.Image) -> None:
    stream = client.edit_stream(picture, INSTRUCTION, steps=2, resolution=(64, 64))
    assert not any(event.preview for event in stream if isinstance(event, Step))


async def test_asyncio_progress(server: Server, picture: Image.Image) -> None:
    async with AsyncClient(server.address, timeout=120) as client:
        stream = client.edit_stream(picture, INSTRUCTION, steps=3, resolution=(64, 64))
        check_order([event async for event in stream], steps=3)


# Longer than the work is estimated to take, however busy the machine is.
HOUR = 3600
LONG: EditOptions = {"steps": 1000, "resolution": (128, 128)}
"""Options of an edit that goes on for many steps."""


def check_stopped(server: Server, client: Client, picture: Image.Image, known: set[str], reason: str) -> None:
    """The one edit that ended besides the known ones was stopped, and the only worker is free again."""
    wait_for(lambda: len(server.outcomes()) > len(known), "the edit ends")
    assert [outcome for request, outcome in server.outcomes().items() if request not in known] == [reason]
    assert client.edit(picture, INSTRUCTION, steps=1, resolution=(64, 64)).image.size == (64, 64)


def first_step(stream: EditStream) -> Step:
    return next(event for event in stream if isinstance(event, Step))


def test_leaving_a_stream_stops_the_work(server: Server, client: Client, picture: Image.Image) -> None:
    known = set(server.outcomes())
    with client.edit_stream(picture, INSTRUCTION, timeout=HOUR, **LONG) as stream:
        first_step(stream)
        assert client.deployment().running == 1
    check_stopped(server, client, picture, known, "ABANDONED")


def test_a_lost_connection_stops_the_work(server: Server, client: Client, picture: Image.Image) -> None:
    known = set(server.outcomes())
    with Client(server.address) as other:
        first_step(other.edit_stream(picture, INSTRUCTION, timeout=HOUR, **LONG))
    check_stopped(server, client, picture, known, "ABANDONED")


async def test_cancelling_a_task_stops_the_work(server: Server, client: Client, picture: Image.Image) -> None:
    known = set(server.outcomes())
    async with AsyncClient(server.address) as asynchronous:
        task = asyncio.create_task(asynchronous.edit(picture, INSTRUCTION, timeout=HOUR, **LONG))
        while (await asynchronous.deployment()).running == 0:
            assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    check_stopped(server, client, picture, known, "ABANDONED")


def test_a_waiting_edit_can_be_cancelled(server: Server, client: Client, picture: Image.Image) -> None:
    known = set(server.outcomes())
    with client.edit_stream(picture, INSTRUCTION, timeout=HOUR, **LONG) as running:
        first_step(running)
        with client.edit_stream(picture, INSTRUCTION, timeout=HOUR, **LONG) as waiting:
            accepted = next(waiting)
            assert isinstance(accepted, Accepted)
            assert next(waiting) == Queued(0)
            assert client.deployment().queued == 1
        wait_for(lambda: accepted.request_id in server.outcomes(), "the edit leaves the queue")
        assert server.outcomes()[accepted.request_id] == "ABANDONED"
        assert (client.deployment().queued, client.deployment().running) == (0, 1)
    check_stopped(server, client, picture, known | {accepted.request_id}, "ABANDONED")


@pytest.fixture
def unmeasured(tmp_path: Path) -> Iterator[Server]:
    """A server that has measured no edit yet, and so refuses none because its deadline is too short."""
    with running(tmp_path) as server:
        yield server


def test_a_passed_deadline_stops_the_work(unmeasured: Server, picture: Image.Image) -> None:
    known = set(unmeasured.outcomes())
    with Client(unmeasured.address) as client:
        with pytest.raises(DeadlineExceeded):
            client.edit(picture, INSTRUCTION, timeout=0.5, **LONG)
        check_stopped(unmeasured, client, picture, known, "DEADLINE_EXCEEDED")


def test_a_passed_deadline_stops_a_stream(unmeasured: Server, picture: Image.Image) -> None:
    known = set(unmeasured.outcomes())
    with Client(unmeasured.address) as client:
        stream = client.edit_stream(picture, INSTRUCTION, timeout=0.5, **LONG)
        with pytest.raises(DeadlineExceeded):
            stream.result()
        check_stopped(unmeasured, client, picture, known, "DEADLINE_EXCEEDED")


def test_a_deadline_that_cannot_be_met_is_refused_at_once(client: Client, picture: Image.Image) -> None:
    client.edit(picture, INSTRUCTION, steps=2, resolution=(64, 64), no_cache=True)
    with pytest.raises(DeadlineExceeded) as refused:
        client.edit(picture, INSTRUCTION, timeout=2.0, **LONG)
    assert refused.value.reason == "DEADLINE_TOO_SHORT"


def test_the_work_goes_on_if_asked_to(server: Server, client: Client, picture: Image.Image) -> None:
    with client.edit_stream(
        picture, INSTRUCTION, steps=20, resolution=(64, 64), keep_on_disconnect=True
    ) as stream:
        accepted = next(stream)
        assert isinstance(accepted, Accepted)
    wait_for(lambda: accepted.request_id in server.outcomes(), "the edit ends")
    assert server.outcomes()[accepted.request_id] == "OK"
