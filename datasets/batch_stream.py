"""How images get from files into batches: requests, worker processes and shared memory."""

import gc
import logging
import math
import mmap
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.base import Sample
from datasets.cache import ImageCache
from datasets.decode import CorruptImageError, decode_image, resize
from datasets.transforms import Pipeline
from utils.errors import UserError
from utils.match_ranks import JUNK_PID
from utils.printable import make_printable

logger = logging.getLogger(__name__)

_FILES, _FILES_PER_WORKER = 4, 4  # that worker processes keep open here; two only while one starts
_STAND_INS = {"replace": "another image of the same identity stands in", "blank": "no score counts it"}


class Batch(NamedTuple):
    """Images with their labels.

    Attributes:
        images: (N, 3, H, W) uint8, RGB.
        pids: (N,) int64 identities.
        camids: (N,) int64 cameras.
        indices: (N,) int64 positions in the loader's samples.
        params: (N, P) float32, what ``Preparer`` has still to apply on the device; None where nothing is left to do.
    """

    images: Tensor
    pids: Tensor
    camids: Tensor
    indices: Tensor
    params: Tensor | None = None


class ImageReader:
    """Gives image i of a list at the input size, from the cache or the file."""

    def __init__(self, samples: Sequence[Sample], height: int, width: int, cache: ImageCache | None = None) -> None:
        # one array of bytes: a list of strings would be copied into every worker page by page, by its reference counts
        self._paths = np.array([os.fsencode(s.path) for s in samples])
        self.height, self.width, self.cache = height, width, cache

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, index: int) -> str:
        """The file of image ``index``."""
        return os.fsdecode(self._paths[index])

    def read(self, index: int) -> Tensor:
        """Returns (3, height, width) uint8.

        Raises:
            CorruptImageError: the file is missing or broken.
        """
        if self.cache is None or not self.cache.is_readable(index):  # the file may be readable now
            return resize(decode_image(self.path(index)), self.height, self.width)
        return self.cache[index]


class Request(NamedTuple):
    """Which images make a batch, where in the epoch they stand, and which slot takes them."""

    epoch: int
    position: int  # of the first of ``indices`` in the epoch's order
    indices: NDArray[np.int64]
    slot: int = 0


class Answer(NamedTuple):
    """What a worker sends back besides the images in the slot."""

    indices: NDArray[np.int64]
    params: NDArray[np.float32] | None
    broken: list[str]  # files that could not be read
    error: str | None  # why there is no batch


class BatchSource(Dataset[Answer]):
    """Loads whole batches into slots of shared memory; what a worker process holds.

    Args:
        reader: Gives images.
        pids: (N,) identities of all images.
        pipeline: Augmentations, None for none.
        late: Leave the augmentation to the device.
        on_corrupt: What becomes of an image that cannot be read: ``stop``; ``replace``, by the identity's next image;
            ``blank``, by a black one of the identity −1, which no score counts.
    """

    def __init__(
        self, reader: ImageReader, pids: NDArray[np.int64], pipeline: Pipeline | None, late: bool, on_corrupt: str
    ) -> None:
        self.reader, self.pids, self.pipeline = reader, pids, pipeline
        self.late, self.on_corrupt = late, on_corrupt
        self.slots = torch.empty(0, dtype=torch.uint8)

    def __getitem__(self, request: Request) -> Answer:
        indices, broken = request.indices.copy(), list[str]()
        images = self.slots[request.slot, : len(indices)]
        try:
            for row, index in enumerate(indices):
                indices[row] = self._read_into(images[row], int(index), broken)
        except UserError as error:
            return Answer(indices, None, broken, str(error))
        if not self.pipeline:
            return Answer(indices, None, broken, None)
        params = self.pipeline.draw(request.epoch, request.position, len(indices))
        if self.late:
            return Answer(indices, params.numpy(), broken, None)
        augmented = self.pipeline.apply(images, params)
        if augmented is not images:
            images.copy_(augmented)
        return Answer(indices, None, broken, None)

    def _read_into(self, out: Tensor, index: int, broken: list[str]) -> int:
        """Reads image ``index``, or what stands in for it; returns the index of what was read."""
        try:
            out.copy_(self.reader.read(index))
            return index
        except CorruptImageError:
            if self.on_corrupt == "stop":
                raise
        broken.append(self.reader.path(index))
        if self.on_corrupt == "blank":
            out.zero_()
            return index
        rows = np.flatnonzero(self.pids == self.pids[index])
        for other in np.concatenate([rows[rows > index], rows[rows < index]]):
            try:
                out.copy_(self.reader.read(int(other)))
                return int(other)
            except CorruptImageError:
                broken.append(self.reader.path(int(other)))
        raise UserError(
            f"none of the {len(rows)} images of identity {self.pids[index]} can be read (the first is "
            f"{self.reader.path(int(rows[0]))}); restore them or take the identity out of the data"
        )


