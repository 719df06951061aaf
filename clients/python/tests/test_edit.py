"""Edits by the real server."""

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smartedit import AsyncClient, Client, Picture, Result

from servers import Server

INSTRUCTION = "Change the left cat to a fox"


def pixels(result: Result) -> np.ndarray:
    return np.asarray(result.image.convert("RGB"))


def test_an_edit_comes_back_whole(client: Client, picture: Image.Image) -> None:
    result = client.edit(picture, INSTRUCTION, seed=7, steps=2, resolution=(64, 48))
    assert result.image.size == (result.width, result.height) == (64, 48)
    assert (result.image.format, result.mime_type) == ("PNG", "image/png")
    assert (result.seed, result.deployment) == (7, "default")
    assert result.request_id
    stages = list(result.timings.stages)
    assert stages[-1] == "vae_decoder"
    assert {"vae_encoder", "denoiser"} < set(stages)
    assert 0 < result.timings.stages["denoiser"] <= result.timings.total


def test_the_seed_decides_the_picture(client: Client, picture: Image.Image) -> None:
    one, same, other = (
        client.edit(picture, INSTRUCTION, seed=seed, steps=2, resolution=(64, 64)) for seed in (1, 1, 2)
    )
    assert np.array_equal(pixels(one), pixels(same))
    assert not np.array_equal(pixels(one), pixels(other))


def test_a_random_seed_is_reported_and_repeats_the_edit(client: Client, picture: Image.Image) -> None:
    first = client.edit(picture, INSTRUCTION, steps=2, resolution=(64, 64))
    again = client.edit(picture, INSTRUCTION, steps=2, resolution=(64, 64), seed=first.seed)
    assert np.array_equal(pixels(first), pixels(again))


def test_given_noise_takes_the_place_of_the_seeds(client: Client, picture: Image.Image) -> None:
    noise = np.random.default_rng(0).standard_normal((3, 1, 4, 8, 8))

    def edit(seed: int) -> np.ndarray:
        return pixels(
            client.edit(
                picture,
                INSTRUCTION,
                seed=seed,
                steps=2,
                resolution=(64, 64),
                initial_latents=noise[0],
                step_noise=list(noise[1:]),
            )
        )

    assert np.array_equal(edit(1), edit(2))


@pytest.mark.parametrize(("name", "mime_type"), [("jpeg", "image/jpeg"), ("webp", "image/webp")])
def test_the_output_format_can_be_chosen(
    client: Client, picture: Image.Image, tmp_path: Path, name: str, mime_type: str
) -> None:
    result = client.edit(
        picture,
        INSTRUCTION,
        steps=1,
        resolution=(64, 64),
        output_format=name,  # type: ignore[arg-type]
    )
    assert (result.mime_type, result.image.format) == (mime_type, name.upper())
    result.save(tmp_path / "edited")
    assert (tmp_path / "edited").read_bytes() == result.data


def test_files_and_images_give_the_same_picture(client: Client, picture: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    picture.save(path)
    sent: list[Picture] = [picture, path, path.read_bytes()]
    edited = [
        pixels(client.edit(source, INSTRUCTION, seed=3, steps=1, resolution=(64, 64))) for source in sent
    ]
    assert np.array_equal(edited[0], edited[1])
    assert np.array_equal(edited[0], edited[2])


def test_an_upright_image_and_its_turned_file_give_the_same_picture(
    client: Client, picture: Image.Image, tmp_path: Path
) -> None:
    turned = picture.resize((64, 32)).transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    file = io.BytesIO()
    turned.save(file, "PNG", exif=turned.getexif())
    sent: list[Picture] = [turned, file.getvalue(), picture.resize((64, 32))]
    edited = [
        pixels(client.edit(source, INSTRUCTION, seed=3, steps=1, resize_mode="keep")) for source in sent
    ]
    assert edited[0].shape == (32, 64, 3)
    assert np.array_equal(edited[0], edited[1])
    assert np.array_equal(edited[0], edited[2])


def test_a_picture_above_4_mib(client: Client) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG", compress_level=0)
    assert len(file.getvalue()) > 4 * 2**20
    assert client.edit(file.getvalue(), INSTRUCTION, steps=1, resolution=(64, 64)).image.size == (64, 64)


async def test_asyncio_edits_at_the_same_time(server: Server, client: Client, picture: Image.Image) -> None:
    async with AsyncClient(server.address, timeout=120) as asynchronous:
        results = await asyncio.gather(
            *(
                asynchronous.edit(picture, INSTRUCTION, seed=seed, steps=2, resolution=(64, 64))
                for seed in range(3)
            )
        )
    for seed, result in enumerate(results):
        alone = client.edit(picture, INSTRUCTION, seed=seed, steps=2, resolution=(64, 64))
        assert np.array_equal(pixels(result), pixels(alone))


def test_deployments_tell_what_may_be_asked(client: Client) -> None:
    [deployment, narrow] = client.deployments()
    assert (narrow.name, narrow.is_default) == ("narrow", False)
    assert deployment == client.deployment() == client.deployment("default")
    assert (deployment.name, deployment.is_default) == ("default", True)
    assert (deployment.state, deployment.accepting, deployment.message) == ("ready", True, "")
    assert deployment.pipeline in ("smart_edit", "instruct_pix2pix")
    assert deployment.limits.max_steps == 1000
    assert deployment.defaults.scheduler in ("euler_ancestral", "euler", "ddim")
    for stage in deployment.stages:
        assert (stage.engine, stage.device, stage.precision) == ("candle", "cpu", "f32")
        assert stage.weight_bytes > 0
        assert (stage.provider, stage.threads, stage.unavailable) == (None, None, ())


async def test_asyncio_lists_the_same_deployments(server: Server, client: Client) -> None:
    async with AsyncClient(server.address) as asynchronous:
        assert await asynchronous.deployments() == client.deployments()
        assert await asynchronous.deployment() == client.deployment()
