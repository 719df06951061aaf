"""Fixtures: the real server, a client of it, a scripted server, and a picture."""

from collections.abc import Iterator
from concurrent import futures

import grpc
import numpy as np
import pytest
from PIL import Image

from smartedit import Client
from smartedit.channel import channel_options
from smartedit.v1.service_pb2_grpc import add_SmartEditServiceServicer_to_server

from servers import Script, Scripted, Server, running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.address, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """A small picture with gradients, whose sides are multiples of 8."""
    rows, columns = np.mgrid[0:64, 0:64]
    channels = np.stack([rows * 4, columns * 4, (rows + columns) * 2], axis=-1)
    return Image.fromarray(channels.astype(np.uint8))


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    script = Script()
    server = grpc.server(futures.ThreadPoolExecutor(4), options=channel_options())
    add_SmartEditServiceServicer_to_server(script, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield Scripted(f"127.0.0.1:{port}", script)
    server.stop(None).wait()
