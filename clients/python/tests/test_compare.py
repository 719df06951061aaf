"""Comparisons by the real server, and by a scripted one."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smartedit import (
    AsyncClient,
    Client,
    Compared,
    Entry,
    Failure,
    Incomparable,
    InvalidArgument,
    NotFound,
    Progress,
    Queued,
    Started,
    Step,
)
from smartedit.v1 import compare_pb2, event_pb2, service_pb2

from servers import Scripted, Server

INSTRUCTION = "Change the left cat to a fox"


def compared(entry: Entry) -> Compared:
    assert isinstance(entry.outcome, Compared), entry
    return entry.outcome


def test_deployments_are_measured_against_the_first(client: Client, picture: Image.Image) -> None:
    entries = client.compare(
        picture,
        INSTRUCTION,
        ["default", "narrow"],
        latent_threshold=0,
        seed=7,
        steps=2,
        resolution=(64, 64),
    )
    assert [entry.deployment for entry in entries] == ["default", "narrow"]
    first, second = map(compared, entries)
    assert first.difference is None
    assert first.memory.weights > 0
    assert first.result.seed == second.result.seed == 7
    assert second.difference is not None
    latents, pixels = second.difference.latents, second.difference.pixels
    assert not isinstance(latents, Incomparable)
    assert not isinstance(pixels, Incomparable)
    assert latents.step_max[-1] == latents.max > latents.mean > 0
    assert (len(latents.step_max), latents.parting_step) == (2, 1)
    pixel_values = [np.asarray(edit.result.image.convert("RGB")).astype(int) for edit in (first, second)]
    difference = np.abs(pixel_values[0] - pixel_values[1])
    assert pixels.max == difference.max()
    assert pixels.mean == pytest.approx(difference.mean())
    assert pixels.psnr == pytest.approx(10 * math.log10(255**2 / (difference**2).mean()))
    assert pixels.ssim is not None
    assert 0.9 < pixels.ssim < 1


async def test_asyncio_reports_how_it_goes(server: Server, picture: Image.Image) -> None:
    async with AsyncClient(server.address, timeout=120) as client:
        stream = client.compare_stream(
            picture, INSTRUCTION, ["default", "narrow"], steps=2, resolution=(64, 64)
        )
        events = [event async for event in stream]
        started = events[0]
        assert isinstance(started, Started)
        assert started.deployments == ("default", "narrow")
        last_steps = {
            event.deployment: event.event
            for event in events
            if isinstance(event, Progress) and isinstance(event.event, Step)
        }
        assert last_steps == {"default": Step(2, 2, None), "narrow": Step(2, 2, None)}
        again = await client.compare(
            picture, INSTRUCTION, ["default", "narrow"], seed=started.seed, steps=2, resolution=(64, 64)
        )
        pairs = zip(again, (event for event in events if isinstance(event, Entry)), strict=True)
        assert all(compared(one).result.data == compared(other).result.data for one, other in pairs)


def test_what_cannot_be_compared_is_refused(client: Client, picture: Image.Image) -> None:
    with pytest.raises(NotFound, match="nobody"):
        client.compare(picture, INSTRUCTION, ["default", "nobody"])
    with pytest.raises(InvalidArgument) as caught:
        client.compare(picture, INSTRUCTION, ["default", "default"])
    assert [violation.field for violation in caught.value.violations] == ["deployments[1]"]


def test_failures_and_the_incomparable_say_why(scripted: Scripted, picture: Image.Image) -> None:
    response = service_pb2.CompareResponse

    def compare(*_: Any) -> Iterator[service_pb2.CompareResponse]:
        # An event that only a newer client knows.
        yield response()
        yield response(
            progress=compare_pb2.CompareProgressEvent(
                deployment="a", queued=event_pb2.QueuedEvent(position=2)
            )
        )
        failure = compare_pb2.CompareFailure(code=13, reason="INTERNAL", message="broken")
        yield response(entry=compare_pb2.CompareEntry(deployment="a", failure=failure))
        difference = compare_pb2.CompareDifference(
            latents_incomparable="2 steps instead of 3", pixels=compare_pb2.PixelDifference(psnr=math.inf)
        )
        result = compare_pb2.CompareResult(difference=difference)
        yield response(entry=compare_pb2.CompareEntry(deployment="b", result=result))

    scripted.script.compare = compare
    with Client(scripted.address) as client:
        events = list(client.compare_stream(picture, "x", ["a", "b"], steps=3))
    request = scripted.script.requests[0]
    assert (list(request.deployments), request.options.steps) == (["a", "b"], 3)
    assert not request.HasField("latent_threshold")
    progress, failed, other = events
    assert progress == Progress("a", Queued(2))
    assert failed == Entry("a", Failure(13, "INTERNAL", "broken"))
    assert isinstance(other, Entry)
    outcome = compared(other)
    assert outcome.difference is not None
    assert outcome.difference.latents == Incomparable("2 steps instead of 3")
    assert not isinstance(outcome.difference.pixels, Incomparable)
    assert (outcome.difference.pixels.psnr, outcome.difference.pixels.ssim) == (math.inf, None)
    assert (outcome.memory.resident, outcome.memory.peak_resident) == (None, None)
