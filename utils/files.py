"""Writing files so that a reader sees the old content or the new one, never half of it."""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from utils.errors import UserError

_HOST = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:64]
_ENDING = ".osnet-nas-unfinished"
_UNFINISHED = re.compile(rf"\..+\.{_HOST}\.([1-9]\d{{0,6}})\.[0-9a-f]{{8}}{re.escape(_ENDING)}", re.DOTALL)


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
        UserError: the disk is full, the folder cannot be written, or a folder, pipe or device is in the file's place;
            ``path`` is then as it was before.
    """
    path = Path(path)
    check_place(path)
    temporary = name_unfinished(path)
    try:
        with temporary.open("xb") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if callable(content):
                content(file)
            else:
                # names of files in a text need not be UTF-8
                file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
            before_replacing()
            temporary.replace(path)  # still locked
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: Path, *read: Path) -> None:
    """Checks that a file can be written, before what goes into it is computed.

    Args:
        path: The file.
        read: Files that it is made from, there or not, which it must not replace.

    Raises:
        UserError: no such folder, one that cannot be written, a name too long, something other than a file in its
            place, or one that is read.
    """
    check_place(path)
    try:
        if not path.parent.is_dir():
            raise UserError(f"cannot write {path}: no folder {path.parent}")
        if any(_is_same(path, other) for other in read):
            raise UserError(f"cannot write {path}: it is read as well, and would be lost; choose another name")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write {path}: the folder may not be written to")


def _is_same(path: Path, other: Path) -> bool:
    """Whether two paths are of one file, there or not."""
    if path.exists() and other.exists():
        return path.samefile(other)
    return os.path.realpath(path) == os.path.realpath(other)


def check_place(path: Path) -> None:
    """Checks that what is written to ``path`` would replace nothing but a file.

    Raises:
        UserError: a folder, pipe, device or socket is there, or no file can have the name.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    except (FileNotFoundError, NotADirectoryError):
        mode = stat.S_IFREG  # nothing is there
    except OSError as error:
        if error.errno != errno.ELOOP:  # a link to itself is replaced
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        mode = stat.S_IFREG
    if path.name in ("", "..") or stat.S_ISDIR(mode):
        raise UserError(f"cannot write {path}: there is a folder of that name")
    if not stat.S_ISREG(mode):
        raise UserError(f"cannot write {path}: there is a pipe, device or socket of that name")


def make_folder(path: Path) -> Path:
    """Makes a folder, with those above it, unless it is there; returns it.

    Raises:
        UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror or error}") from error
    return path


def name_unfinished(path: Path) -> Path:
    """Names a new file beside ``path`` that is to become it; the name says which process of which machine writes it."""
    return path.with_name(f".{path.name[:24]}.{_HOST}.{os.getpid()}.{secrets.token_hex(4)}{_ENDING}")


def remove_unfinished(folder: Path) -> None:
    """Removes what processes of this machine left that were killed in the middle of ``write_atomically``.

    Files that a living process writes stay, and so do those of other machines that see the folder, and all that this
    program did not name.
    """
    for temporary in folder.glob(f".*{_ENDING}"):
        match = _UNFINISHED.fullmatch(temporary.name)
        if match and not _is_running(int(match[1])):
            with contextlib.suppress(OSError):  # another run was faster, or it is another user's
                _remove_unless_locked(temporary)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def _remove_unless_locked(path: Path) -> None:
    """Removes a file that no process writes, also none that counts its processes apart, as containers do."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    finally:
        os.close(descriptor)
