"""Client of the SmartEdit server: edit images by instruction over gRPC.

    from smartedit import Client

    with Client("localhost:50051") as client:
        client.edit("cats.png", "Change the left cat to a fox").image.save("fox.png")

`Client` blocks, `AsyncClient` is the same for asyncio. What `edit` can be told is in `EditOptions`.
"""

from smartedit.aio import AsyncClient, AsyncCompareStream, AsyncEditStream
from smartedit.client import Client, CompareStream, EditStream
from smartedit.comparisons import (
    Compared,
    CompareEvent,
    Difference,
    Entry,
    Failure,
    Incomparable,
    LatentDifference,
    Memory,
    PixelDifference,
    Progress,
    Started,
)
from smartedit.credentials import tls
from smartedit.deployments import (
    Adapter,
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
    PermissionDenied,
    ResourceExhausted,
    SmartEditError,
    Unauthenticated,
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
    Priority,
    ResizeMode,
    Scheduler,
)
from smartedit.pictures import Picture

__all__ = [
    "Accepted",
    "Adapter",
    "AlphaMode",
    "AsyncClient",
    "AsyncCompareStream",
    "AsyncEditStream",
    "Cancelled",
    "Client",
    "CompareEvent",
    "CompareStream",
    "Compared",
    "DeadlineExceeded",
    "Deployment",
    "DeploymentState",
    "Difference",
    "EditDefaults",
    "EditLimits",
    "EditOptions",
    "EditStream",
    "Entry",
    "Event",
    "ExifOrientation",
    "FailedPrecondition",
    "Failure",
    "FieldViolation",
    "ImageTokens",
    "Incomparable",
    "InvalidArgument",
    "LatentDifference",
    "Memory",
    "NotFound",
    "OutputFormat",
    "PermissionDenied",
    "Picture",
    "Pipeline",
    "PixelDifference",
    "Preview",
    "Priority",
    "Progress",
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
    "Started",
    "Step",
    "Timings",
    "Unauthenticated",
    "Unavailable",
    "UnavailablePlacement",
    "tls",
]
