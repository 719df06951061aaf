import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from smartedit.v1 import stage_pb2 as _stage_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ResizeMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESIZE_MODE_UNSPECIFIED: _ClassVar[ResizeMode]
    RESIZE_MODE_KEEP: _ClassVar[ResizeMode]
    RESIZE_MODE_STRETCH: _ClassVar[ResizeMode]
    RESIZE_MODE_FIT: _ClassVar[ResizeMode]
    RESIZE_MODE_CROP: _ClassVar[ResizeMode]

class Scheduler(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCHEDULER_UNSPECIFIED: _ClassVar[Scheduler]
    SCHEDULER_EULER_ANCESTRAL: _ClassVar[Scheduler]
    SCHEDULER_EULER: _ClassVar[Scheduler]
    SCHEDULER_DDIM: _ClassVar[Scheduler]

class ImageTokens(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_TOKENS_UNSPECIFIED: _ClassVar[ImageTokens]
    IMAGE_TOKENS_FORCED: _ClassVar[ImageTokens]
    IMAGE_TOKENS_FREE: _ClassVar[ImageTokens]

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_INTERACTIVE: _ClassVar[Priority]
    PRIORITY_BATCH: _ClassVar[Priority]

class NoiseSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOISE_SOURCE_UNSPECIFIED: _ClassVar[NoiseSource]
    NOISE_SOURCE_CHACHA: _ClassVar[NoiseSource]
    NOISE_SOURCE_TORCH: _ClassVar[NoiseSource]

class OutputFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTPUT_FORMAT_UNSPECIFIED: _ClassVar[OutputFormat]
    OUTPUT_FORMAT_PNG: _ClassVar[OutputFormat]
    OUTPUT_FORMAT_JPEG: _ClassVar[OutputFormat]
    OUTPUT_FORMAT_WEBP: _ClassVar[OutputFormat]

class ExifOrientation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXIF_ORIENTATION_UNSPECIFIED: _ClassVar[ExifOrientation]
    EXIF_ORIENTATION_APPLY: _ClassVar[ExifOrientation]
    EXIF_ORIENTATION_IGNORE: _ClassVar[ExifOrientation]

class AlphaMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALPHA_MODE_UNSPECIFIED: _ClassVar[AlphaMode]
    ALPHA_MODE_WHITE: _ClassVar[AlphaMode]
    ALPHA_MODE_DROP: _ClassVar[AlphaMode]
RESIZE_MODE_UNSPECIFIED: ResizeMode
RESIZE_MODE_KEEP: ResizeMode
RESIZE_MODE_STRETCH: ResizeMode
RESIZE_MODE_FIT: ResizeMode
RESIZE_MODE_CROP: ResizeMode
SCHEDULER_UNSPECIFIED: Scheduler
SCHEDULER_EULER_ANCESTRAL: Scheduler
SCHEDULER_EULER: Scheduler
SCHEDULER_DDIM: Scheduler
IMAGE_TOKENS_UNSPECIFIED: ImageTokens
IMAGE_TOKENS_FORCED: ImageTokens
IMAGE_TOKENS_FREE: ImageTokens
PRIORITY_UNSPECIFIED: Priority
PRIORITY_INTERACTIVE: Priority
PRIORITY_BATCH: Priority
NOISE_SOURCE_UNSPECIFIED: NoiseSource
NOISE_SOURCE_CHACHA: NoiseSource
NOISE_SOURCE_TORCH: NoiseSource
OUTPUT_FORMAT_UNSPECIFIED: OutputFormat
OUTPUT_FORMAT_PNG: OutputFormat
OUTPUT_FORMAT_JPEG: OutputFormat
OUTPUT_FORMAT_WEBP: OutputFormat
EXIF_ORIENTATION_UNSPECIFIED: ExifOrientation
EXIF_ORIENTATION_APPLY: ExifOrientation
EXIF_ORIENTATION_IGNORE: ExifOrientation
ALPHA_MODE_UNSPECIFIED: AlphaMode
ALPHA_MODE_WHITE: AlphaMode
ALPHA_MODE_DROP: AlphaMode

class EditOptions(_message.Message):
    __slots__ = ("seed", "steps", "text_guidance", "image_guidance", "resolution", "resize_mode", "scheduler", "temperature", "template", "image_tokens", "negative_prompt", "preview_interval", "output_format", "output_quality", "keep_on_disconnect", "exif_orientation", "alpha_mode", "control_tokens", "replay", "noise_source", "no_cache", "priority", "caller", "adapter", "adapter_scale", "route_key")
    SEED_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TEXT_GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    RESIZE_MODE_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_QUALITY_FIELD_NUMBER: _ClassVar[int]
    KEEP_ON_DISCONNECT_FIELD_NUMBER: _ClassVar[int]
    EXIF_ORIENTATION_FIELD_NUMBER: _ClassVar[int]
    ALPHA_MODE_FIELD_NUMBER: _ClassVar[int]
    CONTROL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FIELD_NUMBER: _ClassVar[int]
    NOISE_SOURCE_FIELD_NUMBER: _ClassVar[int]
    NO_CACHE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_SCALE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_KEY_FIELD_NUMBER: _ClassVar[int]
    seed: int
    steps: int
    text_guidance: float
    image_guidance: float
    resolution: Resolution
    resize_mode: ResizeMode
    scheduler: Scheduler
    temperature: float
    template: int
    image_tokens: ImageTokens
    negative_prompt: str
    preview_interval: int
    output_format: OutputFormat
    output_quality: int
    keep_on_disconnect: bool
    exif_orientation: ExifOrientation
    alpha_mode: AlphaMode
    control_tokens: bool
    replay: Replay
    noise_source: NoiseSource
    no_cache: bool
    priority: Priority
    caller: str
    adapter: str
    adapter_scale: float
    route_key: str
    def __init__(self, seed: _Optional[int] = ..., steps: _Optional[int] = ..., text_guidance: _Optional[float] = ..., image_guidance: _Optional[float] = ..., resolution: _Optional[_Union[Resolution, _Mapping]] = ..., resize_mode: _Optional[_Union[ResizeMode, str]] = ..., scheduler: _Optional[_Union[Scheduler, str]] = ..., temperature: _Optional[float] = ..., template: _Optional[int] = ..., image_tokens: _Optional[_Union[ImageTokens, str]] = ..., negative_prompt: _Optional[str] = ..., preview_interval: _Optional[int] = ..., output_format: _Optional[_Union[OutputFormat, str]] = ..., output_quality: _Optional[int] = ..., keep_on_disconnect: bool = ..., exif_orientation: _Optional[_Union[ExifOrientation, str]] = ..., alpha_mode: _Optional[_Union[AlphaMode, str]] = ..., control_tokens: bool = ..., replay: _Optional[_Union[Replay, _Mapping]] = ..., noise_source: _Optional[_Union[NoiseSource, str]] = ..., no_cache: bool = ..., priority: _Optional[_Union[Priority, str]] = ..., caller: _Optional[str] = ..., adapter: _Optional[str] = ..., adapter_scale: _Optional[float] = ..., route_key: _Optional[str] = ...) -> None: ...

class Resolution(_message.Message):
    __slots__ = ("width", "height")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class Replay(_message.Message):
    __slots__ = ("initial_latents", "step_noise")
    INITIAL_LATENTS_FIELD_NUMBER: _ClassVar[int]
    STEP_NOISE_FIELD_NUMBER: _ClassVar[int]
    initial_latents: Tensor
    step_noise: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, initial_latents: _Optional[_Union[Tensor, _Mapping]] = ..., step_noise: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("shape", "data")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class EditResult(_message.Message):
    __slots__ = ("image", "mime_type", "width", "height", "seed", "deployment", "reply", "timings", "request_id", "deployment_version")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MIME_TYPE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    mime_type: str
    width: int
    height: int
    seed: int
    deployment: str
    reply: str
    timings: EditTimings
    request_id: str
    deployment_version: int
    def __init__(self, image: _Optional[bytes] = ..., mime_type: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., seed: _Optional[int] = ..., deployment: _Optional[str] = ..., reply: _Optional[str] = ..., timings: _Optional[_Union[EditTimings, _Mapping]] = ..., request_id: _Optional[str] = ..., deployment_version: _Optional[int] = ...) -> None: ...

class EditTimings(_message.Message):
    __slots__ = ("total", "queued", "image_decoding", "stages", "image_encoding", "mean_batch")
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    IMAGE_DECODING_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ENCODING_FIELD_NUMBER: _ClassVar[int]
    MEAN_BATCH_FIELD_NUMBER: _ClassVar[int]
    total: _duration_pb2.Duration
    queued: _duration_pb2.Duration
    image_decoding: _duration_pb2.Duration
    stages: _containers.RepeatedCompositeFieldContainer[StageTiming]
    image_encoding: _duration_pb2.Duration
    mean_batch: float
    def __init__(self, total: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., queued: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., image_decoding: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., stages: _Optional[_Iterable[_Union[StageTiming, _Mapping]]] = ..., image_encoding: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., mean_batch: _Optional[float] = ...) -> None: ...

class StageTiming(_message.Message):
    __slots__ = ("stage", "duration", "cached")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    stage: _stage_pb2.Stage
    duration: _duration_pb2.Duration
    cached: bool
    def __init__(self, stage: _Optional[_Union[_stage_pb2.Stage, str]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., cached: bool = ...) -> None: ...
