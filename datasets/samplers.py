"""In which order an epoch shows the training images.

A sampler is a pure function of a seed and an epoch. Its order is meant to be cut into batches of ``batch_size``, one
after the other; the samplers that shape batches guarantee their shape for exactly that cut.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from datasets.base import Sample
from utils.errors import UserError

Indices = NDArray[np.int64]


class Sampler(Protocol):
    """What every sampler offers."""

    def __len__(self) -> int:
        """The number of images of an epoch, the same in every epoch."""

    def indices(self, epoch: int) -> Indices:
        """Lists which samples the epoch shows, in order: (len(self),) int64 positions in the list of samples."""


class SequentialSampler:
    """Every image once, in the list's order."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.num_samples = len(samples)

    def __len__(self) -> int:
        return self.num_samples

    def indices(self, epoch: int) -> Indices:
        """Lists the order of an epoch."""
        return np.arange(self.num_samples)


class RandomSampler:
    """Every image once, shuffled."""

    def __init__(self, samples: Sequence[Sample], seed: int) -> None:
        self.num_samples, self.seed = len(samples), seed

    def __len__(self) -> int:
        return self.num_samples

    def indices(self, epoch: int) -> Indices:
        """Lists the order of an epoch."""
        return _generator(self.seed, epoch).permutation(self.num_samples)


