from smartedit.v1 import stage_pb2 as _stage_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Adapter(_message.Message):
    __slots__ = ("name", "is_default", "scale", "rank", "bytes", "stages")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    name: str
    is_default: bool
    scale: float
    rank: int
    bytes: int
    stages: _containers.RepeatedCompositeFieldContainer[AdaptedStage]
    def __init__(self, name: _Optional[str] = ..., is_default: bool = ..., scale: _Optional[float] = ..., rank: _Optional[int] = ..., bytes: _Optional[int] = ..., stages: _Optional[_Iterable[_Union[AdaptedStage, _Mapping]]] = ...) -> None: ...

class AdaptedStage(_message.Message):
    __slots__ = ("stage", "layers")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    stage: _stage_pb2.Stage
    layers: int
    def __init__(self, stage: _Optional[_Union[_stage_pb2.Stage, str]] = ..., layers: _Optional[int] = ...) -> None: ...
