"""QMUL GRID, underground station (Loy et al., CVPR 2009)."""

import re
from pathlib import Path

import numpy as np

from datasets.base import MissingDataError, ReadOptions, Sample, Splits, check_split_id, require_images
from datasets.files import match_images, parse_number
from datasets.matlab import load_matlab
from utils.errors import UserError

DISTRACTOR_PID = 0
_NAME = re.compile(r"(\d+)_([1-8])_")
_EXPECTED = "grid's images named PPPP_C_… (person, camera 1 to 8), as in 0001_1_25004_107_32_106_221.jpeg"
_DAMAGE = (ValueError, OverflowError, KeyError, IndexError, TypeError, AttributeError)  # also another structure
_TRAIN_FIELD = 2  # position of the training identities in the structure of a split


def read_grid(root: Path, options: ReadOptions) -> Splits:
    """Reads ``root/grid/underground_reid``; person 0 of the gallery is everybody who is not in a pair.

    ``options.split_id`` chooses one of the partitions in ``features_and_partitions.mat``.

    Raises:
        UserError: a folder or the partitions are missing or do not fit together, an image's name cannot be parsed,
            or ``split_id`` is out of range.
    """
    folder = root / "grid" / "underground_reid"
    probe = _read_folder(folder / "probe")
    gallery = _read_folder(folder / "gallery")
    train_pids, num_splits = _read_train_pids(folder / "features_and_partitions.mat", options.split_id)
    known = {s.pid for s in probe} & {s.pid for s in gallery}
    if not train_pids <= known:
        raise UserError(
            f"person {min(train_pids - known)} of GRID's partitions is not in both {folder}/probe and gallery"
        )
    splits = Splits(
        train=[s for s in [*gallery, *probe] if s.pid in train_pids],
        query=[s for s in probe if s.pid not in train_pids],
        gallery=[s for s in gallery if s.pid not in train_pids],
        distractor_pids=frozenset({DISTRACTOR_PID}),
        split_ids=range(num_splits),
    )
    return require_images(folder, splits)


def _read_folder(folder: Path) -> list[Sample]:
    return [
        Sample(path, parse_number(match[1], path), int(match[2]) - 1)
        for path, match in match_images(folder, _NAME, _EXPECTED)
    ]


def _read_train_pids(file: Path, split_id: int) -> tuple[set[int], int]:
    """Reads a split's identities to train on, and the number of splits, from a cell array in a MATLAB 5 file."""
    if not file.is_file():
        raise MissingDataError(f"no file {file}: expected the partitions that come with GRID")
    try:
        cells = load_matlab(file, ["trainIdxAll"])["trainIdxAll"].ravel()
        check_split_id("grid", split_id, len(cells))
        fields = cells[split_id].ravel()[0]
        return {int(pid) for pid in np.ravel(fields[_TRAIN_FIELD])}, len(cells)
    except _DAMAGE as error:
        raise UserError(f"{file} does not hold GRID's partitions ({error!r}): copy it again") from error
