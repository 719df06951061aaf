"""The real server over HTTP, through packages of others: OpenAI's, Prometheus', and a client of gRPC-Web."""

import base64
import io
import urllib.request
from collections.abc import Iterator
from typing import TypeVar

import openai
import pytest
from connectrpc.client import ConnectClientSync
from connectrpc.code import Code
from connectrpc.compat import google_protobuf_binary_codec
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.protocol import ProtocolType
from PIL import Image
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_metrics

from smartedit.v1.edit_pb2 import EditOptions, Resolution
from smartedit.v1.service_pb2 import EditRequest, EditResponse, EditStreamRequest, EditStreamResponse

from servers import Server

SERVICE = "smartedit.v1.SmartEditService"
INSTRUCTION = "Change the left cat to a fox"

Q = TypeVar("Q")
A = TypeVar("A")


@pytest.fixture
def api(server: Server) -> Iterator[openai.OpenAI]:
    base = f"http://{server.http}/v1"
    with openai.OpenAI(base_url=base, api_key="none", max_retries=0, timeout=120) as api:
        yield api


@pytest.fixture
def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def get(server: Server, path: str, accept: str = "*/*") -> tuple[str, str]:
    """Give the media type and the content of what is found there."""
    request = urllib.request.Request(f"http://{server.http}{path}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_health(server: Server) -> None:
    assert get(server, "/healthz")[1] == "alive\n"
    assert get(server, "/readyz")[1] == "ready\n"


def test_openai_edits_a_picture(api: openai.OpenAI, png: bytes) -> None:
    edited = api.images.edit(
        image=("cat.png", png, "image/png"),
        prompt=INSTRUCTION,
        model="default",
        n=2,
        response_format="b64_json",
        output_format="jpeg",
        size="64x64",
        extra_body={"steps": 1, "seed": 7},
    )
    assert edited.created > 0
    assert edited.data is not None
    for image in edited.data:
        picture = Image.open(io.BytesIO(base64.b64decode(image.b64_json or "")))
        assert (picture.format, picture.size) == ("JPEG", (64, 64))
    first, second = edited.data
    assert first.b64_json != second.b64_json, "each has a seed of its own"
    assert len(edited._request_id or "") == 16


def test_openai_is_told_what_is_wrong(api: openai.OpenAI, png: bytes) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        api.images.edit(image=png, prompt=INSTRUCTION, model="nobody")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as bad:
        api.images.edit(image=png, prompt=INSTRUCTION, extra_body={"steps": 0})
    assert (bad.value.type, bad.value.param) == ("invalid_request_error", "steps")
    with pytest.raises(openai.BadRequestError) as several:
        api.images.edit(image=[png, png], prompt=INSTRUCTION)
    assert several.value.param == "image"
    with pytest.raises(openai.BadRequestError) as nothing:
        api.images.edit(image=b"nothing", prompt=INSTRUCTION)
    assert (nothing.value.code, nothing.value.param) == ("invalid_image", "image")


def test_openai_lists_the_deployments(api: openai.OpenAI) -> None:
    assert [model.id for model in api.models.list()] == ["default", "narrow"]
    assert api.models.retrieve("narrow").id == "narrow"


def test_prometheus_reads_the_metrics_in_both_formats(server: Server, api: openai.OpenAI, png: bytes) -> None:
    api.images.edit(image=png, prompt=INSTRUCTION, extra_body={"steps": 1})
    media_type, text = get(server, "/metrics")
    assert media_type.startswith("text/plain; version=0.0.4")
    plain = {family.name: family for family in plain_metrics(text)}
    media_type, text = get(server, "/metrics", "application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in open_metrics(text)}
    assert families["smartedit_edits"].type == "counter"
    assert families["smartedit_stage_duration_seconds"].type == "histogram"
    assert families["grpc_server_handled"].type == "counter"
    for name, family in families.items():
        assert family.documentation, name
        assert name in plain or f"{name}_info" in plain, name
        assert plain.get(name, family).samples, name
    outcomes = [sample for sample in plain["smartedit_edits"].samples if sample.labels["outcome"] == "OK"]
    assert sum(sample.value for sample in outcomes) >= 1


def test_grpc_web(server: Server, png: bytes) -> None:
    options = EditOptions(steps=1, resolution=Resolution(width=64, height=64))
    unary = method("Edit", EditRequest, EditResponse, StreamType.UNARY)
    streaming = method("EditStream", EditStreamRequest, EditStreamResponse, StreamType.SERVER_STREAM)
    with ConnectClientSync(
        f"http://{server.http}",
        protocol=ProtocolType.GRPC_WEB,
        codec=google_protobuf_binary_codec(),
        send_compression=None,
        timeout_ms=120_000,
    ) as client:
        edit = EditRequest(image=png, instruction=INSTRUCTION, options=options)
        result = client.execute_unary(request=edit, method=unary).result
        assert Image.open(io.BytesIO(result.image)).size == (64, 64)

        streamed = EditStreamRequest(image=png, instruction=INSTRUCTION, options=options)
        answers = client.execute_server_stream(request=streamed, method=streaming)
        events = [event.WhichOneof("event") for event in answers]
        assert (events[0], events[-1]) == ("accepted", "result")

        bad = EditRequest(image=png, instruction="", options=options)
        with pytest.raises(ConnectError) as caught:
            client.execute_unary(request=bad, method=unary)
        assert caught.value.code is Code.INVALID_ARGUMENT


def method(name: str, request: type[Q], answer: type[A], kind: StreamType) -> MethodInfo[Q, A]:
    """Describe a method to a Connect client."""
    return MethodInfo(
        name=name,
        service_name=SERVICE,
        input=request,
        output=answer,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=kind,
    )
