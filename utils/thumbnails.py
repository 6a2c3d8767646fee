"""Small copies of image files, for pages and sheets."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from utils.errors import UserError


def read_thumbnail(path: str | Path, height: int, width: int) -> Image.Image:
    """Reads an image file and scales it down, never up, to fit into ``height`` × ``width`` px.

    Returns:
        An RGB image; its shape is the file's.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with Image.open(path) as image:
            rgb = _to_rgb(image)
    except OSError as error:
        raise UserError(f"cannot read image {path} for a picture: {error.strerror or error}") from error
    rgb.thumbnail((width, height), Image.Resampling.LANCZOS)
    return rgb


def _to_rgb(image: Image.Image) -> Image.Image:
    """Converts as ``datasets.decode`` does, so that a picture shows what the network saw."""
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip it
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    # by way of RGBA: Pillow warns of palettes with transparency
    return image.convert("RGBA" if image.mode == "P" else "RGB").convert("RGB")


def make_printable(name: str) -> str:
    r"""Writes what of a file's name cannot be shown as in Python: ``\n``, ``\x1b``, ``\udcf6`` (bytes not UTF-8)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def shorten(name: str, length: int) -> str:
    """Makes a file's name printable and cuts its middle out if it has more than ``length`` characters."""
    name = make_printable(name)
    if len(name) <= length:
        return name
    kept = length - 1
    return f"{name[: kept - kept // 2]}…{name[len(name) - kept // 2 :]}"


def encode_data_uri(image: Image.Image) -> str:
    """Returns an image as a JPEG in a ``data:`` address."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
