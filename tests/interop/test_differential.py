"""The same calls of our server and of a real Triton: status codes and the shape of answers.

Where the two differ, `DEVIATIONS` says how and why; anything else that differs fails.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

import servers

# What a call comes to: a status code, and what the answer is like.
Outcome = tuple[str, object]
Call = Callable[["Server"], object]


class Server:
    """A server, and the name of its VAE decoder."""

    def __init__(self, address: str, model: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self.model = model

    def outcome(self, call: Call) -> Outcome:
        try:
            return ("OK", call(self))
        except grpc.RpcError as error:
            return (error.code().name, None)


@pytest.fixture(scope="module")
def both(triton: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Triton, and our server with the same model."""
    text = (
        "[limits]\nmax_queue = 2\n[admin]\nenabled = true\n"
        f'[deployments.default]\nmodel = "{servers.MODEL}"\ninstances = 1\n'
    )
    place = tmp_path_factory.mktemp("ours")
    with servers.smartedit_server(place, text, ["default"]) as address:
        yield Server(triton, "vae_decoder"), Server(address, "default/vae_decoder")


# --- requests

LATENTS = np.zeros((1, 4, 2, 3), np.float32)


def infer(server: Server, **changes: object) -> oip.ModelInferRequest:
    """A valid request with some fields of its input changed."""
    request = oip.ModelInferRequest(model_name=changes.pop("model", server.model), id="mine")
    request.model_version = changes.pop("version", "")
    fields = {"name": "latents", "datatype": "FP32", "shape": LATENTS.shape} | changes
    request.inputs.add(**fields)
    request.raw_input_contents.append(LATENTS.tobytes())
    return request


def answered(answer: oip.ModelInferResponse) -> object:
    """What an answer is like, but for names of models and parameters of the server's own."""
    outputs = [(output.name, output.datatype, tuple(output.shape)) for output in answer.outputs]
    sizes = [len(content) for content in answer.raw_output_contents]
    typed = [output.HasField("contents") for output in answer.outputs]
    return answer.id, answer.model_version, outputs, sizes, typed


def inferred(change: Callable[[oip.ModelInferRequest], object] = lambda _: None, **changes: object) -> Call:
    def call(server: Server) -> object:
        request = infer(server, **changes)
        change(request)
        return answered(server.stub.ModelInfer(request, timeout=60))

    return call


def without_data(request: oip.ModelInferRequest) -> None:
    del request.raw_input_contents[:]


def typed(request: oip.ModelInferRequest) -> None:
    without_data(request)
    request.inputs[0].contents.fp32_contents.extend(LATENTS.flatten())


