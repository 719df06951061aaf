from smartedit.v1 import adapter_pb2 as _adapter_pb2
from smartedit.v1 import edit_pb2 as _edit_pb2
from smartedit.v1 import stage_pb2 as _stage_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeploymentState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEPLOYMENT_STATE_UNSPECIFIED: _ClassVar[DeploymentState]
    DEPLOYMENT_STATE_LOADING: _ClassVar[DeploymentState]
    DEPLOYMENT_STATE_READY: _ClassVar[DeploymentState]
    DEPLOYMENT_STATE_FAILED: _ClassVar[DeploymentState]

class Pipeline(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PIPELINE_UNSPECIFIED: _ClassVar[Pipeline]
    PIPELINE_SMART_EDIT: _ClassVar[Pipeline]
    PIPELINE_INSTRUCT_PIX2PIX: _ClassVar[Pipeline]
DEPLOYMENT_STATE_UNSPECIFIED: DeploymentState
DEPLOYMENT_STATE_LOADING: DeploymentState
DEPLOYMENT_STATE_READY: DeploymentState
DEPLOYMENT_STATE_FAILED: DeploymentState
PIPELINE_UNSPECIFIED: Pipeline
PIPELINE_SMART_EDIT: Pipeline
PIPELINE_INSTRUCT_PIX2PIX: Pipeline

class Deployment(_message.Message):
    __slots__ = ("name", "is_default", "state", "message", "accepting", "queued", "running", "model", "pipeline", "stages", "defaults", "limits", "templates", "max_batch", "version", "is_current", "adapters")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTING_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IS_CURRENT_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    is_default: bool
    state: DeploymentState
    message: str
    accepting: bool
    queued: int
    running: int
    model: str
    pipeline: Pipeline
    stages: _containers.RepeatedCompositeFieldContainer[DeployedStage]
    defaults: EditDefaults
    limits: EditLimits
    templates: int
    max_batch: int
    version: int
    is_current: bool
    adapters: _containers.RepeatedCompositeFieldContainer[_adapter_pb2.Adapter]
    def __init__(self, name: _Optional[str] = ..., is_default: bool = ..., state: _Optional[_Union[DeploymentState, str]] = ..., message: _Optional[str] = ..., accepting: bool = ..., queued: _Optional[int] = ..., running: _Optional[int] = ..., model: _Optional[str] = ..., pipeline: _Optional[_Union[Pipeline, str]] = ..., stages: _Optional[_Iterable[_Union[DeployedStage, _Mapping]]] = ..., defaults: _Optional[_Union[EditDefaults, _Mapping]] = ..., limits: _Optional[_Union[EditLimits, _Mapping]] = ..., templates: _Optional[int] = ..., max_batch: _Optional[int] = ..., version: _Optional[int] = ..., is_current: bool = ..., adapters: _Optional[_Iterable[_Union[_adapter_pb2.Adapter, _Mapping]]] = ...) -> None: ...

class DeployedStage(_message.Message):
    __slots__ = ("stage", "engine", "device", "precision", "weight_bytes", "provider", "threads", "unavailable")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    stage: _stage_pb2.Stage
    engine: str
    device: str
    precision: str
    weight_bytes: int
    provider: str
    threads: int
    unavailable: _containers.RepeatedCompositeFieldContainer[UnavailablePlacement]
    def __init__(self, stage: _Optional[_Union[_stage_pb2.Stage, str]] = ..., engine: _Optional[str] = ..., device: _Optional[str] = ..., precision: _Optional[str] = ..., weight_bytes: _Optional[int] = ..., provider: _Optional[str] = ..., threads: _Optional[int] = ..., unavailable: _Optional[_Iterable[_Union[UnavailablePlacement, _Mapping]]] = ...) -> None: ...

class UnavailablePlacement(_message.Message):
    __slots__ = ("engine", "device", "precision", "providers", "reason")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    PROVIDERS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    engine: str
    device: str
    precision: str
    providers: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    def __init__(self, engine: _Optional[str] = ..., device: _Optional[str] = ..., precision: _Optional[str] = ..., providers: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ...) -> None: ...

class EditDefaults(_message.Message):
    __slots__ = ("steps", "text_guidance", "image_guidance", "resolution", "scheduler")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TEXT_GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    steps: int
    text_guidance: float
    image_guidance: float
    resolution: _edit_pb2.Resolution
    scheduler: _edit_pb2.Scheduler
    def __init__(self, steps: _Optional[int] = ..., text_guidance: _Optional[float] = ..., image_guidance: _Optional[float] = ..., resolution: _Optional[_Union[_edit_pb2.Resolution, _Mapping]] = ..., scheduler: _Optional[_Union[_edit_pb2.Scheduler, str]] = ...) -> None: ...

class EditLimits(_message.Message):
    __slots__ = ("max_image_bytes", "max_image_pixels", "max_edit_pixels", "max_edit_side", "max_steps", "max_instruction_chars", "max_queue", "max_compared")
    MAX_IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_EDIT_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_EDIT_SIDE_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_INSTRUCTION_CHARS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_FIELD_NUMBER: _ClassVar[int]
    MAX_COMPARED_FIELD_NUMBER: _ClassVar[int]
    max_image_bytes: int
    max_image_pixels: int
    max_edit_pixels: int
    max_edit_side: int
    max_steps: int
    max_instruction_chars: int
    max_queue: int
    max_compared: int
    def __init__(self, max_image_bytes: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., max_edit_pixels: _Optional[int] = ..., max_edit_side: _Optional[int] = ..., max_steps: _Optional[int] = ..., max_instruction_chars: _Optional[int] = ..., max_queue: _Optional[int] = ..., max_compared: _Optional[int] = ...) -> None: ...
