"""Small copies of image files, for pages and sheets."""

import base64
import io
from pathlib import Path

from PIL import Image

from utils.errors import UserError
from utils.images import ImageError, read_rgb
from utils.printable import make_printable


def read_thumbnail(path: str | Path, height: int, width: int) -> Image.Image:
    """Reads an image file and scales it down, never up, to fit into ``height`` × ``width`` px.

    Returns:
        An RGB image, converted as the networks' images are; its shape is the file's.

    Raises:
        UserError: the file cannot be read, or is too large.
    """
    try:
        rgb = read_rgb(Path(path).read_bytes())
    except (OSError, ImageError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read image {path} for a picture: {reason}") from error
    rgb.thumbnail((width, height), Image.Resampling.LANCZOS)
    return rgb


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