class RandomIdentitySampler:
    """Batches of P different identities with K images each, an identity's images side by side.

    An epoch has the largest number of batches for which the images suffice: every identity's images are shuffled and
    cut into groups of K (the rest that fills no group sits the epoch out; an identity with fewer than K images gives
    one group, drawn with replacement), and no identity is twice in a batch.
    """

    def __init__(self, samples: Sequence[Sample], seed: int, batch_size: int, num_instances: int) -> None:
        """Counts the groups.

        Args:
            samples: The training images.
            seed: Of the order.
            batch_size: P · K, over all processes.
            num_instances: K, at least 2.

        Raises:
            UserError: ``batch_size`` is not a multiple of K, holds fewer than 2 identities, or more than there are.
        """
        rows_of = _rows_by([s.pid for s in samples])
        if num_instances < 2:
            raise UserError(f"sampler.num_instances {num_instances}: an identity needs at least 2 images in a batch")
        if batch_size % num_instances or batch_size < 2 * num_instances:
            raise UserError(
                f"train.batch_size {batch_size} with sampler.num_instances {num_instances}: RandomIdentitySampler "
                f"needs a multiple of {num_instances}, and room for 2 identities: at least {2 * num_instances}"
            )
        self.pids_per_batch = batch_size // num_instances
        if len(rows_of) < self.pids_per_batch:
            raise UserError(
                f"train.batch_size {batch_size} with sampler.num_instances {num_instances} asks for "
                f"{self.pids_per_batch} identities per batch, the training data has {len(rows_of)}"
            )
        self.rows_of, self.seed, self.num_instances = rows_of, seed, num_instances
        self.num_groups = np.array([max(1, len(rows) // num_instances) for rows in rows_of])
        self.num_batches = self._count_batches()

    def __len__(self) -> int:
        return self.num_batches * self.pids_per_batch * self.num_instances

    def indices(self, epoch: int) -> Indices:
        """Lists the order of an epoch."""
        generator = _generator(self.seed, epoch)
        kept = np.minimum(self.num_groups, self.num_batches)
        owner = np.repeat(np.arange(len(kept)), kept)
        surplus = len(owner) - self.num_batches * self.pids_per_batch
        owner = np.delete(owner, generator.choice(len(owner), surplus, replace=False))
        kept = np.bincount(owner, minlength=len(kept))

        # Identities in random order, each with its groups in a row; group t goes to batch t mod num_batches. No
        # identity has more groups than there are batches, so none comes twice into one.
        groups = [self._draw_groups(generator, pid, kept[pid]) for pid in generator.permutation(len(kept))]
        by_batch = np.concatenate(groups).reshape(self.pids_per_batch, self.num_batches, self.num_instances)
        return by_batch.transpose(1, 0, 2)[generator.permutation(self.num_batches)].reshape(-1)

    def _draw_groups(self, generator: np.random.Generator, pid: int, count: int) -> Indices:
        rows = self.rows_of[pid]
        if len(rows) < self.num_instances:
            return generator.choice(rows, (count, self.num_instances))
        return generator.permutation(rows)[: count * self.num_instances].reshape(count, self.num_instances)

    def _count_batches(self) -> int:
        """The largest B with sum of min(groups, B) ≥ P · B, so that B batches of P different identities exist."""
        candidates = range(1, int(self.num_groups.sum()) // self.pids_per_batch + 1)
        feasible = [b for b in candidates if np.minimum(self.num_groups, b).sum() >= self.pids_per_batch * b]
        return feasible[-1]


class RandomDomainSampler:
    """Batches with equal shares of N domains (cameras or data sets), chosen afresh for every batch.

    Each domain deals its images out in shuffled order and starts over when it has none left, so that a small domain
    repeats its images within an epoch. An epoch has as many batches as the images fill. (Torchreid ends the epoch
    when one of the drawn domains runs short, which makes its length random.)
    """

    def __init__(self, domains: Sequence[int], seed: int, batch_size: int, num_domains: int, noun: str) -> None:
        """Groups the images.

        Args:
            domains: The domain of every training image.
            seed: Of the order.
            batch_size: Over all processes, a multiple of the number of domains.
            num_domains: N; 0 or less means all.
            noun: What a domain is, for messages: "cams" or "datasets".

        Raises:
            UserError: there are fewer domains than asked for, or ``batch_size`` cannot be shared equally.
        """
        self.rows_of = _rows_by(domains)
        self.num_domains = num_domains if num_domains > 0 else len(self.rows_of)
        if self.num_domains > len(self.rows_of):
            raise UserError(
                f"sampler.num_{noun} {num_domains}: the training data has {len(self.rows_of)}; set it to that or to 0 "
                "for all"
            )
        if batch_size % self.num_domains:
            raise UserError(
                f"train.batch_size {batch_size} cannot be shared equally by {self.num_domains} {noun} "
                f"(sampler.num_{noun} {num_domains}); choose a multiple"
            )
        self.seed, self.share = seed, batch_size // self.num_domains
        self.num_batches = len(domains) // batch_size

    def __len__(self) -> int:
        return self.num_batches * self.num_domains * self.share

    def indices(self, epoch: int) -> Indices:
        """Lists the order of an epoch."""
        generator = _generator(self.seed, epoch)
        every = len(self.rows_of)
        chosen = generator.permuted(np.tile(np.arange(every), (self.num_batches, 1)), axis=1)[:, : self.num_domains]
        order = np.empty((self.num_batches, self.num_domains, self.share), np.int64)
        for domain, rows in enumerate(self.rows_of):
            places = chosen == domain
            needed = int(places.sum()) * self.share
            rounds = [generator.permutation(rows) for _ in range(-(-needed // len(rows)))]
            order[places] = np.concatenate([np.empty(0, np.int64), *rounds])[:needed].reshape(-1, self.share)
        return order.reshape(-1)


@dataclass(frozen=True)
class SamplerOptions:
    """What the samplers need; each takes what concerns it.

    Attributes:
        seed: Of the order.
        batch_size: Images per step over all processes.
        num_instances: Images of an identity in a batch (RandomIdentitySampler).
        num_cams: Cameras in a batch, 0 for all (RandomDomainSampler).
        num_datasets: Data sets in a batch, 0 for all (RandomDatasetSampler).
    """

    seed: int
    batch_size: int
    num_instances: int
    num_cams: int
    num_datasets: int


SAMPLERS: dict[str, Callable[[Sequence[Sample], SamplerOptions], Sampler]] = {
    "RandomSampler": lambda samples, o: RandomSampler(samples, o.seed),
    "SequentialSampler": lambda samples, o: SequentialSampler(samples),
    "RandomIdentitySampler": lambda samples, o: RandomIdentitySampler(samples, o.seed, o.batch_size, o.num_instances),
    "RandomDomainSampler": lambda samples, o: RandomDomainSampler(
        [s.camid for s in samples], o.seed, o.batch_size, o.num_cams, "cams"
    ),
    "RandomDatasetSampler": lambda samples, o: RandomDomainSampler(
        [s.dataset for s in samples], o.seed, o.batch_size, o.num_datasets, "datasets"
    ),
}


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch, zlib.crc32(b"order")])


def _rows_by(labels: Sequence[int]) -> list[Indices]:
    """Groups positions by label, labels ascending."""
    values = np.asarray(labels, dtype=np.int64)
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order])) + 1
    return np.split(order, starts) if len(order) else []
