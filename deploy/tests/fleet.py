"""Several servers and the balancer before them, as processes of their own."""

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from files import DEPLOY, environment, program
from servers import Server, serving, wait_for

CONFIGURATION = DEPLOY / "haproxy" / "haproxy.cfg"


@contextmanager
def serve(directory: Path, *arguments: str) -> Iterator[Server]:
    """Run a server with these arguments, which say where it listens; kill it at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "server.log"
    command = [program("SMARTEDIT_BIN"), "serve", *arguments]
    variables = {**environment(), "SMARTEDIT_LOG__FORMAT": "json"}
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env=variables)
    try:
        yield serving(process, log)
    finally:
        process.kill()
        process.wait()


def metrics(server: Server) -> str:
    return httpx.get(f"http://{server.http}/metrics").raise_for_status().text


def sample(server: Server, name: str, label: str = "") -> float:
    """Give the sum of a metric's samples, of those with this label."""
    values = re.findall(rf"^{name}(?:{{[^}}]*{label}[^}}]*}})? (\S+)$", metrics(server), re.MULTILINE)
    return sum(float(value) for value in values)


@dataclass
class Balancer:
    """A running HAProxy with the configuration that ships, but for its addresses."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path
    servers: dict[str, Server] = field(default_factory=dict)

    def says(self, words: str) -> bool:
        return words in self.log.read_text()


@contextmanager
def balance(directory: Path, servers: dict[str, Server]) -> Iterator[Balancer]:
    """Run the balancer before servers, which are named as in its configuration."""
    log, configuration = directory / "balancer.log", directory / "haproxy.cfg"
    port = free_port()
    configuration.write_text(configured(port, servers))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program("HAPROXY"), "-db", "-f", configuration], stdout=output, stderr=subprocess.STDOUT
        )
    balancer = Balancer(f"127.0.0.1:{port}", process, log, servers)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(answers, "the balancer listens")
        yield balancer
    finally:
        process.kill()
        process.wait()


def configured(port: int, servers: dict[str, Server]) -> str:
    """Give the configuration with the addresses of these servers in the place of its own."""
    text, frontends = re.subn(r"bind :50051", f"bind 127.0.0.1:{port}", CONFIGURATION.read_text())
    assert frontends == 1
    for name, server in servers.items():
        address = f"server {name} {server.address} port {server.http.rpartition(':')[2]}"
        text, found = re.subn(rf"server {name} \S+", address, text)
        assert found == 1, name
    return text


def free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port: int = reserved.getsockname()[1]
        return port
