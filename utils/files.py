"""Writing files so that a reader sees the old content or the new one, never half of it."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from utils.errors import UserError

_UNFINISHED = ".tmp"


def write_atomically(
    path: str | Path,
    content: str | bytes | Callable[[BinaryIO], object],
    before_replacing: Callable[[], object] = lambda: None,
) -> None:
    """Writes ``content`` to a temporary file beside ``path``, flushes it to disk and renames it over ``path``.

    Args:
        path: Where to; its folder must exist.
        content: Text (UTF-8), bytes, or a function that writes to the open binary file.
        before_replacing: Called when the new content is safe on the disk and ``path`` still holds the old.

    Raises:
        UserError: the disk is full or the folder cannot be written; ``path`` is then as it was before.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_UNFINISHED}")
    try:
        with temporary.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        before_replacing()
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Removes what a process left that was killed in the middle of ``write_atomically``; no other may be writing."""
    for temporary in folder.glob(f".*{_UNFINISHED}"):
        temporary.unlink(missing_ok=True)
