"""The files of the deployment, as the tests read them."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parents[1]
REPOSITORY = DEPLOY.parent
SHIPPED_MODEL = REPOSITORY / "models" / "emoji"
KUBERNETES = DEPLOY / "kubernetes"
INFERENCE_SERVICE = DEPLOY / "kserve" / "inferenceservice.yaml"

Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    """Give the documents of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def kustomization() -> Manifest:
    [kustomization] = documents(KUBERNETES / "kustomization.yaml")
    return kustomization


def manifests() -> Iterator[Manifest]:
    """Give every manifest that the kustomization lists."""
    for name in kustomization()["resources"]:
        yield from documents(KUBERNETES / name)


def manifest(kind: str, name: str = "smartedit") -> Manifest:
    [found] = [each for each in manifests() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pod() -> Manifest:
    """Give the specification of the Deployment's pods."""
    spec: Manifest = manifest("Deployment")["spec"]["template"]["spec"]
    return spec


def predictor() -> Manifest:
    """Give the specification of the InferenceService's pods."""
    [service] = documents(INFERENCE_SERVICE)
    spec: Manifest = service["spec"]["predictor"]
    return spec


def schema(name: str) -> Manifest:
    loaded: Manifest = json.loads((Path(__file__).parent / "schemas" / name).read_text())
    return loaded


def program(name: str) -> str:
    """Give a program's path, which `cargo xtask test` tells in a variable."""
    path = os.environ.get(name)
    assert path, f"{name} must name a program; `cargo xtask test` fetches or builds it and sets it"
    return path


def environment() -> dict[str, str]:
    """Give the environment without settings of the server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SMARTEDIT_")}


def smartedit(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    command = [program("SMARTEDIT_BIN"), *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
