"""One edit on several deployments, and how the results differ."""

from dataclasses import dataclass
from typing import TypeAlias

import grpc

from smartedit.errors import SmartEditError
from smartedit.events import (
    Queued,
    Reply,
    Result,
    StageFinished,
    StageStarted,
    Step,
    event_from,
    result_from,
)
from smartedit.v1 import compare_pb2, service_pb2


@dataclass(frozen=True)
class Started:
    """The comparison is valid and begins."""

    request_id: str
    """The request's identifier, as in the server's log."""
    deployments: tuple[str, ...]
    """The deployments, in the order in which they make the edit."""
    seed: int
    """The seed that all of them use."""
    latent_threshold: float
    """The threshold above which latents part."""


@dataclass(frozen=True)
class Progress:
    """Something happens on the way of one deployment's edit."""

    deployment: str
    """The deployment."""
    event: Queued | StageStarted | StageFinished | Step | Reply
    """What happens."""


@dataclass(frozen=True)
class Memory:
    """The memory of a deployment's edit, in bytes."""

    weights: int
    """The parameters of all stages, in their weight files."""
    resident: int | None
    """Resident memory of the server's process at the end of the edit, whatever it is used for."""
    peak_resident: int | None
    """The most of that while the edit ran, as far as it was seen."""


@dataclass(frozen=True)
class LatentDifference:
    """How latents differ."""

    max: float
    """The largest absolute difference after the last step."""
    mean: float
    """The mean absolute difference after the last step."""
    step_max: tuple[float, ...]
    """The largest absolute difference after each step."""
    parting_step: int | None
    """The first step, from 1, after which the largest difference is above the threshold."""


@dataclass(frozen=True)
class PixelDifference:
    """How edited pictures differ, over all pixels and channels, of values in 0 to 255."""

    max: int
    """The largest absolute difference."""
    mean: float
    """The mean absolute difference."""
    psnr: float
    """Peak signal-to-noise ratio in dB; `math.inf` for equal pictures."""
    ssim: float | None
    """Structural similarity, 1 for equal pictures; `None` for pictures with a side below 11 pixels."""


@dataclass(frozen=True)
class Incomparable:
    """What cannot be compared."""

    reason: str
    """Why not, such as another number of steps."""


@dataclass(frozen=True)
class Difference:
    """How a deployment's edit differs from the first deployment's."""

    latents: LatentDifference | Incomparable
    """Of the latents."""
    pixels: PixelDifference | Incomparable
    """Of the edited pictures, before they are encoded."""


@dataclass(frozen=True)
class Failure:
    """Why a deployment failed."""

    code: int
    """The code of gRPC, such as `grpc.StatusCode.INTERNAL.value[0]`."""
    reason: str
    """The stable name of the reason."""
    message: str
    """The reason in words."""


@dataclass(frozen=True)
class Compared:
    """A deployment's edit, and how it differs from the first deployment's."""

    result: Result
    """The edited picture and how it came about."""
    memory: Memory
    """The memory that it took."""
    difference: Difference | None
    """The difference from the first deployment's edit; `None` for that one itself."""


@dataclass(frozen=True)
class Entry:
    """What one deployment has made of the edit."""

    deployment: str
    """The deployment."""
    outcome: Compared | Failure
    """How it ended."""


CompareEvent: TypeAlias = Started | Progress | Entry
"""What a comparison reports."""


def compare_event_from(message: service_pb2.CompareResponse) -> CompareEvent | None:
    """Give the event in a message; `None` if it is of a kind that only a newer client knows."""
    match message.WhichOneof("event"):
        case "started":
            started = message.started
            return Started(
                started.request_id, tuple(started.deployments), started.seed, started.latent_threshold
            )
        case "progress":
            return _progress_from(message.progress)
        case "entry":
            return _entry_from(message.entry)
        case _:
            return None


def _progress_from(message: compare_pb2.CompareProgressEvent) -> Progress | None:
    kind = message.WhichOneof("event")
    if kind is None:
        return None
    alone = service_pb2.EditStreamResponse()
    getattr(alone, kind).CopyFrom(getattr(message, kind))
    match event_from(alone):
        case (Queued() | StageStarted() | StageFinished() | Step() | Reply()) as event:
            return Progress(message.deployment, event)
        case _:
            return None


def _entry_from(message: compare_pb2.CompareEntry) -> Entry:
    match message.WhichOneof("outcome"):
        case "result":
            return Entry(message.deployment, _compared_from(message.result))
        case "failure":
            failure = message.failure
            return Entry(message.deployment, Failure(failure.code, failure.reason, failure.message))
        case _:
            raise SmartEditError(
                grpc.StatusCode.INTERNAL, f"{message.deployment}: an entry without an outcome"
            )


def _compared_from(message: compare_pb2.CompareResult) -> Compared:
    memory = message.memory
    return Compared(
        result=result_from(message.edit),
        memory=Memory(
            weights=memory.weight_bytes,
            resident=memory.resident_bytes if memory.HasField("resident_bytes") else None,
            peak_resident=memory.peak_resident_bytes if memory.HasField("peak_resident_bytes") else None,
        ),
        difference=_difference_from(message.difference) if message.HasField("difference") else None,
    )


def _difference_from(message: compare_pb2.CompareDifference) -> Difference:
    latents: LatentDifference | Incomparable = Incomparable(message.latents_incomparable)
    pixels: PixelDifference | Incomparable = Incomparable(message.pixels_incomparable)
    if message.WhichOneof("latent_outcome") == "latents":
        found = message.latents
        latents = LatentDifference(
            max=found.max,
            mean=found.mean,
            step_max=tuple(found.step_max),
            parting_step=found.parting_step if found.HasField("parting_step") else None,
        )
    if message.WhichOneof("pixel_outcome") == "pixels":
        seen = message.pixels
        pixels = PixelDifference(
            max=seen.max, mean=seen.mean, psnr=seen.psnr, ssim=seen.ssim if seen.HasField("ssim") else None
        )
    return Difference(latents, pixels)
