"""The servers under test, each a process of its own: ours, NVIDIA's Triton and Seldon's MLServer."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import tritonclient.grpc as triton

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MODEL = ROOT / "models" / "tiny-random"
SITE = Path(sysconfig.get_path("purelib"))

# How long a server may take to be ready; only ends a run that would hang.
PATIENCE_S = 120.0

TYPES = {"tensor(float)": ("TYPE_FP32", "FP32"), "tensor(int64)": ("TYPE_INT64", "INT64")}


def smartedit() -> str:
    """The program under test."""
    return os.environ["SMARTEDIT_BIN"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def export(stage: str, into: Path) -> Path:
    """Writes a stage of the model as an `.onnx` file."""
    command = [smartedit(), "export", str(MODEL), "--stage", stage, "--out", str(into)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return into / f"{stage}.onnx"


def shape(dimensions: list[object]) -> list[int]:
    """A shape in which -1 is any size."""
    return [size if isinstance(size, int) else -1 for size in dimensions]


@contextlib.contextmanager
def process(
    command: list[str], log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a server until the block ends. Its output is in `log`."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_until_ready(address: str, running: subprocess.Popen[bytes], log: Path, models: list[str]) -> None:
    """Waits until a server of the protocol has these models ready."""
    until = time.monotonic() + PATIENCE_S
    with triton.InferenceServerClient(address) as client:
        while True:
            with contextlib.suppress(triton.InferenceServerException):
                if all(client.is_model_ready(model) for model in models):
                    return
            if running.poll() is not None or time.monotonic() > until:
                raise RuntimeError(
                    f"{log} tells why no server is ready:\n{log.read_text(errors='replace')[-4000:]}"
                )
            time.sleep(0.1)


# --- Triton


def triton_model(repository: Path, name: str, onnx: Path, max_batch_size: int = 0) -> None:
    """Adds a stage to a model repository: ONNX Runtime in Triton's Python backend."""
    directory = repository / name
    (directory / "1").mkdir(parents=True)
    shutil.copy(HERE / "triton" / "stage.py", directory / "1" / "model.py")
    for file in onnx.parent.glob(f"{onnx.name}*"):
        shutil.copy(file, directory / "1")
    session = onnxruntime.InferenceSession(str(onnx))
    batch = 1 if max_batch_size else 0

    def tensors(what: str, values: list[onnxruntime.NodeArg]) -> str:
        lines = [
            f'{{ name: "{value.name}" data_type: {TYPES[value.type][0]} dims: {shape(value.shape)[batch:]} }}'
            for value in values
        ]
        return f"{what} [ {', '.join(lines)} ]"

    config = [
        'backend: "python"',
        f"max_batch_size: {max_batch_size}",
        tensors("input", session.get_inputs()),
        tensors("output", session.get_outputs()),
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
        f'parameters {{ key: "file" value {{ string_value: "{onnx.name}" }} }}',
    ]
    (directory / "config.pbtxt").write_text("\n".join(config))


def triton_identity(repository: Path, name: str = "ident", queue: int = 2) -> None:
    """Adds a model that gives back what it is given, with a queue of `queue` requests."""
    directory = repository / name
    (directory / "1").mkdir(parents=True)
    shutil.copy(HERE / "triton" / "identity.py", directory / "1" / "model.py")
    (directory / "config.pbtxt").write_text(
        "\n".join(
            [
                'backend: "python"',
                "max_batch_size: 2",
                'input [ { name: "latents" data_type: TYPE_FP32 dims: [ 4, -1, -1 ] } ]',
                'output [ { name: "image" data_type: TYPE_FP32 dims: [ 4, -1, -1 ] } ]',
                "instance_group [ { count: 1 kind: KIND_CPU } ]",
                f"dynamic_batching {{ default_queue_policy {{ max_queue_size: {queue} }} }}",
            ]
        )
    )


@contextlib.contextmanager
def triton_server(place: Path, repository: Path, models: list[str]) -> Iterator[str]:
    """Triton as it comes in the wheel of `nvidia-pytriton`, without a GPU: its address."""
    backend = place / "backends" / "python"
    if not backend.exists():
        shutil.copytree(SITE / "pytriton" / "tritonserver" / "backends" / "python", backend)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = backend / "triton_python_backend_stub"
        shutil.copy(SITE / "pytriton" / "tritonserver" / "python_backend_stubs" / version / stub.name, stub)
        stub.chmod(0o755)
    port, log = free_port(), place / "triton.log"
    command = [
        str(SITE / "pytriton" / "tritonserver" / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={backend.parent}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        "--grpc-address=127.0.0.1",
        f"--grpc-port={port}",
        "--allow-http=false",
        "--allow-metrics=false",
    ]
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(SITE / "nvidia_pytriton.libs"),
        "PYTHONPATH": str(SITE),
    }
    address = f"127.0.0.1:{port}"
    with process(command, log, environment) as running:
        wait_until_ready(address, running, log, models)
        yield address


# --- MLServer


def mlserver_model(repository: Path, stage: str, onnx: Path) -> None:
    """Adds a stage to a directory of models: ONNX Runtime in a runtime of MLServer's kind."""
    directory = repository / stage
    directory.mkdir(parents=True)
    session = onnxruntime.InferenceSession(str(onnx))

    def tensors(values: list[onnxruntime.NodeArg]) -> list[dict[str, object]]:
        return [
            {"name": value.name, "datatype": TYPES[value.type][1], "shape": shape(value.shape)}
            for value in values
        ]

    settings = {
        "name": stage,
        "platform": "onnxruntime",
        "implementation": "stage_runtime.StageRuntime",
        "inputs": tensors(session.get_inputs()),
        "outputs": tensors(session.get_outputs()),
        "parameters": {"uri": str(onnx), "version": "1"},
    }
    (directory / "model-settings.json").write_text(json.dumps(settings))


@contextlib.contextmanager
def mlserver_server(place: Path, repository: Path, models: list[str]) -> Iterator[str]:
    """MLServer: its address."""
    port, log = free_port(), place / "mlserver.log"
    settings = {
        "host": "127.0.0.1",
        "grpc_port": port,
        "http_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 0,
        "use_structured_logging": True,
    }
    (repository / "settings.json").write_text(json.dumps(settings))
    environment = os.environ | {"PYTHONPATH": str(HERE / "mlserver")}
    command = [str(Path(sys.executable).parent / "mlserver"), "start", str(repository)]
    address = f"127.0.0.1:{port}"
    with process(command, log, environment) as running:
        wait_until_ready(address, running, log, models)
        yield address


# --- ours


@contextlib.contextmanager
def smartedit_server(place: Path, configuration: str, models: list[str]) -> Iterator[str]:
    """A `smartedit serve` of this configuration: its address."""
    port, log, file = free_port(), place / "smartedit.log", place / "smartedit.toml"
    file.write_text(configuration)
    address = f"127.0.0.1:{port}"
    command = [
        smartedit(),
        "serve",
        "--config",
        str(file),
        "--listen",
        address,
        "--set",
        "http.enabled=false",
    ]
    with process(command, log) as running:
        wait_until_ready(address, running, log, models)
        yield address
