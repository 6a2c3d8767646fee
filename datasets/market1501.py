"""Market-1501 (Zheng et al., ICCV 2015), and the folder layout that it gave to other data sets."""

import re
from dataclasses import replace
from pathlib import Path

from datasets.base import ReadOptions, Sample, Splits, require_folder
from datasets.files import match_images, parse_number, tell_read_errors
from utils.errors import UserError
from utils.match_ranks import JUNK_PID

DISTRACTOR_PID = 0
_NAME = re.compile(r"(-1|\d+)_c([1-9]\d*)")
_EXPECTED = "images named PPPP_cC… (person, camera from 1), as in 0002_c1s1_000451_03.jpg"


def read_market1501(root: Path, options: ReadOptions) -> Splits:
    """Reads ``root/market1501/Market-1501-v15.09.15`` or, without the inner folder, ``root/market1501``.

    ``options.market1501_500k`` adds the images of the folder ``images`` to the gallery, as distractors.

    Raises:
        UserError: a folder is missing or empty, or an image's name cannot be parsed.
    """
    outer = require_folder(root / "market1501", "Market-1501 with its folder Market-1501-v15.09.15")
    inner = outer / "Market-1501-v15.09.15"
    with tell_read_errors(outer):
        folder = inner if inner.is_dir() else outer
    splits = read_market_layout(folder, "market1501", num_cameras=6)
    if not options.market1501_500k:
        return splits
    distractors = read_market_folder(folder / "images", "market1501", num_cameras=6)
    distractors = [s._replace(pid=DISTRACTOR_PID) for s in distractors]
    return replace(splits, gallery=[*splits.gallery, *distractors])


def read_market_layout(folder: Path, name: str, *, num_cameras: int | None = None) -> Splits:
    """Reads ``bounding_box_train``, ``query`` and ``bounding_box_test`` below ``folder``.

    Args:
        folder: Holds the three folders.
        name: The data set's name, for messages.
        num_cameras: How many cameras the data set has; None takes any number from a name.

    Raises:
        UserError: a folder is missing or holds no image that is not junk, or a name does not begin with ``PPPP_cC``.
    """
    train, query, gallery = (
        read_market_folder(folder / part, name, num_cameras=num_cameras)
        for part in ("bounding_box_train", "query", "bounding_box_test")
    )
    return Splits(train, query, gallery, distractor_pids=frozenset({DISTRACTOR_PID}))


def read_market_folder(folder: Path, name: str, *, num_cameras: int | None) -> list[Sample]:
    """Reads one folder of images named ``PPPP_cC…``; junk (person −1) is left out. Arguments as above."""
    samples = []
    for path, match in match_images(folder, _NAME, f"{name}'s {_EXPECTED}"):
        pid, camera = (parse_number(digits, path) for digits in match.groups())
        if num_cameras is not None and camera > num_cameras:
            raise UserError(f"{path} is of camera {camera}, but {name} has cameras 1 to {num_cameras}: remove the file")
        if pid != JUNK_PID:
            samples.append(Sample(path, pid, camera - 1))
    if not samples:
        raise UserError(f"{folder} holds junk images (person -1) only: copy {name} again")
    return samples
