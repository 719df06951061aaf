from smartedit.v1 import edit_pb2 as _edit_pb2
from smartedit.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CompareStartedEvent(_message.Message):
    __slots__ = ("request_id", "deployments", "seed", "latent_threshold")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    LATENT_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    deployments: _containers.RepeatedScalarFieldContainer[str]
    seed: int
    latent_threshold: float
    def __init__(self, request_id: _Optional[str] = ..., deployments: _Optional[_Iterable[str]] = ..., seed: _Optional[int] = ..., latent_threshold: _Optional[float] = ...) -> None: ...

class CompareProgressEvent(_message.Message):
    __slots__ = ("deployment", "queued", "stage_started", "stage_finished", "step", "reply")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    STAGE_STARTED_FIELD_NUMBER: _ClassVar[int]
    STAGE_FINISHED_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    queued: _event_pb2.QueuedEvent
    stage_started: _event_pb2.StageStartedEvent
    stage_finished: _event_pb2.StageFinishedEvent
    step: _event_pb2.StepEvent
    reply: _event_pb2.ReplyEvent
    def __init__(self, deployment: _Optional[str] = ..., queued: _Optional[_Union[_event_pb2.QueuedEvent, _Mapping]] = ..., stage_started: _Optional[_Union[_event_pb2.StageStartedEvent, _Mapping]] = ..., stage_finished: _Optional[_Union[_event_pb2.StageFinishedEvent, _Mapping]] = ..., step: _Optional[_Union[_event_pb2.StepEvent, _Mapping]] = ..., reply: _Optional[_Union[_event_pb2.ReplyEvent, _Mapping]] = ...) -> None: ...

class CompareEntry(_message.Message):
    __slots__ = ("deployment", "result", "failure")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    result: CompareResult
    failure: CompareFailure
    def __init__(self, deployment: _Optional[str] = ..., result: _Optional[_Union[CompareResult, _Mapping]] = ..., failure: _Optional[_Union[CompareFailure, _Mapping]] = ...) -> None: ...

class CompareResult(_message.Message):
    __slots__ = ("edit", "memory", "difference")
    EDIT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    edit: _edit_pb2.EditResult
    memory: CompareMemory
    difference: CompareDifference
    def __init__(self, edit: _Optional[_Union[_edit_pb2.EditResult, _Mapping]] = ..., memory: _Optional[_Union[CompareMemory, _Mapping]] = ..., difference: _Optional[_Union[CompareDifference, _Mapping]] = ...) -> None: ...

class CompareFailure(_message.Message):
    __slots__ = ("code", "reason", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class CompareMemory(_message.Message):
    __slots__ = ("weight_bytes", "resident_bytes", "peak_resident_bytes")
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    weight_bytes: int
    resident_bytes: int
    peak_resident_bytes: int
    def __init__(self, weight_bytes: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., peak_resident_bytes: _Optional[int] = ...) -> None: ...

class CompareDifference(_message.Message):
    __slots__ = ("latents", "latents_incomparable", "pixels", "pixels_incomparable")
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    LATENTS_INCOMPARABLE_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    PIXELS_INCOMPARABLE_FIELD_NUMBER: _ClassVar[int]
    latents: LatentDifference
    latents_incomparable: str
    pixels: PixelDifference
    pixels_incomparable: str
    def __init__(self, latents: _Optional[_Union[LatentDifference, _Mapping]] = ..., latents_incomparable: _Optional[str] = ..., pixels: _Optional[_Union[PixelDifference, _Mapping]] = ..., pixels_incomparable: _Optional[str] = ...) -> None: ...

class LatentDifference(_message.Message):
    __slots__ = ("max", "mean", "step_max", "parting_step")
    MAX_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STEP_MAX_FIELD_NUMBER: _ClassVar[int]
    PARTING_STEP_FIELD_NUMBER: _ClassVar[int]
    max: float
    mean: float
    step_max: _containers.RepeatedScalarFieldContainer[float]
    parting_step: int
    def __init__(self, max: _Optional[float] = ..., mean: _Optional[float] = ..., step_max: _Optional[_Iterable[float]] = ..., parting_step: _Optional[int] = ...) -> None: ...

class PixelDifference(_message.Message):
    __slots__ = ("max", "mean", "psnr", "ssim")
    MAX_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    PSNR_FIELD_NUMBER: _ClassVar[int]
    SSIM_FIELD_NUMBER: _ClassVar[int]
    max: int
    mean: float
    psnr: float
    ssim: float
    def __init__(self, max: _Optional[int] = ..., mean: _Optional[float] = ..., psnr: _Optional[float] = ..., ssim: _Optional[float] = ...) -> None: ...
