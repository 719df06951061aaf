"""Edits whose stages are computed by servers that nobody here wrote."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import tritonclient.grpc as client

from conftest import STAGES

import servers

PICTURE = servers.ROOT / "examples" / "left-animal.png"


def configuration(address: str, models: dict[str, str], **options: object) -> str:
    """A deployment `here`, and one `there` whose stages are these models of another server."""
    lines = ['default_deployment = "here"', "[cache]", "max_bytes = 0", "max_prefix_bytes = 0"]
    for name in ["here", "there"]:
        lines += [f"[deployments.{name}]", f'model = "{servers.MODEL}"']
    for stage, model in models.items():
        lines += [f"[deployments.there.stages.{stage}]", 'engine = "remote"']
        lines += [
            f"[deployments.there.stages.{stage}.remote]",
            f'url = "http://{address}"',
            f'model = "{model}"',
        ]
        lines += [f"{key} = {json.dumps(value)}" for key, value in options.items()]
    return "\n".join(lines)


def compared(place: Path, text: str, steps: int, count: Callable[[], int] = lambda: 0) -> tuple[dict, int]:
    """What `smartedit compare` says of an edit on `here` and `there`, and by how much that raises a count."""
    models = ["here", "there", "there/denoiser"]
    with servers.smartedit_server(place, text, models) as address:
        command = [servers.smartedit(), "compare", str(PICTURE), "Change the left animal to a fox"]
        command += ["--server", address, "--json", "-d", "here", "-d", "there"]
        command += ["--steps", str(steps), "--resolution", "64x64", "--seed", "7"]
        before = count()
        answer = subprocess.run(command, check=True, capture_output=True)
        counted = count() - before
        metadata = client.InferenceServerClient(address).get_model_metadata("there/denoiser")
        assert metadata.platform == "remote"
    return json.loads(answer.stdout)["deployments"][1]["difference"], counted


def check(difference: dict) -> None:
    """ONNX Runtime's sums are rounded otherwise, no more."""
    assert difference["latents"]["max"] < 1e-3, difference
    assert difference["pixels"]["max"] <= 1, difference


def test_stages_on_triton(triton: str, tmp_path: Path) -> None:
    steps = 4
    asked = client.InferenceServerClient(triton)

    def count() -> int:
        return asked.get_inference_statistics("denoiser").model_stats[0].execution_count

    text = configuration(triton, {stage: stage for stage in STAGES})
    difference, counted = compared(tmp_path, text, steps, count)
    check(difference)
    assert counted == steps, "the branches of guidance share a call"


def test_a_batch_dimension_of_tritons_own(triton: str, tmp_path: Path) -> None:
    models = {"vae_decoder": "batched", "denoiser": "denoiser"}
    check(compared(tmp_path, configuration(triton, models), steps=2)[0])


@pytest.mark.parametrize("raw", [True, False])
def test_stages_on_mlserver(mlserver: str, tmp_path: Path, raw: bool) -> None:
    text = configuration(mlserver, {stage: stage for stage in STAGES}, raw=raw)
    check(compared(tmp_path, text, steps=2)[0])


@pytest.mark.parametrize("server", ["triton", "mlserver"])
@pytest.mark.parametrize(
    ("model", "words"),
    [("vae_decoder", ["`sample`", "`latents`"]), ("nowhere", ["`nowhere`", "cannot run denoiser"])],
    ids=["does_not_fit", "is_not_there"],
)
def test_a_model_that_cannot_be_used(
    server: str, model: str, words: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    text = configuration(request.getfixturevalue(server), {"denoiser": model})
    with (
        servers.smartedit_server(tmp_path, text, ["here"]) as address,
        pytest.raises(client.InferenceServerException) as refused,
    ):
        client.InferenceServerClient(address).get_model_metadata("there")
    for word in words:
        assert word in str(refused.value)