def both_forms(request: oip.ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.extend(LATENTS.flatten())


def short(request: oip.ModelInferRequest) -> None:
    request.raw_input_contents[0] = LATENTS.tobytes()[:-4]


def parameter(name: str, **value: object) -> Callable[[oip.ModelInferRequest], None]:
    return lambda request: request.parameters[name].CopyFrom(oip.InferParameter(**value))


def output(*names: str) -> Callable[[oip.ModelInferRequest], None]:
    return lambda request: [request.outputs.add(name=name) for name in names]


def tensors(values: object) -> list[object]:
    return [(value.name, value.datatype, tuple(value.shape)) for value in values]


def metadata(server: Server, name: str | None = None, version: str = "") -> object:
    request = oip.ModelMetadataRequest(name=name or server.model, version=version)
    answer = server.stub.ModelMetadata(request)
    return list(answer.versions), tensors(answer.inputs), tensors(answer.outputs)


def config(server: Server, name: str | None = None) -> object:
    answer = server.stub.ModelConfig(oip.ModelConfigRequest(name=name or server.model)).config

    def told(values: object) -> list[object]:
        return [(value.name, value.data_type, tuple(value.dims)) for value in values]

    return (
        answer.max_batch_size,
        told(answer.input),
        told(answer.output),
        answer.model_transaction_policy.decoupled,
    )


def statistics(server: Server, name: str | None = None) -> object:
    before = oip.ModelStatisticsRequest(name=name or server.model)
    server.stub.ModelStatistics(before)
    server.stub.ModelInfer(infer(server))
    [found] = server.stub.ModelStatistics(before).model_stats
    stats = found.inference_stats
    return (
        found.version,
        found.inference_count == found.execution_count,
        stats.success.count == stats.queue.count,
    )


def index(server: Server) -> object:
    models = server.stub.RepositoryIndex(oip.RepositoryIndexRequest(ready=True)).models
    [own] = [model for model in models if model.name == server.model]
    return own.version, own.state, own.reason


def stream(server: Server) -> object:
    requests = [infer(server), infer(server, model="nope")]
    answers = []

    def one_by_one() -> Iterator[oip.ModelInferRequest]:
        yield from requests

    for answer in server.stub.ModelStreamInfer(one_by_one(), timeout=60):
        final = answer.infer_response.parameters["triton_final_response"].bool_param
        failed = bool(answer.error_message)
        answers.append((failed, final, answered(answer.infer_response) if not failed else None))
    return sorted(answers, key=str)


def server_metadata(server: Server) -> object:
    answer = server.stub.ServerMetadata(oip.ServerMetadataRequest())
    offered = {"model_configuration", "parameters", "statistics"}
    return bool(answer.name), bool(answer.version), offered <= set(answer.extensions)


def ready(name: str) -> Call:
    return lambda server: server.stub.ModelReady(oip.ModelReadyRequest(name=name or server.model)).ready


def load(name: str) -> Call:
    request = oip.RepositoryModelLoadRequest(model_name=name)
    return lambda server: server.stub.RepositoryModelLoad(request).ByteSize()


def unload(name: str) -> Call:
    request = oip.RepositoryModelUnloadRequest(model_name=name)
    return lambda server: server.stub.RepositoryModelUnload(request).ByteSize()


def health(service: str) -> Call:
    request = health_pb2.HealthCheckRequest(service=service)
    return lambda server: health_pb2_grpc.HealthStub(server.channel).Check(request).status


def watch(server: Server) -> object:
    stub = health_pb2_grpc.HealthStub(server.channel)
    watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
    try:
        return next(watching).status
    finally:
        watching.cancel()


def reflection(server: Server) -> object:
    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    call = server.channel.stream_stream(path)
    # `list_services` of everything.
    return bool(next(call(iter([b"\x3a\x00"]), timeout=10)))


def queue_full(server: Server) -> object:
    """The codes of a dozen requests at once where two may wait."""
    slow = np.zeros((1, 4, 64, 64), np.float32)
    if server.model == "vae_decoder":
        # Waits 100 ms in each row.
        slow = np.full((1, 4, 1, 1), 100.0, np.float32)

    def ask(_: int) -> str:
        request = infer(server, shape=slow.shape)
        request.model_name = server.model if server.model != "vae_decoder" else "ident"
        request.raw_input_contents[0] = slow.tobytes()
        return server.outcome(lambda server: server.stub.ModelInfer(request, timeout=120) and None)[0]

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        return sorted(set(pool.map(ask, range(12))))


CASES: dict[str, Call] = {
    "server live": lambda server: server.stub.ServerLive(oip.ServerLiveRequest()).live,
    "server ready": lambda server: server.stub.ServerReady(oip.ServerReadyRequest()).ready,
    "server metadata": server_metadata,
    "model ready": ready(""),
    "model ready, unknown": ready("nope"),
    "metadata": metadata,
    "metadata, unknown model": lambda server: metadata(server, "nope"),
    "metadata, version": lambda server: metadata(server, version="1"),
    "metadata, unknown version": lambda server: metadata(server, version="7"),
    "metadata, version that is no number": lambda server: metadata(server, version="abc"),
    "config": config,
    "config, unknown model": lambda server: config(server, "nope"),
    "statistics": statistics,
    "statistics, unknown model": lambda server: statistics(server, "nope"),
    "index": index,
    "infer": inferred(),
    "infer, version": inferred(version="1"),
    "infer, unknown model": inferred(model="nope"),
    "infer, unknown version": inferred(version="7"),
    "infer, version that is no number": inferred(version="abc"),
    "infer, chosen output": inferred(output("image")),
    "infer, unknown output": inferred(output("nope")),
    "infer, output twice": inferred(output("image", "image")),
    "infer, unknown input": inferred(name="nope"),
    "infer, no input": inferred(lambda request: request.ClearField("inputs")),
    "infer, no data": inferred(without_data),
    "infer, typed": inferred(typed),
    "infer, raw and typed": inferred(both_forms),
    "infer, short data": inferred(short),
    "infer, wrong datatype": inferred(datatype="INT64"),
    "infer, bogus datatype": inferred(datatype="FLOAT"),
    "infer, wrong shape": inferred(shape=[1, 3, 2, 4]),
    "infer, too few dimensions": inferred(shape=[4, 6]),
    "infer, negative size": inferred(shape=[-1, 4, 2, 3]),
    "infer, unknown parameter": inferred(parameter("colour", string_param="red")),
    "infer, reserved parameter": inferred(parameter("triton_foo", bool_param=True)),
    "infer, timeout as a string": inferred(parameter("timeout", string_param="1")),
    "infer, timeout of a microsecond": inferred(parameter("timeout", int64_param=1)),
    "infer, timeout of a minute": inferred(parameter("timeout", int64_param=60_000_000)),
    "infer, priority 0": inferred(parameter("priority", uint64_param=0)),
    "infer, sequence": inferred(parameter("sequence_id", int64_param=7)),
    "stream": stream,
    "load, unknown model": load("nope"),
    "unload, unknown model": unload("nope"),
    "health": health(""),
    "health, unknown service": health("nope"),
    "health, watch": watch,
    "reflection": reflection,
    "full queue": queue_full,
}

IMAGE = [("image", "FP32", (1, 3, 16, 24))]
RAW = ("OK", ("mine", "1", IMAGE, [3 * 16 * 24 * 4], [False]))
TYPED = ("OK", ("mine", "1", IMAGE, [], [True]))


def refused(code: str) -> Outcome:
    return (code, None)


# Where we differ: what Triton answers, what we do, and why.
DEVIATIONS: dict[str, tuple[Outcome, Outcome, str]] = {
    "statistics, unknown model": (
        refused("INVALID_ARGUMENT"),
        refused("NOT_FOUND"),
        "an unknown model is unknown whatever is asked of it",
    ),
    "infer, output twice": (RAW, refused("INVALID_ARGUMENT"), "an output that is named twice is a mistake"),
    "infer, typed": (RAW, TYPED, "who cannot send raw bytes cannot read them"),
    "infer, unknown parameter": (
        RAW,
        refused("INVALID_ARGUMENT"),
        "a misspelt option would change the picture silently",
    ),
    "infer, sequence": (RAW, refused("INVALID_ARGUMENT"), "there are no sequences"),
    "infer, timeout of a microsecond": (
        RAW,
        refused("DEADLINE_EXCEEDED"),
        "`timeout` bounds the whole request, as the client documents it, not the wait alone",
    ),
    "stream": (
        ("OK", [(False, True, RAW[1]), (True, False, None)]),
        ("OK", [(False, True, RAW[1]), (True, True, None)]),
        "an error is the last answer to its request, too",
    ),
    "load, unknown model": (
        refused("INTERNAL"),
        refused("NOT_FOUND"),
        "it is the caller's mistake, not the server's",
    ),
    "unload, unknown model": (("OK", 0), refused("NOT_FOUND"), "a wrong name should not look like success"),
    "health, unknown service": (("OK", 1), refused("NOT_FOUND"), "as the health protocol has it"),
    "health, watch": (refused("UNIMPLEMENTED"), ("OK", 1), "as the health protocol has it"),
    "reflection": (refused("UNIMPLEMENTED"), ("OK", True), "for tools such as grpcurl"),
    "full queue": (
        ("OK", ["OK", "UNAVAILABLE"]),
        ("OK", ["OK", "RESOURCE_EXHAUSTED"]),
        "clients and meshes are set to retry UNAVAILABLE at once, which makes overload worse",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_case(case: str, both: tuple[Server, Server]) -> None:
    triton, ours = (server.outcome(CASES[case]) for server in both)
    if case in DEVIATIONS:
        expected_of_triton, expected_of_us, _ = DEVIATIONS[case]
        assert triton == expected_of_triton
        assert ours == expected_of_us
    else:
        assert triton == ours, f"Triton: {triton}, here: {ours}"
