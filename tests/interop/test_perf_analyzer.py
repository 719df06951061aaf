"""Triton's own load generator measures our server, as it measures Triton."""

from __future__ import annotations

import base64
import csv
import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import servers

# The newest whose program is content with the C library of Debian 12; the newest wheels have no program.
VERSION = "2.50.0"
PROGRAM = f"tritonclient-{VERSION}.data/data/bin/perf_analyzer"

# What it is linked with and is in the wheel of Triton, under names with a digest.
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12.*"}

PICTURE = servers.ROOT / "examples" / "red-apple.png"

Row = dict[str, str]


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Row]:
    """Runs the program on a model of a server: what it measured."""
    place = tmp_path_factory.mktemp("perf_analyzer")
    download = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
    ]
    subprocess.run(
        [*download, "--only-binary=:all:", "--dest", str(place), f"tritonclient=={VERSION}"], check=True
    )
    with zipfile.ZipFile(next(place.glob("*.whl"))) as wheel:
        program = Path(wheel.extract(PROGRAM, place))
    program.chmod(0o755)
    libraries = place / "libraries"
    libraries.mkdir()
    for name, pattern in LIBRARIES.items():
        (libraries / name).symlink_to(next((servers.SITE / "nvidia_pytriton.libs").glob(pattern)))

    def run(address: str, model: str, *arguments: str) -> Row:
        results = place / "results.csv"
        results.unlink(missing_ok=True)
        command = [str(program), "-u", address, "-i", "grpc", "-m", model, "-f", str(results)]
        # One window of measurement, however much it differs from another.
        window = ["--measurement-mode", "count_windows", "--measurement-request-count", "6", "-s", "999"]
        environment = os.environ | {"LD_LIBRARY_PATH": str(libraries)}
        done = subprocess.run(
            [*command, *window, *arguments],
            env=environment,
            check=False,
            timeout=servers.PATIENCE_S,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        with results.open() as file:
            return next(iter(csv.DictReader(file)))

    return run


def check(row: Row) -> None:
    """The server's own statistics are there, and fit what the client saw."""
    assert float(row["Inferences/Second"]) > 0
    parts = ["Server Queue", "Server Compute Input", "Server Compute Infer", "Server Compute Output"]
    inside = sum(int(row[part]) for part in parts)
    assert 0 < int(row["Server Compute Infer"]) <= inside
    # Microseconds both, of requests that need not be quite the same.
    assert 0.2 * int(row["p50 latency"]) < inside < 1.5 * int(row["p99 latency"])


def edits(place: Path) -> list[str]:
    """Arguments for edits of a picture: elements of bytes are told as they are sent, with their length."""
    picture = PICTURE.read_bytes()
    element = base64.b64encode(struct.pack("<I", len(picture)) + picture).decode()
    data = place / "data.json"
    data.write_text(json.dumps({"data": [{"image": {"b64": element}, "instruction": ["Make it blue"]}]}))
    return ["--input-data", str(data), "--request-parameter", "steps:1:int"]


# Random elements would be random bits, not a number some of them.
DECODER = ["--shape", "latents:1,4,8,8", "--input-data", "zero", "--concurrency-range", "2"]


def test_it_measures_edits_and_stages_of_ours(measure: Callable[..., Row], tmp_path: Path) -> None:
    configuration = f'[deployments.default]\nmodel = "{servers.MODEL}"\n'
    with servers.smartedit_server(tmp_path, configuration, ["default"]) as address:
        for way in ([], ["--async", "--streaming", "--concurrency-range", "3"]):
            check(measure(address, "default", *edits(tmp_path), *way))
        check(measure(address, "default/vae_decoder", *DECODER))


def test_it_tells_the_same_of_triton(measure: Callable[..., Row], triton: str, tmp_path: Path) -> None:
    of_triton = measure(triton, "vae_decoder", *DECODER)
    configuration = f'[deployments.default]\nmodel = "{servers.MODEL}"\n'
    with servers.smartedit_server(tmp_path, configuration, ["default"]) as address:
        of_ours = measure(address, "default/vae_decoder", *DECODER)
    check(of_triton)
    check(of_ours)
    assert of_ours.keys() == of_triton.keys()
