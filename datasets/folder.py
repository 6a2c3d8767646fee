"""Data of one's own: ``folder`` is the root itself, with a table or with one folder a person.

Either ``manifest.csv`` in the root, with a header and the columns

- ``path``: an image, relative to the root or absolute,
- ``pid``: who it shows, any text; −1 is junk and left out,
- ``camid``: which camera took it, any text; may be left out for training images,
- ``split``: ``train``, ``query`` or ``gallery``,

or images ``train/PID/CAM_….jpg``, ``query/PID/CAM_….jpg``, ``gallery/PID/CAM_….jpg``: what stands before the first
``_`` of a name is the camera. There may be images to train on, to test with (query and gallery), or both.
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from datasets.base import ReadOptions, Sample, Splits, require_folder
from datasets.files import is_image_name, list_folder_names, list_image_names, tell_read_errors
from utils.errors import UserError
from utils.match_ranks import JUNK_PID

_PARTS = ("train", "query", "gallery")
_EXPECTED = "manifest.csv, or the folders train, query and gallery with a folder of images for each person"


class _Row(NamedTuple):
    part: str
    path: str
    pid: str
    camera: str  # empty: not known
    source: str  # where a person finds it


def read_folder(root: Path, options: ReadOptions) -> Splits:
    """Reads the data in ``root`` as this file's head describes; people and cameras are numbered in sorted order.

    Raises:
        UserError: nothing of that form in ``root``, an image is missing or listed twice, something cannot be read,
            query without gallery or the reverse, or an image to test with whose camera is not known.
    """
    with tell_read_errors(root):
        require_folder(root, _EXPECTED)
        manifest = root / "manifest.csv"
        rows = list(_read_manifest(manifest) if manifest.is_file() else _read_tree(root))
    rows = [row for row in rows if row.pid != str(JUNK_PID)]
    for row in rows:
        if not row.camera and row.part != "train":
            raise UserError(
                f"{row.source}: no camera is given for a {row.part} image; testing leaves out matches of the query's "
                "own camera, so give camid in manifest.csv, or names CAM_….jpg in folders"
            )
    pid_of = {pid: number for number, pid in enumerate(sorted({row.pid for row in rows}))}
    camid_of = {camera: number for number, camera in enumerate(sorted({row.camera for row in rows}))}
    train, query, gallery = (
        sorted(Sample(row.path, pid_of[row.pid], camid_of[row.camera]) for row in rows if row.part == part)
        for part in _PARTS
    )
    if not train and not query and not gallery:
        raise UserError(f"no image in {root}: expected {_EXPECTED}")
    if bool(query) != bool(gallery):
        given, lacking = ("query", "gallery") if query else ("gallery", "query")
        raise UserError(f"{root} has {given} images but no {lacking} images: testing needs both")
    return Splits(train, query, gallery)


def _read_manifest(manifest: Path) -> Iterator[_Row]:
    """Yields the rows of a comma-separated table in UTF-8."""
    seen = set()
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream, skipinitialspace=True)
            lacking = {"path", "pid", "split"} - set(table.fieldnames or ())
            if lacking:
                raise UserError(
                    f"{manifest} has no column {min(lacking)!r}: its first line must be path,pid,camid,split"
                )
            for cells in table:
                row = _check_row(manifest, table.line_num, cells)
                if (row.path, row.part) in seen:
                    raise UserError(f"{row.source}: {row.path} is listed twice in {row.part}")
                seen.add((row.path, row.part))
                yield row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{manifest} is not a comma-separated table in UTF-8: {error}") from error


def _check_row(manifest: Path, line: int, cells: dict[str, str | None]) -> _Row:
    """Makes a row of a table's line."""
    name, pid, camera, part = ((cells.get(column) or "").strip() for column in ("path", "pid", "camid", "split"))
    source = f"{manifest}, line {line}"
    if not name or not pid:
        raise UserError(f"{source}: {'path' if not name else 'pid'} is empty")
    if part not in _PARTS:
        raise UserError(f"{source}: split is {part!r}, but must be train, query or gallery")
    path = Path(os.path.normpath(manifest.parent / name))  # one spelling a file, so that a second line is noticed
    if not is_image_name(path.name):
        raise UserError(f"{source}: {name} is not an image by its ending")
    with tell_read_errors(path, f"{source}: "):
        if not path.is_file():
            raise UserError(f"{source}: no file {path}")
    return _Row(part, str(path), pid, camera, source)


def _read_tree(root: Path) -> Iterator[_Row]:
    """Yields the images in ``root/{train,query,gallery}/PID``."""
    parts = [part for part in _PARTS if (root / part).is_dir()]
    if not parts:
        raise UserError(f"nothing to read in {root}: expected {_EXPECTED}")
    for part in parts:
        stray = list_image_names(root / part, _EXPECTED, allow_empty=True)
        if stray:
            raise UserError(f"{root / part / stray[0]} is not in the folder of a person: expected {part}/PID/CAM_….jpg")
        people = list_folder_names(root / part, _EXPECTED)
        empty = True
        for pid in people:
            for name in list_image_names(root / part / pid, "images of one person", allow_empty=True):
                camera, separator, _ = name.partition("_")
                path = f"{root}/{part}/{pid}/{name}"
                empty = False
                yield _Row(part, path, pid, camera if separator else "", path)
        if empty:
            raise UserError(f"no image in {root / part}: expected {part}/PID/CAM_….jpg, or no such folder")
