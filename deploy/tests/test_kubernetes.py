"""The manifests: valid by the published schemas, and true to each other and to the server."""

import re
import tomllib
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from files import (
    INFERENCE_SERVICE,
    KUBERNETES,
    Manifest,
    documents,
    kustomization,
    manifest,
    manifests,
    pod,
    predictor,
    schema,
)

# The oldest and the newest that are to work.
VERSIONS = ["1.29", "1.37"]

CUSTOM = {"ServiceMonitor": "servicemonitor.json", "InferenceService": "inferenceservice.json"}

# How long the server may go on after the drain: stopped edits and open connections have 5 seconds each.
CLOSING_SECONDS = 10


def every_manifest() -> list[Manifest]:
    return [*manifests(), *documents(INFERENCE_SERVICE)]


def named(manifest: Manifest) -> str:
    return f"{manifest['kind']}-{manifest['metadata']['name']}"


def validate(manifest: Manifest, version: str) -> None:
    """Fail on whatever the schema does not know or does not allow."""
    if custom := CUSTOM.get(manifest["kind"]):
        jsonschema.validate(manifest, schema(custom), jsonschema.Draft202012Validator)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", every_manifest(), ids=named)
def test_it_is_valid(manifest: Manifest, version: str) -> None:
    validate(manifest, version)


@pytest.mark.parametrize("manifest", every_manifest(), ids=named)
def test_a_mistake_would_be_seen(manifest: Manifest) -> None:
    wrong = {**manifest, "spec": {**manifest["spec"], "colour": "red"}}
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(wrong, VERSIONS[-1])


def test_every_file_is_part_of_it() -> None:
    values_of_a_chart = {"prometheus-adapter.yaml"}
    listed = {"kustomization.yaml", *kustomization()["resources"], *values_of_a_chart}
    assert {path.name for path in KUBERNETES.glob("*.yaml")} == listed


def test_the_configuration_is_mounted_where_the_server_reads_it() -> None:
    [generated] = kustomization()["configMapGenerator"]
    [volume] = [volume for volume in pod()["volumes"] if "configMap" in volume]
    assert volume["configMap"]["name"] == generated["name"]
    [container] = pod()["containers"]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == volume["name"]]
    [file] = generated["files"]
    assert container["args"] == ["serve", "--config", f"{mount['mountPath']}/{file}"]


def test_the_model_is_mounted_where_the_configuration_says() -> None:
    [volume] = [volume for volume in pod()["volumes"] if "persistentVolumeClaim" in volume]
    manifest("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
    [container] = pod()["containers"]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == volume["name"]]
    assert configuration()["deployments"]["default"]["model"].startswith(f"{mount['mountPath']}/")


def configuration() -> dict[str, Any]:
    return tomllib.loads((KUBERNETES / "smartedit.toml").read_text())


def test_a_pod_may_drain_before_it_is_killed() -> None:
    drain = configuration()["drain"]
    seconds = drain["delay_seconds"] + drain["timeout_seconds"]
    assert pod()["terminationGracePeriodSeconds"] >= seconds + CLOSING_SECONDS


def test_a_pod_takes_edits_until_its_readiness_is_known() -> None:
    [container] = pod()["containers"]
    probe = container["readinessProbe"]
    noticed = probe["failureThreshold"] * (probe["periodSeconds"] + probe["timeoutSeconds"])
    assert configuration()["drain"]["delay_seconds"] > noticed


def test_a_predictor_may_drain_before_it_is_killed() -> None:
    [container] = predictor()["containers"]
    flags = dict(re.findall(r"(delay_seconds|drain-timeout)=(\d+)", " ".join(container["args"])))
    seconds = int(flags["delay_seconds"]) + int(flags["drain-timeout"])
    assert predictor()["terminationGracePeriodSeconds"] >= seconds + CLOSING_SECONDS


@pytest.mark.parametrize("spec", [pod(), predictor()], ids=["pod", "predictor"])
def test_nothing_runs_with_rights_that_it_does_not_need(spec: Manifest) -> None:
    """What the Pod Security Standard `restricted` asks, and a root file system that cannot be written."""
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_services_lead_to_the_pods() -> None:
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    [container] = pod()["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    services = [each for each in manifests() if each["kind"] == "Service"]
    assert len(services) == 2
    for service in services:
        assert service["spec"]["selector"].items() <= labels.items()
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    assert manifest("Service", "smartedit-headless")["spec"]["clusterIP"] == "None"


def test_each_pod_is_scraped_once() -> None:
    monitor = manifest("ServiceMonitor")["spec"]
    [common] = [each["pairs"] for each in kustomization()["labels"]]
    wanted = monitor["selector"]["matchLabels"].items()
    services = [each for each in manifests() if each["kind"] == "Service"]
    [scraped] = [each for each in services if wanted <= {**common, **each["metadata"]["labels"]}.items()]
    [endpoint] = monitor["endpoints"]
    assert endpoint["port"] in {port["name"] for port in scraped["spec"]["ports"]}


def test_the_autoscaler_scales_the_deployment_on_the_adapters_metrics() -> None:
    spec = manifest("HorizontalPodAutoscaler")["spec"]
    target = manifest("Deployment")
    assert spec["scaleTargetRef"] == {
        "apiVersion": target["apiVersion"],
        "kind": target["kind"],
        "name": target["metadata"]["name"],
    }
    assert "replicas" not in target["spec"]
    [adapter] = documents(KUBERNETES / "prometheus-adapter.yaml")
    known = [rule["name"]["as"] for rule in adapter["rules"]["custom"]]
    scaled_on = [metric["pods"]["metric"]["name"] for metric in spec["metrics"]]
    assert scaled_on
    assert scaled_on == known


def test_a_disruption_leaves_somebody() -> None:
    assert manifest("HorizontalPodAutoscaler")["spec"]["minReplicas"] > 1
    assert manifest("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert manifest("Deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
