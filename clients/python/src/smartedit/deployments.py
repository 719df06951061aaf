"""What a server has deployed."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from smartedit.events import stage_name
from smartedit.v1 import adapter_pb2, deployment_pb2, edit_pb2

DeploymentState: TypeAlias = Literal["unspecified", "loading", "ready", "failed"]
Pipeline: TypeAlias = Literal["unspecified", "smart_edit", "instruct_pix2pix"]


@dataclass(frozen=True)
class UnavailablePlacement:
    """What was to compute a stage and could not be had."""

    engine: str
    """The engine."""
    device: str
    """The device."""
    precision: str
    """Element type of weights and activations."""
    providers: tuple[str, ...]
    """The execution providers asked for, in order of preference."""
    reason: str
    """Why it could not be had, and what to do."""


@dataclass(frozen=True)
class StageInfo:
    """A stage and what computes it."""

    stage: str
    """The stage, such as `denoiser`."""
    engine: str
    """The engine: `candle`, `torch` or `onnx`."""
    device: str
    """The device that really computes it."""
    precision: str
    """Element type of weights and activations."""
    weight_bytes: int
    """Bytes of the stage's parameters."""
    provider: str | None
    """The execution provider that really computes it; `None` on engines that have none."""
    threads: int | None
    """Threads that compute it; `None`: as many as the engine takes by itself."""
    unavailable: tuple[UnavailablePlacement, ...]
    """What was to compute it and could not be had; empty if it is computed as configured."""


@dataclass(frozen=True)
class EditDefaults:
    """What a request gets that does not say otherwise."""

    steps: int
    """Denoising steps."""
    text_guidance: float
    """Guidance scale of the instruction."""
    image_guidance: float
    """Guidance scale of the source picture."""
    resolution: tuple[int, int] | None
    """Width and height at which pictures are edited; `None` if their own."""
    scheduler: str
    """The sampler."""


@dataclass(frozen=True)
class EditLimits:
    """What a request may ask for."""

    max_image_bytes: int
    """Size of the source file."""
    max_image_pixels: int
    """Width times height of the source picture."""
    max_edit_pixels: int
    """Width times height at which a picture is edited."""
    max_edit_side: int
    """Longer side at which a picture is edited, in pixels."""
    max_steps: int
    """Denoising steps."""
    max_instruction_chars: int
    """Characters of an instruction."""
    max_queue: int
    """Requests waiting."""
    max_compared: int
    """Deployments in a comparison."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter of a deployment."""

    name: str
    """The name that requests choose it by."""
    is_default: bool
    """Whether it is merged into the weights: requests that choose none have it."""
    scale: float
    """How strong it is where a request does not say: 1 as it was trained."""
    rank: int
    """The largest rank of its updates."""
    bytes: int
    """Bytes of its factors."""
    stages: tuple[tuple[str, int], ...]
    """The stages that it updates, and how many layers of each."""


@dataclass(frozen=True)
class Deployment:
    """A model and the engines that compute its stages, under a name."""

    name: str
    """The name that requests choose it by."""
    version: int
    """The version: 1 for the first that was loaded under the name, and so on."""
    is_current: bool
    """Whether requests that name the deployment without a version get this one."""
    is_default: bool
    """Whether requests that name no deployment get this one."""
    state: DeploymentState
    """Whether it can be used."""
    message: str
    """Why it failed."""
    accepting: bool
    """Whether a request sent now would be taken."""
    queued: int
    """Requests waiting."""
    running: int
    """Requests being worked on."""
    model: str
    """The model's name."""
    pipeline: Pipeline
    """How the model's stages are composed."""
    stages: tuple[StageInfo, ...]
    """The stages, in the order in which an edit meets them."""
    defaults: EditDefaults
    """What a request gets that does not say otherwise."""
    limits: EditLimits
    """What a request may ask for."""
    templates: int
    """Prompt templates to choose from."""
    max_batch: int
    """Edits that share a run of the denoiser, at most; 0 unless ready."""
    adapters: tuple[Adapter, ...]
    """LoRA adapters that requests may choose; empty unless ready."""


def deployment_from(message: deployment_pb2.Deployment) -> Deployment:
    """Give the deployment in a message."""
    state = _name(deployment_pb2.DeploymentState, "DEPLOYMENT_STATE_", message.state)
    pipeline = _name(deployment_pb2.Pipeline, "PIPELINE_", message.pipeline)
    return Deployment(
        name=message.name,
        version=message.version,
        is_current=message.is_current,
        is_default=message.is_default,
        state=cast(DeploymentState, state if state in get_args(DeploymentState) else "unspecified"),
        message=message.message,
        accepting=message.accepting,
        queued=message.queued,
        running=message.running,
        model=message.model,
        pipeline=cast(Pipeline, pipeline if pipeline in get_args(Pipeline) else "unspecified"),
        stages=tuple(_stage_from(stage) for stage in message.stages),
        defaults=_defaults_from(message.defaults),
        limits=EditLimits(
            **{field: getattr(message.limits, field) for field in EditLimits.__dataclass_fields__}
        ),
        templates=message.templates,
        max_batch=message.max_batch,
        adapters=tuple(_adapter_from(adapter) for adapter in message.adapters),
    )


def _adapter_from(message: adapter_pb2.Adapter) -> Adapter:
    return Adapter(
        name=message.name,
        is_default=message.is_default,
        scale=message.scale,
        rank=message.rank,
        bytes=message.bytes,
        stages=tuple((stage_name(adapted.stage), adapted.layers) for adapted in message.stages),
    )


def _stage_from(message: deployment_pb2.DeployedStage) -> StageInfo:
    return StageInfo(
        stage=stage_name(message.stage),
        engine=message.engine,
        device=message.device,
        precision=message.precision,
        weight_bytes=message.weight_bytes,
        provider=message.provider or None,
        threads=message.threads if message.HasField("threads") else None,
        unavailable=tuple(
            UnavailablePlacement(
                missed.engine, missed.device, missed.precision, tuple(missed.providers), missed.reason
            )
            for missed in message.unavailable
        ),
    )


def _defaults_from(message: deployment_pb2.EditDefaults) -> EditDefaults:
    resolution = None
    if message.HasField("resolution"):
        resolution = (message.resolution.width, message.resolution.height)
    return EditDefaults(
        steps=message.steps,
        text_guidance=message.text_guidance,
        image_guidance=message.image_guidance,
        resolution=resolution,
        scheduler=_name(edit_pb2.Scheduler, "SCHEDULER_", message.scheduler),
    )


def _name(enum: EnumTypeWrapper, prefix: str, value: int) -> str:
    if value in enum.values():
        return str(enum.Name(value)).removeprefix(prefix).lower()
    return str(value)
