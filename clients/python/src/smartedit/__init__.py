"""Client of the SmartEdit server: edit images by instruction over gRPC.

    from smartedit import Client

    with Client("localhost:50051") as client:
        client.edit("cats.png", "Change the left cat to a fox").image.save("fox.png")

`Client` blocks, `AsyncClient` is the same for asyncio. What `edit` can be told is in `EditOptions`.
"""

from smartedit.aio import AsyncClient, AsyncEditStream
from smartedit.client import Client, EditStream
from smartedit.deployments import (
    Deployment,
    DeploymentState,
    EditDefaults,
    EditLimits,
    Pipeline,
    StageInfo,
    UnavailablePlacement,
)
from smartedit.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SmartEditError,
    Unavailable,
)
from smartedit.events import (
    Accepted,
    Event,
    Preview,
    Queued,
    Reply,
    Result,
    StageFinished,
    StageStarted,
    Step,
    Timings,
)
from smartedit.options import (
    AlphaMode,
    EditOptions,
    ExifOrientation,
    ImageTokens,
    OutputFormat,
    ResizeMode,
    Scheduler,
)
from smartedit.pictures import Picture

__all__ = [
    "Accepted",
    "AlphaMode",
    "AsyncClient",
    "AsyncEditStream",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "Deployment",
    "DeploymentState",
    "EditDefaults",
    "EditLimits",
    "EditOptions",
    "EditStream",
    "Event",
    "ExifOrientation",
    "FailedPrecondition",
    "FieldViolation",
    "ImageTokens",
    "InvalidArgument",
    "NotFound",
    "OutputFormat",
    "Picture",
    "Pipeline",
    "Preview",
    "Queued",
    "Reply",
    "ResizeMode",
    "ResourceExhausted",
    "Result",
    "Scheduler",
    "SmartEditError",
    "StageFinished",
    "StageInfo",
    "StageStarted",
    "Step",
    "Timings",
    "Unavailable",
    "UnavailablePlacement",
]
