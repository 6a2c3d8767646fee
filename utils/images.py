"""Image files by way of Pillow: RGB as the networks see it, and a bound on what is decoded at all."""

import functools
import io
import struct
import threading
import warnings

import numpy as np
from PIL import Image

from utils.errors import UserError

MAX_PIXELS = 89_478_485  # of one image, 256 MiB as RGB: where Pillow begins to warn

_START_OF_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOF0 to SOF15; the others are tables
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM, RST0 to RST7
_PILLOW_ERRORS = (RuntimeError, OSError, SyntaxError, ValueError, EOFError, struct.error, MemoryError)
_opening = threading.Lock()  # the list of filters is the whole process's


class CorruptImageError(UserError):
    """An image file that is missing, unreadable, cut off, too large or no image; the message names the file."""


class ImageError(Exception):
    """Why a file's content cannot be decoded, to be completed with the file's name."""


def read_rgb(content: bytes) -> Image.Image:
    """Decodes an image file of any format that Pillow knows but EPS.

    16-bit grey keeps its upper 8 bits, where Pillow would clip; an alpha channel is dropped; EXIF orientation is not
    applied.

    Raises:
        ImageError: it is no whole image, one of floating-point numbers, or of more than ``MAX_PIXELS``.
    """
    try:
        with _open(content) as image:
            check_size(image.width, image.height)
            if image.mode == "F":
                raise ImageError("its pixels are floating-point numbers, whose white nobody knows")
            return to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"too large, more than {MAX_PIXELS:,} pixels") from error
    except _PILLOW_ERRORS as error:
        # "cannot identify image file <_io.BytesIO object at …>"
        raise ImageError(str(error).split(" <_io.BytesIO")[0] or type(error).__name__) from error


def check_size(width: int, height: int) -> None:
    """Checks before an image is decoded that there is reason to.

    Raises:
        ImageError: it has more than ``MAX_PIXELS``.
    """
    if width * height > MAX_PIXELS:
        raise ImageError(f"too large, {width} × {height} pixels are more than {MAX_PIXELS:,}")


def find_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Returns a JPEG's width and height in px as its header gives them, None where it has to be looked for further.

    Source: ITU-T T.81, B.1.1.2 (markers), B.1.1.4 (lengths of segments), B.2.2 (frame header).
    """
    at = 2  # behind the marker SOI
    while at + 9 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", content, at + 5)
            return width, height
        if marker == 0xFF:  # fills up
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + struct.unpack_from(">H", content, at + 2)[0]
    return None


def _open(content: bytes) -> Image.Image:
    """Opens an image without decoding it; nothing is written to stderr, and a warning of a large one is an error."""
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(content), formats=_list_formats())


@functools.cache
def _list_formats() -> list[str]:
    """Lists Pillow's formats but EPS, for which it would start another program (Ghostscript) on the file."""
    Image.init()
    return [name for name in Image.ID if name != "EPS"]


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns an image in RGB; 16 bits of grey become 8, transparency goes."""
    if image.mode.startswith("I"):
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    palette_with_alpha = image.mode == "P" and "transparency" in image.info  # Pillow warns of the direct way
    return (image.convert("RGBA") if palette_with_alpha else image).convert("RGB")
