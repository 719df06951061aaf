from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_UNSPECIFIED: _ClassVar[Stage]
    STAGE_VISION_ENCODER: _ClassVar[Stage]
    STAGE_LANGUAGE_MODEL: _ClassVar[Stage]
    STAGE_CONNECTOR: _ClassVar[Stage]
    STAGE_TEXT_ENCODER: _ClassVar[Stage]
    STAGE_VAE_ENCODER: _ClassVar[Stage]
    STAGE_DENOISER: _ClassVar[Stage]
    STAGE_VAE_DECODER: _ClassVar[Stage]
STAGE_UNSPECIFIED: Stage
STAGE_VISION_ENCODER: Stage
STAGE_LANGUAGE_MODEL: Stage
STAGE_CONNECTOR: Stage
STAGE_TEXT_ENCODER: Stage
STAGE_VAE_ENCODER: Stage
STAGE_DENOISER: Stage
STAGE_VAE_DECODER: Stage
