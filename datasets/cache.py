"""Decoded training images, kept at the input size in one memory-mapped file for all processes of a machine."""

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from datasets.decode import CorruptImageError, decode_image, resize
from utils.errors import UserError
from utils.guarded_folder import GuardedFolder
from utils.log import progress

logger = logging.getLogger(__name__)

_SHARED_MEMORY = Path("/dev/shm")
_WAIT_SEC = 0.1  # between two looks at a cache that another process is filling
_BLOCK = 64  # images that a thread decodes at a time
_FORMAT = 1  # raised whenever decoding or the layout of the file changes


class ImageCache:
    """Images by number, read-only; any number of processes map the same file.

    The file holds the images, (N, 3, H, W) uint8, and behind them one byte per image: 1 where it could be read.
    """

    def __init__(self, file: IO[bytes], num_images: int, height: int, width: int) -> None:
        content = np.memmap(file, np.uint8, mode="c")  # copy-on-write: torch warns of arrays it may not write to
        pixels = num_images * 3 * height * width
        self._images = torch.from_numpy(content[:pixels]).view(num_images, 3, height, width)
        self._readable = content[pixels:]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        """Image ``index``, (3, H, W) uint8; a view that must not be written to."""
        return self._images[index]

    def is_readable(self, index: int) -> bool:
        """Whether the file of image ``index`` could be read when the cache was filled."""
        return bool(self._readable[index])


def open_cache(
    kind: str, paths: Sequence[str], height: int, width: int, folder: Path, skip_broken: bool = False
) -> ImageCache | None:
    """Opens the cache of a list of images, filling it first where no process of this machine has done so.

    Args:
        kind: "none"; "ram", a file in shared memory, in a folder of this user's alone, that goes with the last process
            that uses it; "disk", a file in ``folder`` that stays.
        paths: The image files.
        height: Size of the cached images, px.
        width: The same.
        folder: For "disk"; whoever may write there can change the images beside it too, so it need not be this user's.
        skip_broken: Mark images that cannot be read instead of raising.

    Returns:
        The cache, None for "none".

    Raises:
        UserError: it does not fit, the folder cannot be written, another user or a link is in the way, or an image
            cannot be read.
    """
    if kind == "none":
        return None
    name = f"reid-images-{os.getuid()}-{_compute_key(paths, height, width)}"
    if kind == "ram":
        folder = _SHARED_MEMORY / f"reid-images-{os.getuid()}"
    try:
        if kind == "disk":
            folder.mkdir(parents=True, exist_ok=True)
        guarded = GuardedFolder(folder, private=kind == "ram")
        if kind == "ram":
            _remove_leftovers(guarded, kept=name)
        lock = _lock(guarded, name)
    except UserError as error:
        raise UserError(f"data.cache {kind}: {error}, or use another data.cache") from error
    except OSError as error:
        raise UserError(f"data.cache {kind}: cannot write to {folder}: {error.strerror or error}") from error
    try:
        if not _is_whole(guarded, name, len(paths), height, width):
            _fill(guarded, name, kind, paths, height, width, skip_broken)
        with guarded.open(f"{name}.u8", os.O_RDONLY) as file:
            cache = ImageCache(file, len(paths), height, width)
        fcntl.flock(lock, fcntl.LOCK_SH)
    except BaseException:
        lock.close()
        guarded.close()
        raise
    if kind == "ram":
        weakref.finalize(cache, _release, guarded, name, lock, os.getpid())
    else:
        lock.close()
        guarded.close()
    return cache


def _is_whole(folder: GuardedFolder, name: str, num_images: int, height: int, width: int) -> bool:
    state = folder.stat(f"{name}.u8")
    return state is not None and state.st_size == num_images * (3 * height * width + 1)


def _compute_key(paths: Sequence[str], height: int, width: int) -> str:
    """A name for the images as they are now: files, their sizes and times, and the input size."""
    digest = hashlib.sha256(f"{_FORMAT} {height} {width}".encode())
    for path in paths:
        try:
            stat = Path(path).stat()
            state = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(b"\0" + os.fsencode(path) + b"\0" + state.encode())
    return digest.hexdigest()[:24]


