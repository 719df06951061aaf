"""Pictures on their way to the server."""

import io
import os
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageOps

Picture: TypeAlias = Image.Image | bytes | str | os.PathLike[str]
"""A PIL image, the bytes of a PNG, JPEG or WebP file, or the path of one."""

_PNG_MODES = frozenset({"1", "L", "LA", "RGB", "RGBA"})


def encode(picture: Picture, *, upright: bool = True) -> bytes:
    """Give the bytes of a picture's file.

    Files travel as they are. A PIL image becomes a PNG, turned upright by its EXIF orientation
    unless `upright` is false.
    """
    if isinstance(picture, bytes):
        return picture
    if not isinstance(picture, Image.Image):
        return Path(picture).read_bytes()
    image = (ImageOps.exif_transpose(picture) or picture) if upright else picture
    if image.mode not in _PNG_MODES:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    file = io.BytesIO()
    # The server reads it once: time spent on making it small is lost.
    image.save(file, format="PNG", compress_level=1)
    return file.getvalue()
