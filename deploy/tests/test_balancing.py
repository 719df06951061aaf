"""Three servers behind the balancer: what clients see when one of them dies, or leaves in peace."""

import itertools
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from smartedit import Client, Unavailable

from files import REPOSITORY, program
from fleet import Balancer, balance, free_port, sample, serve
from names import name_server
from servers import Server, wait_for

MODEL = REPOSITORY / "models" / "emoji"
PICTURE = REPOSITORY / "examples" / "left-animal.png"
INSTRUCTION = "Change the left animal to a fox"
STEPS = 16

# Edits that are under way at a time, in each language.
AT_A_TIME = 4

# Edits that the Rust client makes: more than are done before the test comes to its point.
RUST_EDITS = 30


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[dict[str, Server]]:
    with ExitStack() as stack:
        arguments = ["--model", str(MODEL), "--listen=127.0.0.1:0", "--set=drain.delay_seconds=3"]
        yield {name: stack.enter_context(serve(tmp_path / name, *arguments)) for name in "abc"}


@pytest.fixture
def balancer(tmp_path: Path, servers: dict[str, Server]) -> Iterator[Balancer]:
    with balance(tmp_path, servers) as balancer:
        yield balancer


@contextmanager
def python_load(address: str) -> Iterator[None]:
    """Edit until the end, and some more; any edit that fails fails the test."""
    seeds, ended = itertools.count(), threading.Event()
    pictures: dict[int, bytes] = {}

    def edit_on() -> None:
        while not ended.is_set():
            seed = next(seeds)
            edited = client.edit(PICTURE, INSTRUCTION, seed=seed, steps=STEPS)
            pictures[seed] = edited.image.tobytes()

    with Client(address, timeout=240) as client, ThreadPoolExecutor(AT_A_TIME) as pool:
        threads = [pool.submit(edit_on) for _ in range(AT_A_TIME)]
        try:
            wait_for(lambda: len(pictures) > 1, "edits are done")
            yield
            enough = len(pictures) + 3 * AT_A_TIME
            wait_for(lambda: len(pictures) >= enough or any(each.done() for each in threads), "edits go on")
        finally:
            ended.set()
        for each in threads:
            each.result()
    # Whichever server makes an edit makes the same one, and each seed another.
    assert sorted(pictures) == list(range(len(pictures)))
    assert len(set(pictures.values())) == len(pictures)


@contextmanager
def rust_load(address: str) -> Iterator[None]:
    """Make many edits; any that fails fails the test."""
    command = [program("SMARTEDIT_EXAMPLE_MANY"), address, str(PICTURE), INSTRUCTION]
    command += [str(RUST_EDITS), str(STEPS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield
            assert process.poll() is None, "it was at work all the while"
            output, _ = process.communicate()
        finally:
            process.kill()
    assert process.returncode == 0, output
    assert len(re.findall(r"^seed \d+: \d+×\d+, ", output, re.MULTILINE)) == RUST_EDITS, output


LOADS = pytest.mark.parametrize("load", [python_load, rust_load], ids=["python", "rust"])
Load = Callable[[str], AbstractContextManager[None]]


def wait_for_work(server: Server) -> None:
    """Wait until an edit is done there, and another is some steps from its beginning and from its end."""
    wait_for(lambda: done(server) > 0, "an edit is done")
    before = begun(server)
    wait_for(lambda: begun(server) > before, "an edit begins")
    steps = sample(server, "smartedit_denoiser_run_edits_count")
    wait_for(lambda: sample(server, "smartedit_denoiser_run_edits_count") > steps + 1, "it goes on")


def begun(server: Server) -> float:
    return sample(server, "grpc_server_started_total", 'grpc_method="Edit"')


def done(server: Server) -> float:
    return sample(server, "smartedit_edits_total")


@LOADS
def test_every_request_is_answered_though_a_server_is_killed(balancer: Balancer, load: Load) -> None:
    victim, *others = balancer.servers.values()
    with load(balancer.address):
        wait_for_work(victim)
        attempts = begun(victim)
        victim.process.send_signal(signal.SIGKILL)
    assert len(victim.outcomes()) < attempts, "its death has cost somebody an attempt"
    assert balancer.says("Server smartedit/a is DOWN")
    assert all(done(server) > 0 for server in others)


def test_a_server_that_comes_back_gets_its_share_again(balancer: Balancer, tmp_path: Path) -> None:
    gone = balancer.servers["a"]
    gone.process.kill()
    wait_for(lambda: balancer.says("Server smartedit/a is DOWN"), "the balancer misses it")
    gone.process.wait()
    place = [f"--listen={gone.address}", f"--http={gone.http}"]
    with serve(tmp_path / "again", "--model", str(MODEL), *place) as again:
        wait_for(lambda: balancer.says("Server smartedit/a is UP"), "the balancer sees it")
        with python_load(balancer.address):
            wait_for_work(again)


@LOADS
def test_a_server_that_is_shut_down_finishes_what_it_has(balancer: Balancer, load: Load) -> None:
    leaving, *others = balancer.servers.values()
    with load(balancer.address):
        wait_for_work(leaving)
        leaving.process.send_signal(signal.SIGTERM)
    assert leaving.process.wait(60) == 0, leaving.log.read_text()
    # It took edits until the balancer had heard of its leaving: nobody had to try again.
    assert set(leaving.outcomes().values()) == {"OK"}, leaving.log.read_text()
    assert all(done(server) > 0 for server in others)


def test_a_client_that_knows_every_server_needs_no_balancer(tmp_path: Path) -> None:
    """As with a headless Service: one name, one port, an address for each server."""
    port, hosts = free_port(), ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    with ExitStack() as stack:
        servers = []
        for host in hosts:
            place = [f"--listen={host}:{port}", f"--http={host}:0"]
            servers.append(stack.enter_context(serve(tmp_path / host, "--model", str(MODEL), *place)))
        names = stack.enter_context(name_server(hosts))
        with python_load(f"dns://{names}/smartedit-headless:{port}"):
            for server in servers:
                wait_for_work(server)
            servers[-1].process.send_signal(signal.SIGKILL)


def test_where_no_server_is_ready_clients_are_told_in_the_words_of_grpc(tmp_path: Path) -> None:
    with balance(tmp_path, {}) as balancer:
        wait_for(lambda: balancer.says("has no server available"), "the balancer has looked for servers")
        with (
            Client(balancer.address, timeout=60) as client,
            pytest.raises(Unavailable, match="no server is ready"),
        ):
            client.edit(PICTURE, INSTRUCTION)
        command = [program("SMARTEDIT_EXAMPLE_MANY"), balancer.address, str(PICTURE), INSTRUCTION, "1", "1"]
        many = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "seed 0: no server is ready (Unavailable)" in many.stdout
