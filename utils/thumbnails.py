"""Small copies of image files, for pages and sheets."""

import base64
import io
from pathlib import Path

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
            # by way of RGBA: Pillow warns of palettes with transparency
            rgb = image.convert("RGBA" if image.mode == "P" else "RGB").convert("RGB")
    except OSError as error:
        raise UserError(f"cannot read image {path} for a picture: {error.strerror or error}") from error
    rgb.thumbnail((width, height), Image.Resampling.LANCZOS)
    return rgb


def encode_data_uri(image: Image.Image) -> str:
    """Returns an image as a JPEG in a ``data:`` address."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
