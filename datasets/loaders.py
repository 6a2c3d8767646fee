"""Batches for training and evaluation, the same for any number of workers."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from datasets.base import Sample
from datasets.batch_stream import Batch, BatchSource, BatchStream, ImageReader, Request
from datasets.cache import ImageCache
from datasets.samplers import Sampler
from datasets.style_shift import StyleShift
from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD, RGB, Pipeline
from utils.errors import UserError


class Preparer:
    """Turns a batch into the network's input, on the device: late augmentation, then normalisation."""

    def __init__(
        self,
        mean: RGB = IMAGENET_MEAN,
        std: RGB = IMAGENET_STD,
        pipeline: Pipeline | None = None,
        channels_last: bool = False,
    ) -> None:
        """Keeps the arguments.

        Args:
            mean: Of red, green and blue, in [0, 1].
            std: The same.
            pipeline: Applied to batches that carry parameters.
            channels_last: Memory format of the result.
        """
        self.shift = [-m / s for m, s in zip(mean, std, strict=True)]
        self.scale = [1 / (255 * s) for s in std]
        self.pipeline = pipeline
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(self, batch: Batch, device: torch.device) -> Tensor:
        """Returns (N, 3, H, W) float32 on ``device``, zero mean and unit deviation over ImageNet.

        Raises:
            ValueError: the batch is still to be augmented and there is no pipeline.
        """
        images = batch.images.to(device, non_blocking=True)
        if batch.params is not None:
            if self.pipeline is None:
                raise ValueError("the batch carries augmentation parameters, the Preparer has no pipeline for them")
            images = self.pipeline.apply(images, batch.params)
        out = images.to(torch.float32)  # a step of its own: a sum of two types is slow on the CPU
        for channel, (shift, scale) in enumerate(zip(self.shift, self.scale, strict=True)):
            torch.add(torch.full((), shift, device=device), out[:, channel], alpha=scale, out=out[:, channel])
        return out.contiguous(memory_format=self.memory_format)


class TrainLoader:
    """Augmented training batches.

    What a batch holds is a function of the seed, the epoch and the batch's number alone, not of the number of workers
    or of where the epoch was started. Of a batch over several processes, each gets a contiguous part, so that
    RandomIdentitySampler's K images of an identity, and RandomDomainSampler's of a camera, stay together; only
    ``random_patch`` sees which part it works on.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        sampler: Sampler,
        *,
        batch_size: int,
        height: int,
        width: int,
        pipeline: Pipeline | None = None,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        cache: ImageCache | None = None,
        on_corrupt: str = "stop",
        pin_memory: bool = False,
        augment_on_device: bool = False,
    ) -> None:
        """Starts nothing yet: workers start with the first batch and live as long as the loader.

        Args:
            samples: Labelled training images.
            sampler: Their order.
            batch_size: Images per step over all processes; the rest of an epoch that fills no batch is left out.
            height: Input size, px.
            width: Input size, px.
            pipeline: Augmentations.
            workers: Processes that load; 0 loads in this one.
            rank: Of this process, from 0.
            world_size: Number of processes that share each batch.
            cache: Decoded images of ``samples``.
            on_corrupt: "stop" or "skip": what to do about an image that cannot be read. Skipping names it once and
                takes the identity's next image.
            pin_memory: Put batches into page-locked memory, for a GPU.
            augment_on_device: Leave the augmentation to ``Preparer``.

        Raises:
            UserError: ``batch_size`` is larger than the data or cannot be shared by the processes.
        """
        if batch_size > len(sampler):
            raise UserError(
                f"train.batch_size {batch_size} is larger than the {len(samples)} training images; lower it"
            )
        if batch_size % world_size:
            raise UserError(f"train.batch_size {batch_size} cannot be shared equally by {world_size} processes")
        self.samples, self.sampler, self.batch_size = samples, sampler, batch_size
        self.share = batch_size // world_size
        self.offset = rank * self.share
        source = BatchSource(
            ImageReader(samples, height, width, cache),
            np.array([s.pid for s in samples], dtype=np.int64),
            pipeline,
            augment_on_device,
            "replace" if on_corrupt == "skip" else "stop",
        )
        camids = np.array([s.camid for s in samples], dtype=np.int64)
        self._stream = BatchStream(source, camids, self.share, workers, pin_memory, set())

    def __len__(self) -> int:
        """The number of batches per epoch."""
        return len(self.sampler) // self.batch_size

    def batches(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yields this process's part of the epoch's batches, from number ``first_batch`` on.

        Raises:
            UserError: an image cannot be read and may not or cannot be replaced.
        """
        order = self.sampler.indices(epoch)
        starts = [number * self.batch_size + self.offset for number in range(first_batch, len(self))]
        return self._stream.run([Request(epoch, at, order[at : at + self.share]) for at in starts])


class EvalLoader:
    """Images in the list's order, without augmentation; of several processes, each gets every ``world_size``-th."""

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        batch_size: int,
        height: int,
        width: int,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        on_corrupt: str = "stop",
        pin_memory: bool = False,
        shift: StyleShift | None = None,
    ) -> None:
        """Starts nothing yet: every pass starts its own workers and ends them.

        Args:
            samples: Query or gallery images; pids and camids are passed on as they are.
            batch_size: Images at a time in this process.
            height: Input size, px.
            width: Input size, px.
            workers: Processes that load; 0 loads in this one.
            rank: Of this process, from 0.
            world_size: Number of processes.
            on_corrupt: "stop" or "skip": what to do about an image that cannot be read. Skipping names it once; it
                comes black and with pid −1, which no score counts.
            pin_memory: Put batches into page-locked memory, for a GPU.
            shift: Changes the style of each camera's images.
        """
        self._on_corrupt, self._reported = "blank" if on_corrupt == "skip" else "stop", set[str]()
        self._rows = np.arange(rank, len(samples), world_size)
        self.samples, self.batch_size = samples, min(batch_size, max(len(self._rows), 1))
        self._shift = shift
        self._reader, self._workers, self._pin_memory = ImageReader(samples, height, width), workers, pin_memory

    def __len__(self) -> int:
        """The number of batches of this process."""
        return -(-len(self._rows) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yields all batches, the last one perhaps smaller.

        Raises:
            UserError: an image cannot be read and may not be skipped.
        """
        pids = np.array([s.pid for s in self.samples], dtype=np.int64)
        camids = np.array([s.camid for s in self.samples], dtype=np.int64)
        source = BatchSource(self._reader, pids, None, late=False, on_corrupt=self._on_corrupt)
        stream = BatchStream(source, camids, self.batch_size, self._workers, self._pin_memory, self._reported)
        starts = range(0, len(self._rows), self.batch_size)
        batches = stream.run([Request(0, at, self._rows[at : at + self.batch_size]) for at in starts])
        if self._shift is None:
            return batches
        shift = self._shift
        return (batch._replace(images=shift(batch.images, batch.camids)) for batch in batches)
