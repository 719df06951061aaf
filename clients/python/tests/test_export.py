"""Exported stages: ONNX's checker takes them, and ONNX Runtime makes of them what the reference recorded."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from servers import REPOSITORY

Array = NDArray[Any]
# Bars of golden tensors, relative to the largest magnitude; the reference's VAE encoder loses digits itself.
APPROXIMATE, LOOSE = 1e-4, 5e-3


class Pack:
    """Tensors and texts that the official implementation made."""

    def __init__(self) -> None:
        pack = os.environ.get("SMARTEDIT_GOLDEN_PACK")
        self.directory = Path(pack) if pack else REPOSITORY / "tests" / "golden" / "pack_a"
        self.json = json.loads((self.directory / "golden.json").read_text())
        content = (self.directory / "golden.safetensors").read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        self.header, self.data = json.loads(content[8:start]), content[start:]

    def __contains__(self, name: str) -> bool:
        return name in self.header

    def __getitem__(self, name: str) -> Array:
        entry = self.header[name]
        start, end = entry["data_offsets"]
        dtype = {"F32": np.float32, "F64": np.float64, "U8": np.uint8}[entry["dtype"]]
        return np.frombuffer(self.data[start:end], dtype).reshape(entry["shape"])


def smartedit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the program."""
    binary = os.environ.get("SMARTEDIT_BIN")
    assert binary, "SMARTEDIT_BIN must name the server's binary; `cargo xtask test` builds it and sets it"
    return subprocess.run([binary, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def pack() -> Pack:
    return Pack()


@pytest.fixture(scope="module")
def model(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack's checkpoints as a model directory."""
    official, paths = pack.directory / "official", pack.json["paths"]
    out = tmp_path_factory.mktemp("export") / "model"
    converted = smartedit(
        "convert", "smartedit", "--out", out,
        "--vicuna", official / paths["vicuna"],
        "--llava", official / paths["llava"],
        "--smartedit", official / paths["total"],
        "--vision-tower", official / "openai/clip-vit-large-patch14",
        "--instruct-pix2pix", official / "timbrooks/instruct-pix2pix",
        "--qformer-config", official / "bert-base-uncased/config.json",
    )  # fmt: skip
    assert converted.returncode == 0, converted.stderr
    return out


class Exported:
    """An exported file in ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        onnx.checker.check_model(str(path), full_check=True)
        domains = {opset.domain for opset in onnx.load(str(path), load_external_data=False).opset_import}
        assert domains == {""}, "only ONNX's own operators"
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(None, inputs), strict=True))


def export(model: Path, stage: str, out: Path) -> list[Exported]:
    """Export a stage and open its files."""
    done = smartedit("export", model, "--stage", stage, "--out", out)
    assert done.returncode == 0, done.stderr
    files = [Path(line) for line in done.stdout.splitlines()]
    beside = [path.with_name(path.name + ".data") for path in files]
    assert sorted(out.iterdir()) == sorted(files + beside), "nothing else is left there"
    return [Exported(path) for path in files]


def assert_close(found: Array, expected: Array, tolerance: float = APPROXIMATE) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_vision_encoder(pack: Pack, model: Path, tmp_path: Path) -> None:
    (stage,) = export(model, "vision_encoder", tmp_path)
    outputs = stage(pixel_values=pack["case0.pixel_values"])
    assert_close(outputs["image_features"], pack["case0.vision_features"])


def test_text_encoder(pack: Pack, model: Path, tmp_path: Path) -> None:
    (stage,) = export(model, "text_encoder", tmp_path)
    outputs = stage(input_ids=np.array([pack.json["null_text_ids"]], np.int64))
    assert_close(outputs["hidden_states"], pack["null_text_embeds"])


def test_vae(pack: Pack, model: Path, tmp_path: Path) -> None:
    (encoder,) = export(model, "vae_encoder", tmp_path / "encoder")
    pixels = pack["case0.sd_input_u8"].astype(np.float32).transpose(2, 0, 1)[None] / 255 * 2 - 1
    assert_close(encoder(image=pixels)["latents"], pack["case0.image_latents"], LOOSE)
    (decoder,) = export(model, "vae_decoder", tmp_path / "decoder")
    assert_close(decoder(latents=pack["case0.vae_decode_in"])["image"], pack["case0.vae_decode_out"])


def test_connector_and_denoiser(pack: Pack, model: Path, tmp_path: Path) -> None:
    (connector,) = export(model, "connector", tmp_path / "connector")
    states, features = pack["case0.img_states"], pack["case0.vision_features"]
    conditioning = connector(image_states=states, image_features=features)
    assert_close(conditioning["prompt_embeds"], pack["case0.prompt_embeds"])

    (denoiser,) = export(model, "unet", tmp_path / "denoiser")
    steps = next(count for count in range(1, 1001) if f"case0.latents_{count}" not in pack)
    inputs = {
        "sample": pack["case0.unet_in_0"],
        "timestep": np.full(3, pack[f"sched.{steps}.timesteps"][0], np.float32),
        "prompt_embeds": pack["case0.cfg_prompt_embeds"],
        "image_feature": conditioning["image_feature"],
    }
    assert_close(denoiser(**inputs)["noise_prediction"], pack["case0.unet_out_0"])

    # Other sizes than those it was exported with: there are none.
    inputs["sample"] = inputs["sample"][:, :, :12, :10]
    batch = denoiser(**inputs)["noise_prediction"]
    first = {name: value[:1] for name, value in inputs.items()}
    assert_close(denoiser(**first)["noise_prediction"], batch[:1])


def test_language_model(pack: Pack, model: Path, tmp_path: Path) -> None:
    forward, head = export(model, "language_model", tmp_path)
    tokens = pack.json["cases"][0]["token_ids"]
    image = tokens.index(pack.json["tokenizer"]["added"]["<img_0>"])
    features, expected = pack["case0.vision_features"], pack["case0.prompt_hidden"]
    count = expected.shape[1]
    past = [value for value in forward.session.get_inputs() if value.name.startswith("past_")]
    heads, width = past[0].shape[1], past[0].shape[3]
    stages = json.loads((model / "model.json").read_text())["stages"]
    frequencies = stages["language_model"]["network"]["rope_theta"] ** -(np.arange(0, width, 2) / width)
    angles = np.tile(np.outer(np.arange(count), frequencies), 2)
    outputs = forward(
        tokens_before=np.array([tokens[:image]], np.int64),
        image_features=features,
        tokens_after=np.array([tokens[image + 1 :]], np.int64),
        cos=np.cos(angles).astype(np.float32),
        sin=np.sin(angles).astype(np.float32),
        mask=np.triu(np.full((count, count), -np.inf, np.float32), 1),
        **{value.name: np.zeros((1, heads, 0, width), np.float32) for value in past},
    )
    assert_close(outputs["hidden_states"], expected)
    logits = head(hidden_states=outputs["hidden_states"][:, -1:])["logits"]
    assert_close(logits[0, 0], pack["case0.first_logits"])


def test_nothing_is_replaced_unasked(model: Path, tmp_path: Path) -> None:
    arguments = ("export", model, "--stage", "vae_decoder", "--out", tmp_path)
    assert smartedit(*arguments).returncode == 0
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    refused = smartedit(*arguments)
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert smartedit(*arguments, "--force").returncode == 0
    Exported(tmp_path / "vae_decoder.onnx")


def test_a_stage_that_there_is_not(model: Path, tmp_path: Path) -> None:
    refused = smartedit("export", model, "--stage", "rocket", "--out", tmp_path)
    assert refused.returncode == 2
    assert "denoiser" in refused.stderr
    assert list(tmp_path.iterdir()) == []
