"""A server started as the manifests start it answers what the manifests ask of it."""

import re
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc

from files import KUBERNETES, SHIPPED_MODEL, documents, manifest, pod, predictor
from fleet import metrics, serve
from servers import Server

# The addresses that a test can have.
ANYWHERE = ["--listen=127.0.0.1:0", "--http=127.0.0.1:0"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The Deployment's server, with the shipped model in the place of the operator's."""
    configuration = f"--config={KUBERNETES / 'smartedit.toml'}"
    model = ["--model", str(SHIPPED_MODEL)]
    with serve(tmp_path_factory.mktemp("pod"), configuration, *model, *ANYWHERE) as server:
        yield server


@pytest.fixture(scope="module")
def predicting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The InferenceService's server, with the shipped model where KServe puts the operator's."""
    [container] = predictor()["containers"]
    command, *arguments = container["args"]
    assert command == "serve"
    arguments = [argument.replace("/mnt/models", str(SHIPPED_MODEL)) for argument in arguments]
    arguments = [argument for argument in arguments if not argument.startswith(("--listen", "--http"))]
    with serve(tmp_path_factory.mktemp("predictor"), *arguments, *ANYWHERE) as server:
        yield server


def probes(spec: dict[str, Any]) -> list[dict[str, Any]]:
    [container] = spec["containers"]
    return [container[f"{kind}Probe"]["grpc"] for kind in ("startup", "liveness", "readiness")]


def assert_healthy(server: Server, spec: dict[str, Any]) -> None:
    """Ask what each probe asks."""
    with grpc.insecure_channel(server.address) as channel:
        for probe in probes(spec):
            request = health_pb2.HealthCheckRequest(service=probe.get("service", ""))
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=30)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING, probe


def test_the_probes_of_a_pod_are_answered(server: Server) -> None:
    assert_healthy(server, pod())
    [container] = pod()["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {probe["port"] for probe in probes(pod())} == {ports["grpc"]}


def test_the_probes_of_a_predictor_are_answered(predicting: Server) -> None:
    assert_healthy(predicting, predictor())
    [container] = predictor()["containers"]
    [port] = container["ports"]
    assert f"--listen=0.0.0.0:{port['containerPort']}" in container["args"]
    assert {probe["port"] for probe in probes(predictor())} == {port["containerPort"]}


def test_a_predictor_serves_the_model_of_its_name(predicting: Server) -> None:
    client = triton.InferenceServerClient(predicting.address)
    assert client.is_model_ready("smartedit")
    assert client.is_model_ready("smartedit/denoiser")
    client.close()


def test_prometheus_finds_the_metrics(server: Server) -> None:
    [endpoint] = manifest("ServiceMonitor")["spec"]["endpoints"]
    answer = httpx.get(f"http://{server.http}{endpoint['path']}").raise_for_status()
    assert answer.headers["content-type"].startswith(("text/plain", "application/openmetrics-text"))


def test_the_autoscalers_metrics_are_the_servers(server: Server) -> None:
    [adapter] = documents(KUBERNETES / "prometheus-adapter.yaml")
    rules = adapter["rules"]["custom"]
    assert rules
    for rule in rules:
        series = re.match(r"\w+", rule["seriesQuery"])
        assert series
        # There before anything has waited: an autoscaler that misses a metric does not scale down.
        assert re.search(rf"^{series[0]}{{deployment=\"default\"}} 0$", metrics(server), re.MULTILINE)
