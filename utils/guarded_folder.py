"""Files in a folder that others may know of: no link is followed, no pipe waited for, nothing of others trusted."""

import contextlib
import errno
import os
import stat
import weakref
from pathlib import Path
from typing import IO

from utils.errors import UserError

_NOT_FOLLOWED = (errno.ELOOP, errno.ENOTDIR)


class GuardedFolder:
    """An open folder; all names are looked up in it, whatever becomes of its path meanwhile.

    Args:
        path: The folder.
        private: It is this user's alone: made with mode 0700 where it is missing; otherwise it, and every file in it,
            is used only if it belongs to this user and others cannot change it. If not private, it must exist, whoever
            may write to it, and only links, pipes and the like are refused.

    Raises:
        UserError: a private folder that others made or can enter, or something else in its place.
        OSError: it cannot be made or opened.
    """

    def __init__(self, path: Path, private: bool) -> None:
        self.path, self.private = path, private
        flags = os.O_RDONLY | os.O_DIRECTORY
        if private:
            flags |= os.O_NOFOLLOW
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
        try:
            self._descriptor = os.open(path, flags)
        except OSError as error:
            if private and error.errno in _NOT_FOLLOWED:
                raise UserError(f"{path} is not a folder but a link or a file; remove it") from error
            raise
        self._close = weakref.finalize(self, os.close, self._descriptor)
        state = os.fstat(self._descriptor)
        fault = _find_owner_fault(state) or ("open to other users" if state.st_mode & 0o077 else "")
        if private and fault:
            raise UserError(f"{path} is {fault}, so that what is in it is not to be trusted; remove it")

    def close(self) -> None:
        """Ends the use of the folder."""
        self._close()

    def open(self, name: str, flags: int) -> IO[bytes]:
        """Opens a regular file, unbuffered.

        Args:
            name: In the folder.
            flags: Of ``os.open``; a file that is made by ``O_CREAT`` is this user's alone.

        Raises:
            UserError: a link, a pipe or the like; in a private folder also another user's file, or one that has a
                second name or that others can write to.
            OSError: it cannot be opened.
        """
        guards = os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(name, flags | guards, 0o600, dir_fd=self._descriptor)
        except OSError as error:
            if error.errno in (*_NOT_FOLLOWED, errno.ENXIO, errno.EISDIR):
                raise UserError(f"{self.path / name} is not a file but a link, pipe or the like; remove it") from error
            raise
        fault = _find_fault(os.fstat(descriptor), self.private)
        if fault:
            os.close(descriptor)
            raise UserError(f"{self.path / name} is {fault}; remove it")
        return os.fdopen(descriptor, "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "r+b", buffering=0)

    def stat(self, name: str) -> os.stat_result | None:
        """Returns the state of a file, of a link itself; None where there is none."""
        try:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """Lists what is in the folder, sorted."""
        return sorted(os.listdir(self._descriptor))  # noqa: PTH208 - pathlib knows no open folders

    def rename(self, old: str, new: str) -> None:
        """Renames a file, over one that has the new name."""
        os.replace(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, *names: str) -> None:
        """Removes files, links themselves, as far as they are there."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._descriptor)


def _find_owner_fault(state: os.stat_result) -> str:
    return "" if state.st_uid == os.geteuid() else "another user's"


def _find_fault(state: os.stat_result, private: bool) -> str:
    """Says why a file that is open is not to be used; empty if it may be."""
    if not stat.S_ISREG(state.st_mode):
        return "not a file but a pipe or the like"
    if not private:
        return ""
    if fault := _find_owner_fault(state):
        return fault
    if state.st_nlink > 1:
        return "known under a second name"
    return "open to changes by other users" if state.st_mode & 0o022 else ""
