"""What an edit can be told."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from typing_extensions import Protocol, TypedDict

from smartedit.v1 import edit_pb2

ResizeMode: TypeAlias = Literal["keep", "stretch", "fit", "crop"]
Scheduler: TypeAlias = Literal["euler_ancestral", "euler", "ddim"]
NoiseSource: TypeAlias = Literal["chacha", "torch"]
ImageTokens: TypeAlias = Literal["forced", "free"]
OutputFormat: TypeAlias = Literal["png", "jpeg", "webp"]
ExifOrientation: TypeAlias = Literal["apply", "ignore"]
AlphaMode: TypeAlias = Literal["white", "drop"]
Priority: TypeAlias = Literal["interactive", "batch"]


class Array(Protocol):
    """A NumPy array, or what behaves like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of every dimension."""

    def astype(self, dtype: str, /) -> Any:
        """Give the elements in another type."""


class EditOptions(TypedDict, total=False):
    """What an edit can be told. What is left out (or `None`) is the deployment's default."""

    seed: int | None
    """Seed of all noise. The same seed, options and deployment give the same picture. Default: random."""
    steps: int | None
    """Denoising steps, 1 or more."""
    text_guidance: float | None
    """Guidance scale of the instruction; higher follows it more closely."""
    image_guidance: float | None
    """Guidance scale of the source picture; higher keeps more of it."""
    resolution: tuple[int, int] | None
    """Width and height at which the picture is edited, multiples of 8."""
    resize_mode: ResizeMode | None
    """How the picture comes to that size. Default: `stretch` where a resolution is given."""
    scheduler: Scheduler | None
    """The sampler."""
    temperature: float | None
    """Temperature at which the language model replies. Default: 0, greedy."""
    template: int | None
    """Index of the prompt template. Default: 0."""
    noise_source: NoiseSource | None
    """The generator that makes noise of the seed; `torch` is PyTorch's on CPU. Default: `chacha`."""
    image_tokens: ImageTokens | None
    """What counts as the image tokens of a reply."""
    negative_prompt: str | None
    """What the picture should not show. InstructPix2Pix models only."""
    preview_interval: int | None
    """After every how many steps a stream shows the picture as it is predicted so far. Default: 0, never."""
    output_format: OutputFormat | None
    """File format of the edited picture. Default: `png`."""
    output_quality: int | None
    """Quality of JPEG output, 1 to 100. Default: 90."""
    keep_on_disconnect: bool | None
    """Whether the work goes on when the caller disconnects, cancels or passes its deadline. Default: no."""
    exif_orientation: ExifOrientation | None
    """What is made of the source's EXIF orientation. Default: `apply`."""
    alpha_mode: AlphaMode | None
    """What is made of the source's transparency. Default: laid over `white`."""
    control_tokens: bool | None
    """Whether control tokens spelled out in the instruction act as such. Default: no."""
    no_cache: bool | None
    """Whether every stage is computed, though its result be kept from an earlier request. Default: no."""
    priority: Priority | None
    """How urgent the edit is; a `batch` takes what `interactive` edits leave. Default: `interactive`."""
    caller: str | None
    """On whose account the edit is made; callers have equal shares. Default: the host that it comes from."""
    adapter: str | None
    """The LoRA adapter; `none` is no adapter. Default: the deployment's default one."""
    adapter_scale: float | None
    """How strong the adapter is, 1 as it was trained. Default: as the deployment says."""
    route_key: str | None
    """What keeps edits on one deployment of a route. Default: any of the route's deployments."""
    initial_latents: Array | None
    """Noise of unit variance to start from, `[1, 4, height / 8, width / 8]`, instead of the seed's."""
    step_noise: Sequence[Array] | None
    """Noise of unit variance for each step, of the same shape, instead of the seed's."""


_ENUMS: Mapping[str, EnumTypeWrapper] = {
    "resize_mode": edit_pb2.ResizeMode,
    "scheduler": edit_pb2.Scheduler,
    "noise_source": edit_pb2.NoiseSource,
    "image_tokens": edit_pb2.ImageTokens,
    "output_format": edit_pb2.OutputFormat,
    "exif_orientation": edit_pb2.ExifOrientation,
    "alpha_mode": edit_pb2.AlphaMode,
    "priority": edit_pb2.Priority,
}


def to_message(options: EditOptions) -> edit_pb2.EditOptions:
    """Give the message for options; a `TypeError` or `ValueError` names an option that cannot be sent."""
    message = edit_pb2.EditOptions()
    for name, value in options.items():
        if name not in EditOptions.__annotations__:
            raise TypeError(f"there is no option {name!r}")
        if value is None:
            continue
        try:
            _set(message, name, value)
        except (AttributeError, TypeError, ValueError) as error:
            raise type(error)(f"option {name!r}: {error}") from error
    return message


def _set(message: edit_pb2.EditOptions, name: str, value: Any) -> None:
    if name in _ENUMS:
        setattr(message, name, _enum_value(_ENUMS[name], name, value))
    elif name == "resolution":
        message.resolution.width, message.resolution.height = value
    elif name == "initial_latents":
        message.replay.initial_latents.CopyFrom(_tensor(value))
    elif name == "step_noise":
        message.replay.step_noise.extend(_tensor(noise) for noise in value)
    else:
        setattr(message, name, value)


def _enum_value(enum: EnumTypeWrapper, name: str, value: str) -> int:
    prefix = f"{name.upper()}_"
    choices = {key.removeprefix(prefix).lower(): number for key, number in enum.items() if number != 0}
    if value not in choices:
        raise ValueError(f"{value!r} is none of {', '.join(choices)}")
    return choices[value]


def _tensor(array: Array) -> edit_pb2.Tensor:
    return edit_pb2.Tensor(shape=array.shape, data=array.astype("<f4").tobytes())
