"""Servers shared by all tests of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import servers

# Every stage that is exported as one file.
STAGES = ["vision_encoder", "connector", "text_encoder", "vae_encoder", "denoiser", "vae_decoder"]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The stages as `.onnx` files."""
    directory = tmp_path_factory.mktemp("exported")
    return {stage: servers.export(stage, directory) for stage in STAGES}


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory, exported: dict[str, Path]) -> Iterator[str]:
    """A Triton with every stage, one once more with a batch dimension of Triton's own, and `ident`."""
    place = tmp_path_factory.mktemp("triton")
    repository = place / "models"
    for stage, file in exported.items():
        servers.triton_model(repository, stage, file)
    servers.triton_model(repository, "batched", exported["vae_decoder"], max_batch_size=4)
    servers.triton_identity(repository)
    with servers.triton_server(place, repository, [*exported, "batched", "ident"]) as address:
        yield address


@pytest.fixture(scope="session")
def mlserver(tmp_path_factory: pytest.TempPathFactory, exported: dict[str, Path]) -> Iterator[str]:
    """An MLServer with every stage."""
    place = tmp_path_factory.mktemp("mlserver")
    repository = place / "models"
    for stage, file in exported.items():
        servers.mlserver_model(repository, stage, file)
    with servers.mlserver_server(place, repository, list(exported)) as address:
        yield address