def _fill(
    folder: GuardedFolder, name: str, kind: str, paths: Sequence[str], height: int, width: int, skip_broken: bool
) -> None:
    """Decodes every image into a new file and gives it its name when it is whole."""
    pixels = 3 * height * width
    needed = len(paths) * (pixels + 1)
    _check_room(kind, folder.path, needed, len(paths))
    unfinished = f"{name}.part"
    try:
        folder.remove(unfinished)  # of a process that was killed
        with folder.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL) as file:
            os.posix_fallocate(file.fileno(), 0, needed)
            content = np.memmap(file, np.uint8, mode="r+")
        images = torch.from_numpy(content[: -len(paths)]).view(-1, 3, height, width)

        def decode_into(index: int) -> bool:
            try:
                images[index].copy_(resize(decode_image(paths[index]), height, width))
            except CorruptImageError:
                if not skip_broken:
                    raise
                return False
            return True

        blocks = [range(at, min(at + _BLOCK, len(paths))) for at in range(0, len(paths), _BLOCK)]
        pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        try:
            decoded = pool.map(lambda block: [decode_into(index) for index in block], blocks)
            for block, readable in zip(blocks, progress(decoded, len(blocks), "caching images"), strict=True):
                content[images.numel() :][block.start : block.stop] = readable
        finally:
            pool.shutdown(cancel_futures=True)  # a signal or a broken image does not wait for the rest
        content.flush()
        folder.rename(unfinished, f"{name}.u8")
    except OSError as error:
        path = folder.path / unfinished
        raise UserError(f"data.cache {kind}: cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            folder.remove(unfinished)
    logger.info("cached %d images (%.0f MB) in %s", len(paths), needed / 1e6, folder.path)


def _check_room(kind: str, folder: Path, needed: int, num_images: int) -> None:
    available = shutil.disk_usage(folder).free
    if kind == "ram":
        available = min(available, _available_memory())
    if needed > 0.95 * available:
        raise UserError(
            f"data.cache {kind}: {num_images} images need {needed / 1e6:,.2f} MB, {folder} has "
            f"{available / 1e6:,.2f} MB available; use data.cache {'disk or ' if kind == 'ram' else ''}none"
        )


def _available_memory() -> int:
    """Bytes that can be taken without swapping, as far as the machine or its container says."""
    meminfo = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in meminfo if line.startswith("MemAvailable"))
    for folder, names in _find_memory_groups():
        try:
            limit, used = ((folder / name).read_text().strip() for name in names)
            fields = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except OSError:
            continue
        if limit != "max":
            reclaimable = int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))
            available = min(available, int(limit) - int(used) + reclaimable)
    return available


def _find_memory_groups() -> Iterator[tuple[Path, tuple[str, str]]]:
    """Yields the folders of this process's control groups, own and above, with the names of their limit and use."""
    root = Path("/sys/fs/cgroup")
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, names = root, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            mount, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        own = mount / path.lstrip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(mount):
                yield folder, names


def _lock(folder: GuardedFolder, name: str) -> IO[bytes]:
    """Takes the lock of a cache: shared where its content is there, which it then stays, else exclusive.

    Every user keeps it shared; who fills or removes the cache needs it alone. It ends with the process at the latest.
    Nobody waits with a lock in hand: two that both had it shared would wait for each other.
    """
    while True:
        file = folder.open(f"{name}.lock", os.O_RDWR | os.O_CREAT)
        wanted = fcntl.LOCK_SH if folder.stat(f"{name}.u8") else fcntl.LOCK_EX
        try:
            fcntl.flock(file, wanted | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            time.sleep(_WAIT_SEC)
            continue
        state = folder.stat(f"{name}.lock")
        is_current = state is not None and os.fstat(file.fileno()).st_ino == state.st_ino
        if is_current and (wanted == fcntl.LOCK_EX or folder.stat(f"{name}.u8")):
            return file
        file.close()  # another process removed the lock's file or the cache meanwhile


def _release(folder: GuardedFolder, name: str, lock: IO[bytes], owner: int) -> None:
    """Removes a cache in shared memory unless another process uses it or this one is a fork of its owner."""
    if os.getpid() != owner:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        folder.remove(f"{name}.u8", f"{name}.lock")
    lock.close()
    folder.close()


def _remove_leftovers(folder: GuardedFolder, kept: str) -> None:
    """Removes caches whose processes were killed before they could."""
    for lock_name in folder.names():
        name = lock_name.removesuffix(".lock")
        if name in (lock_name, kept):
            continue
        try:
            lock = folder.open(lock_name, os.O_RDWR)
        except FileNotFoundError:  # its process was faster
            continue
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            folder.remove(f"{name}.u8", f"{name}.part", lock_name)
