"""Data of one's own: ``folder`` is the root itself or ``folder`` in it, ``folder:NAME`` is the folder NAME in the root.

Either there is a ``manifest.csv``, comma-separated in UTF-8, with a header and the columns

- ``path``: an image, relative to the table's folder or absolute,
- ``pid``: who it shows, any text; −1 is junk and left out,
- ``camid``: which camera took it, any text; may be left out for training images,
- ``split``: ``train``, ``query`` or ``gallery``,

in any order, beside columns of other names, which are passed over; or images ``train/PID/CAM_….jpg``,
``query/PID/CAM_….jpg``, ``gallery/PID/CAM_….jpg``: what stands before the first ``_`` of a name is the camera. There
may be images to train on, to test with (query and gallery), or both.
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from datasets.base import MissingDataError, ReadOptions, Sample, Splits, require_folder
from datasets.files import is_image_name, list_folder_names, list_image_names, tell_read_errors
from utils.errors import UserError
from utils.label_names import LabelNames

_PARTS = ("train", "query", "gallery")
_COLUMNS = ("path", "pid", "camid", "split")
_JUNK_PID = "-1"
_EXPECTED = "manifest.csv, or the folders train, query and gallery with a folder of images for each person"


class _Row(NamedTuple):
    part: str
    path: str
    pid: str
    camera: str  # empty: not known
    source: str  # where the user finds it


def read_folder(root: Path, options: ReadOptions) -> Splits:
    """Reads the data in ``root`` or ``root/folder``, as ``read_own_data``.

    Raises:
        UserError: there are data in both, or as ``read_own_data``.
    """
    inner = root / "folder"
    with tell_read_errors(root):
        holding = [folder for folder in (root, inner) if _holds_data(folder)]
    if len(holding) > 1:
        raise UserError(
            f"there are data in both {root} and {inner}: give the latter another name, NAME, for folder:NAME"
        )
    return read_own_data(holding[0] if holding else root)


def read_own_data(folder: Path) -> Splits:
    """Reads the data in ``folder`` as the module's docstring says; people and cameras are numbered in sorted order.

    Raises:
        UserError: nothing of that form in ``folder``, an image is missing, listed twice or for two people, something
            cannot be read, query without gallery or the reverse, or an image to test with whose camera is not known.
    """
    with tell_read_errors(folder):
        require_folder(folder, _EXPECTED)
        manifest = folder / "manifest.csv"
        rows = list(_read_manifest(manifest) if manifest.is_file() else _read_tree(folder))
    rows = [row for row in rows if row.pid != _JUNK_PID]
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
        raise MissingDataError(f"no image in {folder}: expected {_EXPECTED}")
    if bool(query) != bool(gallery):
        given, lacking = ("query", "gallery") if query else ("gallery", "query")
        raise UserError(f"{folder} has {given} images but no {lacking} images: testing needs both")
    people = {number: pid for pid, number in pid_of.items()}
    cameras = {number: camera or "unknown" for camera, number in camid_of.items()}
    return Splits(train, query, gallery, names=LabelNames(people, cameras))


def _holds_data(folder: Path) -> bool:
    return (folder / "manifest.csv").is_file() or any((folder / part).is_dir() for part in _PARTS)


def _read_manifest(manifest: Path) -> Iterator[_Row]:
    """Yields the rows of a comma-separated table in UTF-8."""
    seen: dict[str, list[_Row]] = {}
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream, skipinitialspace=True)
            _check_columns(manifest, [name.strip() for name in table.fieldnames or ()])
            table.fieldnames = [name.strip() for name in table.fieldnames or ()]
            for cells in table:
                row = _check_row(manifest, table.line_num, cells)
                earlier = seen.setdefault(row.path, [])
                _compare(row, earlier)
                earlier.append(row)
                yield row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{manifest} is not a comma-separated table in UTF-8: {error}") from error


def _check_columns(manifest: Path, names: list[str]) -> None:
    """Checks a table's header."""
    for column in _COLUMNS:
        if names.count(column) > 1:
            raise UserError(f"{manifest} has {names.count(column)} columns {column!r}: leave one")
        if column not in names and column != "camid":
            raise UserError(f"{manifest} has no column {column!r}: its first line must be path,pid,camid,split")


def _check_row(manifest: Path, line: int, cells: dict[str | None, str | list[str] | None]) -> _Row:
    """Makes a row of a table's line."""
    source = f"{manifest}, line {line}"
    beyond = [cell for cell in cells.get(None) or () if cell.strip()]
    if beyond:
        raise UserError(
            f"{source}: {beyond[0]!r} stands beyond the last column; put a text that holds a comma in quotation marks"
        )
    name, pid, camera, part = (str(cells.get(column) or "").strip() for column in _COLUMNS)
    if not name or not pid:
        raise UserError(f"{source}: {'path' if not name else 'pid'} is empty")
    if part not in _PARTS:
        raise UserError(f"{source}: split is {part!r}, but must be train, query or gallery")
    path = Path(os.path.normpath(manifest.parent / name))  # one spelling per file, so that a second line is noticed
    if not is_image_name(path.name):
        raise UserError(f"{source}: {name} is not an image by its ending")
    with tell_read_errors(path, f"{source}: "):
        if not path.is_file():
            raise UserError(f"{source}: no file {path}")
    return _Row(part, str(path), pid, camera, source)


def _compare(row: _Row, earlier: list[_Row]) -> None:
    """Checks that a table's line does not contradict those above it on the same image."""
    for other in earlier:
        for what, own, others in (("pid", row.pid, other.pid), ("camid", row.camera, other.camera)):
            if own != others:
                raise UserError(f"{row.source}: {row.path} has {what} {own!r}, but {others!r} in {other.source}")
        if row.part == other.part:
            raise UserError(f"{row.source}: {row.path} is listed twice in {row.part}")


def _read_tree(folder: Path) -> Iterator[_Row]:
    """Yields the images in ``folder/{train,query,gallery}/PID``."""
    parts = [part for part in _PARTS if (folder / part).is_dir()]
    if not parts:
        raise MissingDataError(f"nothing to read in {folder}: expected {_EXPECTED}")
    for part in parts:
        stray = list_image_names(folder / part, _EXPECTED, allow_empty=True)
        if stray:
            raise UserError(
                f"{folder / part / stray[0]} is not in the folder of a person: expected {part}/PID/CAM_….jpg"
            )
        people = list_folder_names(folder / part, _EXPECTED)
        empty = True
        for pid in people:
            for name in list_image_names(folder / part / pid, "images of one person", allow_empty=True):
                camera, separator, _ = name.partition("_")
                path = f"{folder}/{part}/{pid}/{name}"
                empty = False
                yield _Row(part, path, pid, camera if separator else "", path)
        if empty:
            raise MissingDataError(f"no image in {folder / part}: expected {part}/PID/CAM_….jpg, or no such folder")
