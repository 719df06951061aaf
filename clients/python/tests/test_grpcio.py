"""The real server through plain grpcio, without this package's client."""

import io
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from PIL import Image

from smartedit.v1 import edit_pb2, service_pb2
from smartedit.v1.service_pb2_grpc import SmartEditServiceStub

from servers import Server

SERVICE = "smartedit.v1.SmartEditService"


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("service", ["", SERVICE])
def test_health(server: Server, service: str) -> None:
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        response = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
        assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_health_of_an_unknown_service(server: Server) -> None:
    request = health_pb2.HealthCheckRequest(service="nobody")
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(channel).Check(request, timeout=60)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_describes_the_whole_protocol(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
        found = database.FindFileContainingSymbol(SERVICE)
        expected = FileDescriptorProto()
        service_pb2.DESCRIPTOR.CopyToProto(expected)
        for field in (field for message in found.message_type for field in message.field):
            field.ClearField("json_name")
        assert found.service == expected.service
        assert found.message_type == expected.message_type
        for dependency in found.dependency:
            assert database.FindFileByName(dependency).name == dependency


def test_an_edit(server: Server, picture: Image.Image) -> None:
    with grpc.insecure_channel(server.address) as channel:
        request = service_pb2.EditRequest(
            image=png(picture),
            instruction="Change the left cat to a fox",
            options=edit_pb2.EditOptions(steps=1, resolution=edit_pb2.Resolution(width=64, height=64)),
        )
        response = SmartEditServiceStub(channel).Edit(request, timeout=120)
        assert Image.open(io.BytesIO(response.result.image)).size == (64, 64)


@pytest.mark.parametrize(
    "field", ["scheduler", "resize_mode", "output_format", "image_tokens", "noise_source", "alpha_mode"]
)
def test_an_unknown_enum_value_is_refused(server: Server, picture: Image.Image, field: str) -> None:
    options = edit_pb2.EditOptions()
    setattr(options, field, 77)
    request = service_pb2.EditRequest(image=png(picture), instruction="x", options=options)
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        SmartEditServiceStub(channel).Edit(request, timeout=120)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in violations(caught.value)] == [f"options.{field}"]


def raw(channel: grpc.Channel, method: str) -> Any:
    return channel.unary_unary(f"/{SERVICE}/{method}")


def test_an_unknown_method(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        raw(channel, "Nothing")(b"", timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_message_that_is_none(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        raw(channel, "Edit")(b"\xff\xff\xff", timeout=60)
    assert caught.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)
    test_health(server, SERVICE)


def violations(error: Any) -> list[error_details_pb2.BadRequest.FieldViolation]:
    [encoded] = [value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
    found = []
    for detail in status_pb2.Status.FromString(encoded).details:
        bad_request = error_details_pb2.BadRequest()
        if detail.Unpack(bad_request):
            found.extend(bad_request.field_violations)
    return found
