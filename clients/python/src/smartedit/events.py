"""What a stream reports, the result last. Durations are in seconds."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration
from PIL import Image

from smartedit.v1 import edit_pb2, event_pb2, service_pb2, stage_pb2


@dataclass(frozen=True)
class Accepted:
    """The request is valid and will be worked on."""

    request_id: str
    """The request's identifier, as in the server's log."""
    deployment: str
    """The deployment that makes the edit."""
    seed: int
    """The seed that is used."""


@dataclass(frozen=True)
class Queued:
    """The request waits for a worker."""

    position: int
    """How many requests are ahead of it."""


@dataclass(frozen=True)
class StageStarted:
    """A stage begins."""

    stage: str
    """The stage, such as `denoiser`."""
    elapsed: float
    """Time since the request's arrival."""


@dataclass(frozen=True)
class StageFinished:
    """A stage has done all it had to."""

    stage: str
    """The stage, such as `denoiser`."""
    duration: float
    """How long it took."""
    elapsed: float
    """Time since the request's arrival."""
    cached: bool
    """Whether its result was kept from an earlier request, so that it has not run."""


@dataclass(frozen=True)
class Preview:
    """A picture as it is predicted in the middle of the denoising loop."""

    data: bytes
    """A whole file."""
    mime_type: str
    """The file's media type."""
    step: int
    """The step after which it was taken, from 1."""

    @cached_property
    def image(self) -> Image.Image:
        """The picture."""
        return _decode(self.data)


@dataclass(frozen=True)
class Step:
    """A denoising step is done."""

    index: int
    """Steps done, from 1."""
    total: int
    """Steps in all."""
    preview: Preview | None
    """The most recent preview since the last event of this kind, if there was one."""


@dataclass(frozen=True)
class Reply:
    """The language model has replied."""

    text: str
    """The reply without its image tokens."""


@dataclass(frozen=True)
class Timings:
    """How long an edit took."""

    total: float
    """From the request's arrival to the encoded result."""
    queued: float
    """Waiting to be begun."""
    image_decoding: float
    """Decoding the source file."""
    stages: Mapping[str, float]
    """Every stage, in the order in which they first ran."""
    image_encoding: float
    """Encoding the edited picture."""
    cached: frozenset[str]
    """The stages whose result was kept from an earlier request, so that they have not run."""
    mean_batch: float
    """Edits that shared its runs of the denoiser, itself included, in the mean over its steps."""


@dataclass(frozen=True)
class Result:
    """An edited picture and how it came about."""

    data: bytes
    """The edited picture: a whole file of the format asked for."""
    mime_type: str
    """The file's media type."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    seed: int
    """The seed that was used."""
    deployment: str
    """The deployment that made the edit."""
    reply: str | None
    """The language model's reply without its image tokens; `None` where no language model takes part."""
    timings: Timings
    """How long it took."""
    request_id: str
    """The request's identifier, as in the server's log."""
    deployment_version: int
    """The version of the deployment."""

    @cached_property
    def image(self) -> Image.Image:
        """The edited picture."""
        return _decode(self.data)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file as the server made it, whatever the path's extension says."""
        Path(path).write_bytes(self.data)


Event: TypeAlias = Accepted | Queued | StageStarted | StageFinished | Step | Reply | Result
"""What a stream reports."""


def stage_name(stage: stage_pb2.Stage) -> str:
    """Give a stage's name as in the server's configuration; a newer server's unknown stage is its number."""
    if stage in stage_pb2.Stage.values():
        return stage_pb2.Stage.Name(stage).removeprefix("STAGE_").lower()
    return str(int(stage))


def result_from(message: edit_pb2.EditResult) -> Result:
    """Give the result in a message."""
    timings = message.timings
    return Result(
        data=message.image,
        mime_type=message.mime_type,
        width=message.width,
        height=message.height,
        seed=message.seed,
        deployment=message.deployment,
        reply=message.reply if message.HasField("reply") else None,
        timings=Timings(
            total=_seconds(timings.total),
            queued=_seconds(timings.queued),
            image_decoding=_seconds(timings.image_decoding),
            stages={stage_name(timing.stage): _seconds(timing.duration) for timing in timings.stages},
            image_encoding=_seconds(timings.image_encoding),
            cached=frozenset(stage_name(timing.stage) for timing in timings.stages if timing.cached),
            mean_batch=timings.mean_batch,
        ),
        request_id=message.request_id,
        deployment_version=message.deployment_version,
    )


def event_from(message: service_pb2.EditStreamResponse) -> Event | None:
    """Give the event in a message; `None` if it is of a kind that only a newer client knows."""
    match message.WhichOneof("event"):
        case "accepted":
            accepted = message.accepted
            return Accepted(accepted.request_id, accepted.deployment, accepted.seed)
        case "queued":
            return Queued(message.queued.position)
        case "stage_started":
            started = message.stage_started
            return StageStarted(stage_name(started.stage), _seconds(started.elapsed))
        case "stage_finished":
            finished = message.stage_finished
            return StageFinished(
                stage_name(finished.stage),
                _seconds(finished.duration),
                _seconds(finished.elapsed),
                finished.cached,
            )
        case "step":
            return _step_from(message.step)
        case "reply":
            return Reply(message.reply.text)
        case "result":
            return result_from(message.result)
        case _:
            return None


def _step_from(message: event_pb2.StepEvent) -> Step:
    preview = None
    if message.HasField("preview"):
        preview = Preview(message.preview.image, message.preview.mime_type, message.preview.step)
    return Step(message.index, message.total, preview)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos * 1e-9


def _decode(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