class _Requests:
    """The batches that a pass over the data asks for, replaced before each pass.

    The workers of a DataLoader live on from epoch to epoch; this is how each epoch gets its own order.
    """

    def __init__(self) -> None:
        self.pending: list[Request] = []

    def __iter__(self) -> Iterator[Request]:
        return iter(self.pending)

    def __len__(self) -> int:
        return len(self.pending)


def _start_worker(worker: int) -> None:
    """Makes a worker ignore stop signals but the main process's own, which must save its state before everything ends.

    A scheduler signals the whole process group; a worker that died of it would end the main process.
    """
    gc.freeze()  # otherwise the first full collection would copy all that is shared with the main process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _keep(answer: Any) -> Any:
    return answer


def _check_open_files(workers: int) -> None:
    """Opens and closes as many files as worker processes will need.

    Where PyTorch finds out itself that there are too few, its half-made iterator complains again when it is deleted.

    Raises:
        OSError: there are too few.
    """
    files: list[int] = []
    try:
        while len(files) < _FILES + workers * _FILES_PER_WORKER:
            files += os.pipe()
    finally:
        for file in files:
            os.close(file)


def _share(shape: tuple[int, ...]) -> Tensor:
    """Returns uint8 memory that forked processes share; unlike /dev/shm it is not limited in containers."""
    return torch.frombuffer(mmap.mmap(-1, math.prod(shape)), dtype=torch.uint8).view(shape)


class BatchStream:
    """Runs requests through worker processes and turns answers into batches, in order; one pass at a time.

    Images come through a ring of slots of shared memory: sending a fresh tensor for each batch, as a DataLoader does,
    costs several times as much as filling it from a cache, all of it page faults. With two requests under way for
    each worker and one batch being handed over, the slot of request n is free again at request n + 2 · workers + 1.
    """

    _REQUESTS_PER_WORKER = 2

    def __init__(
        self,
        source: BatchSource,
        camids: NDArray[np.int64],
        batch_size: int,
        workers: int,
        pin_memory: bool,
        reported: set[str],
    ) -> None:
        self.camids, self.pin_memory = camids, pin_memory
        self.num_slots = self._REQUESTS_PER_WORKER * workers + 1
        source.slots = _share((self.num_slots, batch_size, 3, source.reader.height, source.reader.width))
        self.source, self.requests = source, _Requests()
        self.reported = reported  # broken files that were named already
        self.is_started = workers == 0  # without processes there is nothing to start
        self.loader = DataLoader(
            source,
            batch_size=None,
            sampler=self.requests,
            num_workers=workers,
            collate_fn=_keep,
            worker_init_fn=_start_worker,
            prefetch_factor=self._REQUESTS_PER_WORKER if workers else None,
            persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers else None,
        )

    def run(self, requests: list[Request]) -> Iterator[Batch]:
        """Yields one batch per request.

        Raises:
            UserError: an image cannot be read and may not or cannot be replaced.
        """
        if not self.is_started:
            _check_open_files(self.loader.num_workers)
            self.is_started = True
        pending = [request._replace(slot=n % self.num_slots) for n, request in enumerate(requests)]
        self.requests.pending = pending
        for request, answer in zip(pending, self.loader, strict=True):
            if self.requests.pending is not pending:
                raise RuntimeError("a loader's earlier pass was continued after a later one had begun")
            self._report(answer)
            yield self._collect(answer, request.slot)

    def _report(self, answer: Answer) -> None:
        for path in answer.broken:
            if path not in self.reported:
                self.reported.add(path)
                logger.warning("skipped broken image %s: %s", make_printable(path), _STAND_INS[self.source.on_corrupt])
        if answer.error is not None:
            raise UserError(answer.error)

    def _collect(self, answer: Answer, slot: int) -> Batch:
        """Copies a batch out of its slot, which the next request may overwrite."""
        rows, filled = answer.indices, self.source.slots[slot, : len(answer.indices)]
        images = torch.empty(filled.shape, dtype=torch.uint8, pin_memory=self.pin_memory).copy_(filled)
        pids, camids = torch.from_numpy(self.source.pids[rows]), torch.from_numpy(self.camids[rows])
        if self.source.on_corrupt == "blank" and answer.broken:
            is_blank = [self.source.reader.path(int(row)) in answer.broken for row in rows]
            pids[torch.tensor(is_blank)] = JUNK_PID
        params = None if answer.params is None else torch.from_numpy(answer.params)
        return Batch(images, pids, camids, torch.from_numpy(rows), params)
