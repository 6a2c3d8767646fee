"""CUHK01 (Li et al., ACCV 2012)."""

import re
from pathlib import Path

from datasets.base import ReadOptions, Sample, Splits
from datasets.files import match_images
from datasets.random_splits import split_two_cameras

_NAME = re.compile(r"(\d{4})00([1-4])\D")
_EXPECTED = "cuhk01's images named PPPPNNN (person, image 1 to 4), as in 0001001.png"


def read_cuhk01(root: Path, options: ReadOptions) -> Splits:
    """Reads ``root/cuhk01/campus``; images 1 and 2 of a person are of camera 0, images 3 and 4 of camera 1.

    Ten random half splits, each with either camera as the query: 20 values of ``options.split_id``.

    Raises:
        UserError: the folder is missing or empty, a name cannot be parsed, or ``split_id`` is out of range.
    """
    folder = root / "cuhk01"
    samples = [
        Sample(path, int(match[1]), (int(match[2]) - 1) // 2)
        for path, match in match_images(folder / "campus", _NAME, _EXPECTED)
    ]
    return split_two_cameras(folder, samples, options.split_id)
