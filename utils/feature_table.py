"""Tables of features, and the manifests that they are made from; what ``tools.extract_features`` reads and writes."""

import codecs
import csv
import io
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from utils.errors import UserError
from utils.files import write_atomically
from utils.read_file import read_bytes

_LONGEST = 200  # characters of a column's name
_RESERVED = re.compile(r"features|paths|f\d+")
_OTHER_ENCODINGS = {  # by the mark that a file begins with; UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_WHOLE_NUMBER = re.compile(r"0|-?[1-9]\d{0,17}")  # as Python writes it, and within int64


@dataclass(frozen=True)
class Manifest:
    """Images to read, and what is known of each.

    Attributes:
        files: Where each image lies.
        paths: How the user named it.
        columns: Further values by the column's name, one per image, as text.
    """

    files: Sequence[str]
    paths: Sequence[str]
    columns: Mapping[str, Sequence[str]]

    def select(self, positions: Sequence[int]) -> "Manifest":
        """Returns the images at the given positions."""
        columns = {name: [column[i] for i in positions] for name, column in self.columns.items()}
        return Manifest([self.files[i] for i in positions], [self.paths[i] for i in positions], columns)


def read_manifest(path: Path) -> Manifest:
    """Reads a CSV file (UTF-8, comma) with a header line and a column ``path``, relative to the file's folder.

    Raises:
        UserError: it cannot be read, is in another encoding, holds a NUL byte or has no such column, a column's name
            is missing, there twice or taken by the table, a line has too few or too many values, or there is no line.
    """
    try:
        header, *lines = list(csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)) or [[]]
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file: {error}") from error
    if "path" not in header:
        raise UserError(f"{path}: the header line has no column 'path', it has {', '.join(header)[:200]!r}")
    for name in header:
        if not name or "/" in name or header.count(name) > 1 or _RESERVED.fullmatch(name) or len(name) > _LONGEST:
            shown = repr(name[:_LONGEST])
            raise UserError(
                f"{path}: column {shown} is nameless, too long, there twice or taken by the table; rename it"
            )
    rows = [(number, line) for number, line in enumerate(lines, 2) if line]
    for number, line in rows:
        if len(line) != len(header) or not line[header.index("path")]:
            raise UserError(f"{path}, row {number}: expected {len(header)} values and a path, got {line!r:.200}")
    if not rows:
        raise UserError(f"{path} lists no image")
    columns = {name: [line[i] for _, line in rows] for i, name in enumerate(header)}
    paths = columns.pop("path")
    return Manifest([str(path.parent / name) for name in paths], paths, columns)


def _read_text(path: Path) -> str:
    """Reads a manifest's text; file names in it that are not UTF-8 pass through as they are."""
    try:
        content = read_bytes(path, "manifest")
    except UserError as error:
        raise UserError(f"{error}; give a folder of images or a CSV manifest") from error
    for mark, encoding in _OTHER_ENCODINGS.items():
        if content.startswith(mark):
            raise UserError(f"{path} is in {encoding}; save it as UTF-8")
    before, nul, _ = content.partition(b"\0")
    if nul:
        line = before.count(b"\n") + 1
        raise UserError(f"{path}, line {line}: a NUL byte, which no file name can hold; is the file a CSV in UTF-8?")
    return content.decode("utf-8-sig", errors="surrogateescape")


def write_table(path: Path, features: NDArray[np.float32], manifest: Manifest) -> None:
    """Writes a table in the format of the name's ending, all or nothing.

    Args:
        path: Ends in one of ``WRITERS``.
        features: (N, D), one row for each of the manifest's images.
        manifest: Of N images.

    Raises:
        UserError: it cannot be written.
    """
    write = WRITERS[path.suffix.lower()]
    write_atomically(path, lambda file: write(file, features, manifest))


def _write_npz(file: BinaryIO, features: NDArray[np.float32], manifest: Manifest) -> None:
    """Writes arrays by name; a column of whole numbers as int64, any other as text.

    By hand, as ``np.savez`` takes the names as its own arguments' too.
    """
    arrays: dict[str, NDArray[Any]] = {"features": features, "paths": np.array(manifest.paths)}
    for name, column in manifest.columns.items():
        is_whole = all(_WHOLE_NUMBER.fullmatch(value) for value in column)
        arrays[name] = np.array([int(value) for value in column], np.int64) if is_whole else np.array(column)
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _write_csv(file: BinaryIO, features: NDArray[np.float32], manifest: Manifest) -> None:
    """Writes one line per image; nine digits give each float32 back exactly."""
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(["path", *manifest.columns, *(f"f{i}" for i in range(features.shape[1]))])
    for path, *values, row in zip(manifest.paths, *manifest.columns.values(), features, strict=True):
        writer.writerow([path, *values, *(f"{value:.9g}" for value in row.tolist())])
    text.flush()
    text.detach()


WRITERS: dict[str, Callable[[BinaryIO, NDArray[np.float32], Manifest], None]] = {".npz": _write_npz, ".csv": _write_csv}
