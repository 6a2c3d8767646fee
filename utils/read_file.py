"""Small files that a user names or may have changed: regular ones of a bounded size; anything wrong is one line."""

import json
import stat
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import UserError

MAX_BYTES = 64 * 2**20


def open_regular(path: str | Path, what: str) -> BinaryIO:
    """Opens a file for reading, also by way of a link.

    Raises:
        UserError: no such file, a folder, pipe or device, or one that may not be read.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise UserError(f"cannot read {what} {path}: it is no regular file")
        return Path(path).open("rb")
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(f"cannot read {what} {path}: {getattr(error, 'strerror', error)}") from error


def read_bytes(path: str | Path, what: str, max_bytes: int = MAX_BYTES) -> bytes:
    """Reads a file, also by way of a link.

    Args:
        path: The file.
        what: What it should be, for messages.
        max_bytes: More than any such file has.

    Raises:
        UserError: no such file, a folder, pipe or device, one that may not be read, or one that is too large.
    """
    try:
        with open_regular(path, what) as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise UserError(f"cannot read {what} {path}: {error.strerror}") from error
    if len(content) > max_bytes:
        raise UserError(f"cannot read {what} {path}: it has more than {max_bytes:,} bytes")
    return content


def read_text(path: str | Path, what: str, max_bytes: int = MAX_BYTES) -> str:
    """Reads a file of text in UTF-8, with or without a mark at its beginning.

    Raises:
        UserError: as ``read_bytes``, or it is in another encoding.
    """
    try:
        return read_bytes(path, what, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not a {what} file: not text in UTF-8 ({error.reason} at byte {error.start:,})"
        ) from error


def read_json(path: str | Path, what: str) -> Any:
    """Reads a file of JSON.

    Raises:
        UserError: as ``read_text``, or it is not JSON, or gives a name twice.
    """
    try:
        return parse_json(read_text(path, what))
    except ValueError as error:
        raise UserError(f"{path} is not a {what} file: not valid JSON ({error})") from error


def parse_json(text: str) -> Any:
    """Reads one JSON document.

    Raises:
        ValueError: it is none, gives a name twice in an object, or has too many values inside each other.
    """
    try:
        return json.loads(text, object_pairs_hook=_read_object)
    except RecursionError as error:
        raise ValueError("too many values inside each other") from error


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:40]!r} is given twice")
    return document
