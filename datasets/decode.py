"""Image files to tensors: Pillow's pixels, and for JPEG in less time."""

import os
import stat
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.images import CorruptImageError, ImageError, check_size, find_jpeg_size, read_rgb

try:
    from torchvision.io import decode_jpeg
except ImportError:  # a version that has given its decoders up
    decode_jpeg = None

# torchvision says with each image that its decoders will go one day; above, that is provided for
warnings.filterwarnings("ignore", "The image decoding and encoding capabilities", DeprecationWarning)

_JPEG_START = b"\xff\xd8\xff"


def decode_image(path: str | Path) -> Tensor:
    """Reads an image file of any format that Pillow knows.

    JPEG goes through torchvision where it has a decoder, whose pixels are the same as Pillow's; everything else goes
    through Pillow, also PNG: torchvision's decoder crashes on a damaged one. An alpha channel is dropped, EXIF
    orientation is not applied.

    Returns:
        (3, H, W) uint8, RGB, of any memory layout.

    Raises:
        CorruptImageError: the file cannot be read or does not hold a whole image, or one too large to be decoded.
    """
    try:
        # not Path.open, which interns names: workers would then copy the shared table
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CorruptImageError(f"cannot read image {path}: it is no regular file")
            data = file.read()
    except OSError as error:
        raise CorruptImageError(f"cannot read image {path}: {error.strerror or error}") from error
    try:
        image = _decode_jpeg(data)
        if image is not None:
            return image
        return torch.from_numpy(np.array(read_rgb(data))).permute(2, 0, 1)
    except ImageError as error:
        raise CorruptImageError(f"broken image {path}: {error}; replace the file") from error


def _open_at_once(path: str, flags: int) -> int:
    """Opens a file, a pipe without waiting for what is at its other end."""
    return os.open(path, flags | os.O_NONBLOCK)


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
    size = find_jpeg_size(data) if data.startswith(_JPEG_START) else None
    if size is None or decode_jpeg is None:
        return None
    check_size(*size)
    try:
        image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    except (RuntimeError, AttributeError):  # a broken file; a torchvision that was built without its decoders
        return None
    if image.shape[0] == 1:
        return image.expand(3, -1, -1)
    return image if image.shape[0] == 3 else None
