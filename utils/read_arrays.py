"""Files of arrays (``.npz``) that a user names or may have changed; anything wrong is one line."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.errors import UserError
from utils.read_file import MAX_BYTES, open_regular


def read_arrays(path: str | Path, what: str, names: Sequence[str], max_bytes: int = MAX_BYTES) -> list[NDArray]:
    """Reads arrays of numbers or text; objects are never made.

    Args:
        path: The file.
        what: What it should be, for messages.
        names: Of the arrays.
        max_bytes: More than these arrays have together; others may be in the file, of any size.

    Raises:
        UserError: no such file, no regular one, too large, damaged, or without one of these arrays.
    """
    with open_regular(path, what) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                unpacked = sum(archive.getinfo(f"{name}.npy").file_size for name in names)
            if unpacked > max_bytes:
                raise UserError(f"cannot read {what} {path}: unpacked it has more than {max_bytes:,} bytes")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return [arrays[name] for name in names]
        except UserError:
            raise
        except Exception as error:  # a damaged archive raises whatever its readers stumble over
            wanted = ", ".join(map(repr, names))
            raise UserError(f"{path} is no {what}, or damaged: expected is an .npz file with {wanted}") from error
