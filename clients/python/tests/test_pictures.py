import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smartedit.pictures import encode


def read(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_files_travel_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(b"whatever is in it")
    assert encode(path) == encode(str(path)) == encode(b"whatever is in it") == b"whatever is in it"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        encode(tmp_path / "missing.png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA"])
def test_images_keep_every_pixel(mode: str, picture: Image.Image) -> None:
    image = picture.convert(mode)
    sent = read(encode(image))
    assert sent.format == "PNG"
    assert np.array_equal(np.asarray(sent.convert("RGBA")), np.asarray(image.convert("RGBA")))


@pytest.mark.parametrize("mode", ["CMYK", "HSV", "YCbCr", "P"])
def test_other_modes_become_rgb(mode: str, picture: Image.Image) -> None:
    image = picture.convert(mode)
    sent = read(encode(image))
    assert sent.mode == "RGB"
    assert np.array_equal(np.asarray(sent), np.asarray(image.convert("RGB")))


def test_a_transparent_palette_stays_transparent() -> None:
    image = Image.new("P", (8, 8))
    image.info["transparency"] = 0
    assert read(encode(image)).getpixel((0, 0)) == (0, 0, 0, 0)


def test_images_are_turned_upright_unless_told_otherwise() -> None:
    image = Image.new("RGB", (16, 8))
    image.getexif()[0x0112] = 6
    assert read(encode(image)).size == (8, 16)
    assert read(encode(image, upright=False)).size == (16, 8)
