"""Writing files so that a reader sees the old content or the new one, never half of it."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from utils.errors import UserError


def write_atomically(path: str | Path, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    """Writes ``content`` to a temporary file beside ``path``, flushes it to disk and renames it over ``path``.

    Args:
        path: Where to; its folder must exist.
        content: Text (UTF-8), bytes, or a function that writes to the open binary file.

    Raises:
        UserError: the disk is full or the folder cannot be written; ``path`` is then as it was before.
    """
    path = Path(path)
    temporary = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
