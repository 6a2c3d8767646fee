"""CUHK-SYSU (Xiao et al., CVPR 2017), people cut out of its scenes; for training only."""

import re
from pathlib import Path

from datasets.base import ReadOptions, Sample, Splits
from datasets.files import match_images, parse_number

_NAME = re.compile(r"p(\d+)_s\d+_\d+\.")
_EXPECTED = "cuhksysu's images named pID_sN_k, as in p11422_s16929_1.jpg"


def read_cuhksysu(root: Path, options: ReadOptions) -> Splits:
    """Reads ``root/cuhksysu/cropped_images``; it names no cameras, so all images are of camera 0.

    Raises:
        UserError: the folder is missing or empty, or an image's name cannot be parsed.
    """
    images = match_images(root / "cuhksysu" / "cropped_images", _NAME, _EXPECTED)
    return Splits([Sample(path, parse_number(match[1], path), 0) for path, match in images], query=[], gallery=[])
