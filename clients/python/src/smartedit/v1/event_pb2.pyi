import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from smartedit.v1 import stage_pb2 as _stage_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AcceptedEvent(_message.Message):
    __slots__ = ("request_id", "deployment", "seed")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    deployment: str
    seed: int
    def __init__(self, request_id: _Optional[str] = ..., deployment: _Optional[str] = ..., seed: _Optional[int] = ...) -> None: ...

class QueuedEvent(_message.Message):
    __slots__ = ("position",)
    POSITION_FIELD_NUMBER: _ClassVar[int]
    position: int
    def __init__(self, position: _Optional[int] = ...) -> None: ...

class StageStartedEvent(_message.Message):
    __slots__ = ("stage", "elapsed")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    stage: _stage_pb2.Stage
    elapsed: _duration_pb2.Duration
    def __init__(self, stage: _Optional[_Union[_stage_pb2.Stage, str]] = ..., elapsed: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class StageFinishedEvent(_message.Message):
    __slots__ = ("stage", "duration", "elapsed", "cached")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    stage: _stage_pb2.Stage
    duration: _duration_pb2.Duration
    elapsed: _duration_pb2.Duration
    cached: bool
    def __init__(self, stage: _Optional[_Union[_stage_pb2.Stage, str]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., elapsed: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., cached: bool = ...) -> None: ...

class StepEvent(_message.Message):
    __slots__ = ("index", "total", "preview")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    index: int
    total: int
    preview: Preview
    def __init__(self, index: _Optional[int] = ..., total: _Optional[int] = ..., preview: _Optional[_Union[Preview, _Mapping]] = ...) -> None: ...

class Preview(_message.Message):
    __slots__ = ("image", "mime_type", "step")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MIME_TYPE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    mime_type: str
    step: int
    def __init__(self, image: _Optional[bytes] = ..., mime_type: _Optional[str] = ..., step: _Optional[int] = ...) -> None: ...

class ReplyEvent(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...
