"""What the real server refuses, by code and field, and that it serves on."""

import io
import zlib

import grpc
import numpy as np
import pytest
from PIL import Image

from smartedit import Client, InvalidArgument, NotFound, SmartEditError
from smartedit.options import EditOptions

INSTRUCTION = "Change the left cat to a fox"


def png_of(width: int, height: int) -> bytes:
    """A tiny file that says to be a large picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gif(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "GIF")
    return file.getvalue()


def still_serves(client: Client, picture: Image.Image) -> None:
    assert client.edit(picture, INSTRUCTION, steps=1, resolution=(64, 64)).image.size == (64, 64)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"steps": 0}, "options.steps"),
        ({"steps": 10**9}, "options.steps"),
        ({"text_guidance": float("nan")}, "options.text_guidance"),
        ({"text_guidance": float("inf")}, "options.text_guidance"),
        ({"image_guidance": -1.0}, "options.image_guidance"),
        ({"temperature": float("nan")}, "options.temperature"),
        ({"resolution": (65, 64)}, "options.resolution.width"),
        ({"resolution": (64, 0)}, "options.resolution.height"),
        ({"resolution": (2**31, 64)}, "options.resolution.width"),
        ({"resolution": (2048, 2048)}, "options.resolution"),
        ({"resolution": (64, 64), "resize_mode": "keep"}, "options.resolution"),
        ({"output_format": "jpeg", "output_quality": 101}, "options.output_quality"),
        ({"template": 10**6}, "options.template"),
    ],
)
def test_options(client: Client, picture: Image.Image, options: EditOptions, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        client.edit(picture, INSTRUCTION, **options)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert field in caught.value.message
    with pytest.raises(InvalidArgument) as caught:
        client.edit_stream(picture, INSTRUCTION, **options).result()
    assert [violation.field for violation in caught.value.violations] == [field]
    still_serves(client, picture)


def test_noise_of_the_wrong_shape(client: Client, picture: Image.Image) -> None:
    with pytest.raises(InvalidArgument) as caught:
        client.edit(
            picture, INSTRUCTION, resolution=(64, 64), steps=1, initial_latents=np.zeros((1, 4, 8, 9))
        )
    [violation] = caught.value.violations
    assert violation.field.startswith("options.replay.initial_latents")
    still_serves(client, picture)


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "gif", "huge"])
def test_pictures(client: Client, picture: Image.Image, kind: str) -> None:
    file = io.BytesIO()
    picture.save(file, "PNG")
    data = {
        "empty": b"",
        "text": b"This is no picture." * 100,
        "truncated": file.getvalue()[: len(file.getvalue()) // 2],
        "gif": gif(picture),
        "huge": png_of(60_000, 60_000),
    }[kind]
    with pytest.raises(InvalidArgument) as caught:
        client.edit(data, INSTRUCTION)
    assert [violation.field for violation in caught.value.violations] == ["image"]
    still_serves(client, picture)


@pytest.mark.parametrize("instruction", ["", "   ", "x" * 501])
def test_instructions(client: Client, picture: Image.Image, instruction: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        client.edit(picture, instruction)
    assert [violation.field for violation in caught.value.violations] == ["instruction"]
    still_serves(client, picture)


def test_an_unknown_deployment(client: Client, picture: Image.Image) -> None:
    with pytest.raises(NotFound, match="`nobody`"):
        client.edit(picture, INSTRUCTION, deployment="nobody")
    with pytest.raises(NotFound, match="`nobody`"):
        client.deployment("nobody")


def test_every_violation_is_named_at_once(client: Client, picture: Image.Image) -> None:
    with pytest.raises(InvalidArgument) as caught:
        client.edit(picture, "", steps=0, text_guidance=float("nan"))
    fields = {violation.field for violation in caught.value.violations}
    assert fields == {"instruction", "options.steps", "options.text_guidance"}


def test_a_file_above_the_limit(client: Client, picture: Image.Image) -> None:
    limit = client.deployment().limits.max_image_bytes
    with pytest.raises(InvalidArgument) as caught:
        client.edit(bytes(limit + 1), INSTRUCTION)
    assert [violation.field for violation in caught.value.violations] == ["image"]
    still_serves(client, picture)


def test_a_message_above_the_limit(client: Client, picture: Image.Image) -> None:
    with pytest.raises(SmartEditError, match="has more than") as caught:
        client.edit(bytes(100 * 2**20), INSTRUCTION)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    still_serves(client, picture)
