"""CUHK02 (Li and Wang, CVPR 2013)."""

import re
from pathlib import Path

from datasets.base import ReadOptions, Sample, Splits, require_folder
from datasets.files import match_images
from utils.label_names import LabelNames

_TRAIN_PAIRS = (1, 2, 3, 4)
_TEST_PAIR = 5
_PIDS_PER_PAIR = 100_000  # more than a pair can have with five digits
_NAME = re.compile(r"(\d{1,5})_")
_EXPECTED = "cuhk02's images named PPP_… (person), as in 001_108001.png"


def read_cuhk02(root: Path, options: ReadOptions) -> Splits:
    """Reads ``root/cuhk02/Dataset/P{1..5}/cam{1,2}``: pairs 1 to 4 to train, pair 5 to test (camera 1 is the query).

    Each pair of cameras saw different people.

    Raises:
        UserError: a folder is missing or empty, or an image's name cannot be parsed.
    """
    folder = require_folder(root / "cuhk02" / "Dataset", "CUHK02's folders P1 to P5")
    train = [s for pair in _TRAIN_PAIRS for camera in (1, 2) for s in _read_camera(folder, pair, camera)]
    query, gallery = (_read_camera(folder, _TEST_PAIR, camera) for camera in (1, 2))
    names = {_number_camera(pair, c): f"P{pair}/cam{c}" for pair in (*_TRAIN_PAIRS, _TEST_PAIR) for c in (1, 2)}
    return Splits(train, query, gallery, names=LabelNames(cameras=names))


def _number_camera(pair: int, camera: int) -> int:
    """Numbers all cameras from 0; both arguments count from 1."""
    return 2 * (pair - 1) + camera - 1


def _read_camera(folder: Path, pair: int, camera: int) -> list[Sample]:
    """Reads one camera of a pair; both count from 1."""
    return [
        Sample(path, pair * _PIDS_PER_PAIR + int(match[1]), _number_camera(pair, camera))
        for path, match in match_images(folder / f"P{pair}" / f"cam{camera}", _NAME, _EXPECTED)
    ]
