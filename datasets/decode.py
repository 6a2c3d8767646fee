"""Image files to tensors: Pillow's pixels, and for JPEG in less time."""

import io
import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.io import decode_jpeg

from utils.errors import UserError

_JPEG_START = b"\xff\xd8\xff"
_PILLOW_ERRORS = (RuntimeError, OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class CorruptImageError(UserError):
    """An image file that is missing, unreadable, cut off or no image; the message names the file."""


def decode_image(path: str | Path) -> Tensor:
    """Reads an image file of any format that Pillow knows.

    JPEG goes through torchvision, whose pixels are the same as Pillow's; everything else goes through Pillow, also PNG:
    torchvision's decoder crashes on a damaged one. An alpha channel is dropped, EXIF orientation is not applied.

    Returns:
        (3, H, W) uint8, RGB, of any memory layout.

    Raises:
        CorruptImageError: the file cannot be read or does not hold a whole image.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - Path interns names, and workers then copy the shared table
            data = file.read()
    except OSError as error:
        raise CorruptImageError(f"cannot read image {path}: {error.strerror or error}") from error
    image = _decode_jpeg(data)
    if image is not None:
        return image
    try:
        return _decode_with_pillow(data)
    except _PILLOW_ERRORS as error:
        reason = str(error).split(" <_io.BytesIO")[0]  # "cannot identify image file <_io.BytesIO object at …>"
        raise CorruptImageError(f"broken image {path}: {reason}; replace the file") from error


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resizes with Pillow's antialiased bilinear filter.

    Args:
        image: (3, H, W) or (N, 3, H, W) uint8.
        height: Wanted, px.
        width: Wanted, px.

    Returns:
        (…, 3, height, width) uint8; ``image`` itself where it has that size.
    """
    if image.shape[-2:] == (height, width):
        return image
    batch = image if image.dim() == 4 else image[None]
    if batch.is_cuda:  # uint8 is resized on the CPU only
        resized = F.interpolate(batch.float(), (height, width), mode="bilinear", antialias=True)
        resized = resized.round_().clamp_(0, 255).to(torch.uint8)
    else:
        resized = F.interpolate(batch, (height, width), mode="bilinear", antialias=True)
    return resized if image.dim() == 4 else resized[0]


def _decode_jpeg(data: bytes) -> Tensor | None:
    """Decodes a JPEG with one or three channels; None where Pillow must decide."""
    if not data.startswith(_JPEG_START):
        return None
    try:
        image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    except RuntimeError:
        return None
    if image.shape[0] == 1:
        return image.expand(3, -1, -1)
    return image if image.shape[0] == 3 else None


def _decode_with_pillow(data: bytes) -> Tensor:
    with Image.open(io.BytesIO(data)) as image:
        if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip it
            grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
            return torch.from_numpy(grey).expand(3, -1, -1)
        palette_with_alpha = image.mode == "P" and "transparency" in image.info  # Pillow warns of the direct way
        pixels = np.array((image.convert("RGBA") if palette_with_alpha else image).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)
