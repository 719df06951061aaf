"""The real server for tests of the whole path, and a scripted one for tests of the client alone."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from smartedit.v1.service_pb2_grpc import SmartEditServiceServicer

REPOSITORY = Path(__file__).resolve().parents[3]
CONFIGURATION = """\
listen = "127.0.0.1:0"

[log]
format = "json"

[limits]
max_steps = 1000
max_instruction_chars = 500

[deployments.default]
model = "{model}"
instances = 1

[deployments.narrow]
model = "{model}"
precision = "bf16"
"""


@dataclass(frozen=True)
class Server:
    """A running server."""

    address: str
    http: str
    process: subprocess.Popen[bytes]
    log: Path

    def outcomes(self) -> dict[str, str]:
        """How each edit that is over has ended, by the request's identifier, in the order of ending."""
        ended = [
            line for line in lines(self.log) if "outcome" in line and "request_id" in line.get("span", {})
        ]
        return {line["span"]["request_id"]: line["outcome"] for line in ended}


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait until something is so. The time only ends a test that would hang."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} within {seconds} s"
        time.sleep(0.02)


@contextmanager
def running(
    directory: Path, lock: str = "", credentials: grpc.ChannelCredentials | None = None
) -> Iterator[Server]:
    """Start the server and, at the end, have it shut down.

    `lock` is more of its configuration, and `credentials` are what a connection then takes.
    """
    binary = os.environ.get("SMARTEDIT_BIN")
    assert binary, "SMARTEDIT_BIN must name the server's binary; `cargo xtask test` builds it and sets it"
    model = Path(os.environ.get("SMARTEDIT_TEST_MODEL") or REPOSITORY / "models" / "tiny-random")
    configuration = directory / "smartedit.toml"
    configuration.write_text(CONFIGURATION.format(model=model.resolve()) + lock)
    log = directory / "server.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SMARTEDIT_")}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [binary, "serve", "--config", configuration], stderr=stderr, env=environment
        )
    try:
        yield serving(process, log, credentials)
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def serving(
    process: subprocess.Popen[bytes], log: Path, credentials: grpc.ChannelCredentials | None = None
) -> Server:
    """Wait until the server serves."""

    def listens() -> bool:
        assert process.poll() is None, f"the server ended: {log.read_text()}"
        return bound(log) is not None

    wait_for(listens, "the server listens")
    server = Server(bound(log) or "", bound(log, "http") or "", process, log)
    channel_to = (
        grpc.insecure_channel(server.address)
        if credentials is None
        else grpc.secure_channel(server.address, credentials)
    )
    with channel_to as channel:
        health = health_pb2_grpc.HealthStub(channel)

        def is_ready() -> bool:
            assert process.poll() is None, f"the server ended: {log.read_text()}"
            try:
                status = health.Check(health_pb2.HealthCheckRequest(), timeout=5).status
            except grpc.RpcError:
                return False
            return bool(status == health_pb2.HealthCheckResponse.SERVING)

        wait_for(is_ready, "the server is ready")
    return server


def bound(log: Path, name: str = "address") -> str | None:
    """Give an address in the server's log."""
    return next((line[name] for line in lines(log) if name in line), None)


def lines(log: Path) -> Iterator[dict[str, Any]]:
    """Read the server's log, as far as it is written."""
    for line in log.read_text().splitlines(keepends=True):
        if line.endswith("}\n"):
            yield json.loads(line)


class Script(SmartEditServiceServicer):
    """A server whose methods a test sets, and that remembers the requests it was sent."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.edit: Callable[[Any, grpc.ServicerContext], Any] | None = None
        self.edit_stream: Callable[[Any, grpc.ServicerContext], Any] | None = None
        self.compare: Callable[[Any, grpc.ServicerContext], Any] | None = None

    def Edit(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.requests.append(request)
        assert self.edit is not None
        return self.edit(request, context)

    def EditStream(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.requests.append(request)
        assert self.edit_stream is not None
        yield from self.edit_stream(request, context)

    def Compare(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.requests.append(request)
        assert self.compare is not None
        yield from self.compare(request, context)


@dataclass(frozen=True)
class Scripted:
    """A running scripted server."""

    address: str
    script: Script
