"""The real server for tests of the whole path, and a scripted one for tests of the client alone."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from smartedit.v1.service_pb2_grpc import SmartEditServiceServicer

REPOSITORY = Path(__file__).resolve().parents[3]
CONFIGURATION = """\
listen = "127.0.0.1:{port}"

[limits]
max_steps = 1000
max_instruction_chars = 500

[deployments.default]
model = "{model}"
instances = 1
"""


@dataclass(frozen=True)
class Server:
    """A running server."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait until something is so. The time only ends a test that would hang."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} within {seconds} s"
        threading.Event().wait(0.02)


def start(directory: Path) -> Server:
    binary = os.environ.get("SMARTEDIT_BIN")
    assert binary, "SMARTEDIT_BIN must name the server's binary; `cargo xtask test` builds it and sets it"
    model = Path(os.environ.get("SMARTEDIT_TEST_MODEL") or REPOSITORY / "models" / "tiny-random")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    configuration = directory / "smartedit.toml"
    configuration.write_text(CONFIGURATION.format(port=port, model=model.resolve()))
    log = directory / "server.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SMARTEDIT_")}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [binary, "serve", "--config", configuration], stderr=stderr, env=environment
        )
    server = Server(f"127.0.0.1:{port}", process, log)

    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        def serving() -> bool:
            assert process.poll() is None, f"the server ended: {log.read_text()}"
            try:
                status = health.Check(health_pb2.HealthCheckRequest(), timeout=5).status
            except grpc.RpcError:
                return False
            return bool(status == health_pb2.HealthCheckResponse.SERVING)

        wait_for(serving, "the server serves")
    return server


class Script(SmartEditServiceServicer):
    """A server whose methods a test sets, and that remembers the requests it was sent."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.edit: Callable[[Any, grpc.ServicerContext], Any] | None = None
        self.edit_stream: Callable[[Any, grpc.ServicerContext], Any] | None = None

    def Edit(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.requests.append(request)
        assert self.edit is not None
        return self.edit(request, context)

    def EditStream(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.requests.append(request)
        assert self.edit_stream is not None
        yield from self.edit_stream(request, context)


@dataclass(frozen=True)
class Scripted:
    """A running scripted server."""

    address: str
    script: Script
