from smartedit.v1 import compare_pb2 as _compare_pb2
from smartedit.v1 import deployment_pb2 as _deployment_pb2
from smartedit.v1 import edit_pb2 as _edit_pb2
from smartedit.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EditRequest(_message.Message):
    __slots__ = ("image", "instruction", "deployment", "options")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    instruction: str
    deployment: str
    options: _edit_pb2.EditOptions
    def __init__(self, image: _Optional[bytes] = ..., instruction: _Optional[str] = ..., deployment: _Optional[str] = ..., options: _Optional[_Union[_edit_pb2.EditOptions, _Mapping]] = ...) -> None: ...

class EditResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: _edit_pb2.EditResult
    def __init__(self, result: _Optional[_Union[_edit_pb2.EditResult, _Mapping]] = ...) -> None: ...

class EditStreamRequest(_message.Message):
    __slots__ = ("image", "instruction", "deployment", "options")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    instruction: str
    deployment: str
    options: _edit_pb2.EditOptions
    def __init__(self, image: _Optional[bytes] = ..., instruction: _Optional[str] = ..., deployment: _Optional[str] = ..., options: _Optional[_Union[_edit_pb2.EditOptions, _Mapping]] = ...) -> None: ...

class EditStreamResponse(_message.Message):
    __slots__ = ("accepted", "queued", "stage_started", "stage_finished", "step", "reply", "result")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    STAGE_STARTED_FIELD_NUMBER: _ClassVar[int]
    STAGE_FINISHED_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    accepted: _event_pb2.AcceptedEvent
    queued: _event_pb2.QueuedEvent
    stage_started: _event_pb2.StageStartedEvent
    stage_finished: _event_pb2.StageFinishedEvent
    step: _event_pb2.StepEvent
    reply: _event_pb2.ReplyEvent
    result: _edit_pb2.EditResult
    def __init__(self, accepted: _Optional[_Union[_event_pb2.AcceptedEvent, _Mapping]] = ..., queued: _Optional[_Union[_event_pb2.QueuedEvent, _Mapping]] = ..., stage_started: _Optional[_Union[_event_pb2.StageStartedEvent, _Mapping]] = ..., stage_finished: _Optional[_Union[_event_pb2.StageFinishedEvent, _Mapping]] = ..., step: _Optional[_Union[_event_pb2.StepEvent, _Mapping]] = ..., reply: _Optional[_Union[_event_pb2.ReplyEvent, _Mapping]] = ..., result: _Optional[_Union[_edit_pb2.EditResult, _Mapping]] = ...) -> None: ...

class CompareRequest(_message.Message):
    __slots__ = ("image", "instruction", "deployments", "options", "latent_threshold")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    LATENT_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    instruction: str
    deployments: _containers.RepeatedScalarFieldContainer[str]
    options: _edit_pb2.EditOptions
    latent_threshold: float
    def __init__(self, image: _Optional[bytes] = ..., instruction: _Optional[str] = ..., deployments: _Optional[_Iterable[str]] = ..., options: _Optional[_Union[_edit_pb2.EditOptions, _Mapping]] = ..., latent_threshold: _Optional[float] = ...) -> None: ...

class CompareResponse(_message.Message):
    __slots__ = ("started", "progress", "entry")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    started: _compare_pb2.CompareStartedEvent
    progress: _compare_pb2.CompareProgressEvent
    entry: _compare_pb2.CompareEntry
    def __init__(self, started: _Optional[_Union[_compare_pb2.CompareStartedEvent, _Mapping]] = ..., progress: _Optional[_Union[_compare_pb2.CompareProgressEvent, _Mapping]] = ..., entry: _Optional[_Union[_compare_pb2.CompareEntry, _Mapping]] = ...) -> None: ...

class ListDeploymentsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDeploymentsResponse(_message.Message):
    __slots__ = ("deployments",)
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    deployments: _containers.RepeatedCompositeFieldContainer[_deployment_pb2.Deployment]
    def __init__(self, deployments: _Optional[_Iterable[_Union[_deployment_pb2.Deployment, _Mapping]]] = ...) -> None: ...

class GetDeploymentRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetDeploymentResponse(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: _deployment_pb2.Deployment
    def __init__(self, deployment: _Optional[_Union[_deployment_pb2.Deployment, _Mapping]] = ...) -> None: ...
