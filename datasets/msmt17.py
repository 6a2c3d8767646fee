"""MSMT17 (Wei et al., CVPR 2018), version 1 and version 2 (faces blurred)."""

import os
import re
from pathlib import Path

from datasets.base import MissingDataError, ReadOptions, Sample, Splits, require_folder
from datasets.files import list_folder_names, list_image_names, match_name, parse_number, tell_read_errors
from utils.errors import UserError

_VERSIONS = {"MSMT17_V1": ("train", "test"), "MSMT17_V2": ("mask_train_v2", "mask_test_v2")}
_NUM_CAMERAS = 15
_NAME = re.compile(r"[^_]+_[^_]+_(\d+)_")
_EXPECTED = "msmt17's names PPPP_NNN_CC_… (person, image, camera 1 to 15), as in 0000_000_01_0303morning_0015_0.jpg"


def read_msmt17(root: Path, options: ReadOptions) -> Splits:
    """Reads ``root/msmt17/MSMT17_V1`` or else ``MSMT17_V2``.

    The lists number the people of the training and of the test folder from 0 each; the latter are moved up behind the
    former. ``list_val.txt`` is in ``extra_train``, as it is left out of training unless all images are asked for.

    Raises:
        UserError: a folder, list or listed image is missing, something cannot be read or parsed, or an image is listed
            for two people.
    """
    outer = require_folder(root / "msmt17", "MSMT17 with its folder MSMT17_V1 or MSMT17_V2")
    with tell_read_errors(outer):
        versions = [name for name in _VERSIONS if (outer / name).is_dir()]
    if not versions:
        raise MissingDataError(f"no folder MSMT17_V1 or MSMT17_V2 in {outer}: unpack MSMT17 there")
    folder = outer / versions[0]
    train_folder, test_folder = (folder / part for part in _VERSIONS[versions[0]])
    train_files, test_files = _list_tree(train_folder), _list_tree(test_folder)
    train = _read_list(folder / "list_train.txt", train_folder, train_files, 0)
    val = _read_list(folder / "list_val.txt", train_folder, train_files, 0)
    first_test_pid = 1 + max(s.pid for s in [*train, *val])
    query = _read_list(folder / "list_query.txt", test_folder, test_files, first_test_pid)
    gallery = _read_list(folder / "list_gallery.txt", test_folder, test_files, first_test_pid)
    return Splits(train, query, gallery, extra_train=val)


def _list_tree(folder: Path) -> set[str]:
    """Lists the images in the folders in ``folder``, as ``folder/name``, by reading folders only."""
    files = set()
    for person in list_folder_names(folder, "MSMT17's folders of images, one per person"):
        names = list_image_names(folder / person, "images of one person", allow_empty=True)
        files |= {f"{person}/{name}" for name in names}
    return files


def _read_list(file: Path, folder: Path, files: set[str], first_pid: int) -> list[Sample]:
    """Reads the lines ``path pid`` of a list; paths are relative to ``folder`` and must be among ``files``.

    An image that is listed twice counts once.
    """
    with tell_read_errors(file):
        if not file.is_file():
            raise MissingDataError(f"no file {file}: expected the list that comes with MSMT17, one line per image")
        lines = file.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    samples: dict[str, Sample] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, pid = line.replace("\t", " ").strip().rpartition(" ")
        if not name or not pid.isdecimal():
            raise UserError(f"{file}, line {number}: {line!r} is not 'path pid'")
        name = os.path.normpath(name)  # "./0000/…"
        if name not in files:
            raise UserError(f"{file}, line {number}: no image {folder}/{name}; copy the folder again")
        line_name = f"{file}, line {number}"
        camera = parse_number(match_name(name, _NAME, _EXPECTED)[1], line_name)
        if not 1 <= camera <= _NUM_CAMERAS:
            raise UserError(f"{line_name}: camera {camera} of {name} is not one of 1 to {_NUM_CAMERAS}")
        sample = Sample(f"{folder}/{name}", first_pid + parse_number(pid, line_name), camera - 1)
        if samples.setdefault(name, sample) != sample:
            raise UserError(f"{line_name}: {name} is listed for another person above: copy the list again")
    if not samples:
        raise UserError(f"{file} lists no image: copy MSMT17's lists again")
    return sorted(samples.values())
