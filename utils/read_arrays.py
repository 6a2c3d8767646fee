"""Files of arrays (``.npz``) that a user names or may have changed; anything wrong is one line."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.errors import UserError
from utils.read_file import MAX_BYTES, read_bytes


def read_arrays(path: str | Path, what: str, names: Sequence[str], max_bytes: int = MAX_BYTES) -> list[NDArray]:
    """Reads arrays of numbers or text; objects are never made.

    Args:
        path: The file.
        what: What it should be, for messages.
        names: Of the arrays.
        max_bytes: More than the file has, packed or unpacked.

    Raises:
        UserError: no such file, no regular one, too large, damaged, or without one of these arrays.
    """
    content = read_bytes(path, what, max_bytes)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > max_bytes:
            raise UserError(f"cannot read {what} {path}: unpacked it has more than {max_bytes:,} bytes")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return [arrays[name] for name in names]
    except UserError:
        raise
    except Exception as error:  # a damaged archive raises whatever its readers stumble over
        wanted = ", ".join(map(repr, names))
        raise UserError(f"{path} is no {what}, or damaged: expected is an .npz file with {wanted}") from error
