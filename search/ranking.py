"""Scores every sub-network of a trained super-network on held-out images.

The six segments are walked as a tree, depth first, so that what sub-networks have in common is computed once: 5,460
blocks in place of 24,576. A path of a super-network has seen its batch norms' running statistics mixed with those of
all other paths, so each node sets them anew: beside the held-out images a fixed set of training images goes down the
tree, whose statistics every batch norm takes. A sub-network's score is therefore that of the child built from it after
``engine.recalibration`` with one batch of all those training images.

Memory: one feature map of all images for each depth of a path, with shared candidates three, and a few more where the
tree is at work. The largest are those of the first two blocks, at a quarter of the images' height and width.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genotype import NUM_BLOCKS, NUM_CANDIDATES, NUM_GENOTYPES
from utils.batch_norm import find_batch_norms
from utils.distributed import Runtime
from utils.errors import UserError
from utils.files import write_atomically
from utils.log import format_duration
from utils.read_arrays import read_arrays

logger = logging.getLogger(__name__)

PREFIX = 2  # blocks that all sub-networks of a part have in common
NUM_PARTS = NUM_CANDIDATES**PREFIX
PROGRESS_NAME = "ranking_progress.npz"
RANKING_ADVICE = (
    "the ranking keeps feature maps of all held-out images: hold out fewer by more nas.num_folds, lower data.height "
    "and data.width, or use a device with more memory"
)


@dataclass(frozen=True)
class Ranking:
    """Scores of all 4,096 sub-networks, by the number that a genotype's digits are in base 4.

    Attributes:
        average_precision: (4096, Q) float32, of each query that has a right match.
        query_pids: (Q,) int64: whom each query shows.
    """

    average_precision: np.ndarray
    query_pids: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """The mAP of each sub-network, (4096,) float64."""
        return self.average_precision.mean(axis=1, dtype=np.float64)


class SegmentedNetwork(Protocol):
    """A super-network as the ranking sees it: no norm in its stem has statistics, blocks have ``iterate_outputs``."""

    @property
    def conv5(self) -> nn.Module:
        """The head's convolution and norm."""

    @property
    def fc(self) -> nn.Module:
        """The head's fully connected layer and norm."""

    @property
    def segments(self) -> Sequence[Any]:
        """The six segments."""

    def stem(self, images: Tensor) -> Tensor:
        """Maps images to the first segment's input."""

    def head(self, x: Tensor) -> Tensor:
        """Maps the last segment's output to features."""


class Maps(NamedTuple):
    """The same feature maps of both sets of images, or what gives them one after the other."""

    calibration: Any
    held_out: Any


class SubnetTree:
    """Computes the features that each sub-network gives of held-out images.

    Args:
        network: The super-network, on a device; nothing else may use it, since its batch norms change.
        calibration: Training images (C, 3, H, W) there, whose statistics batch norms take.
        held_out: Held-out images (N, 3, H, W) there.
    """

    def __init__(self, network: SegmentedNetwork, calibration: Tensor, held_out: Tensor) -> None:
        self.network = network
        parts = [network.conv5, network.fc, *(part for segment in network.segments for part in segment[:2] if part)]
        self._norms = {part: find_batch_norms(part) for part in parts}
        for norm in (norm for norms in self._norms.values() for norm in norms):
            norm.momentum = 1.0  # a batch's statistics take the place of the running ones
        with torch.inference_mode():
            self._stem = Maps(network.stem(calibration), network.stem(held_out))

    @property
    def num_images(self) -> tuple[int, int]:
        """Numbers of held-out and of calibration images."""
        return len(self._stem.held_out), len(self._stem.calibration)

    @torch.inference_mode()
    def iterate_features(self, part: int) -> Iterator[Tensor]:
        """Yields the features (N, 512) by each of the 256 sub-networks of one of the 16 parts, in order."""
        maps = self._stem
        for segment, candidate in zip(self.network.segments[:PREFIX], divmod(part, NUM_CANDIDATES), strict=True):
            parts = [segment.block, *([segment.pool] if segment.pool else [])]
            maps = self._apply(parts, partial(_run_path, segment, candidate), maps)
        yield from self._walk(PREFIX, maps)

    def _walk(self, depth: int, maps: Maps) -> Iterator[Tensor]:
        """Yields the features of all sub-networks below a node."""
        if depth == NUM_BLOCKS:
            yield self._apply([self.network.conv5, self.network.fc], self.network.head, maps).held_out
            return
        block, pool = (segment := self.network.segments[depth]).block, segment.pool
        outputs = self._apply([block], block.iterate_outputs, maps)
        for _ in range(NUM_CANDIDATES):
            child = self._apply([block], next, outputs)
            yield from self._walk(depth + 1, self._apply([pool], segment.leave, child) if pool else child)

    def _apply(self, parts: Sequence[nn.Module], function: Callable[[Any], Any], maps: Maps) -> Maps:
        """Applies what runs these parts: to the calibration images' maps, which sets statistics, then to the others."""
        norms = [norm for part in parts for norm in self._norms[part]]
        for norm in norms:
            norm.training = True
        calibration = function(maps.calibration)
        for norm in norms:
            norm.training = False
        return Maps(calibration, function(maps.held_out))


@dataclass(frozen=True)
class Ranker:
    """Ranks all sub-networks, in parts that are saved one after the other.

    Attributes:
        tree: Gives features.
        score: Average precision of each query that has a right match, (Q,), by the held-out images' features.
        query_pids: (Q,): whom those queries show.
        runtime: The processes that the parts are dealt out to.
        progress: The file of what is done; written by the main process alone.
        fingerprint: Stands for weights, images and settings: progress of another one is not gone on with.
    """

    tree: SubnetTree
    score: Callable[[Tensor], np.ndarray]
    query_pids: np.ndarray
    runtime: Runtime
    progress: Path
    fingerprint: str

    def run(self) -> Ranking:
        """Scores what is not scored yet; every process must call this, all get the whole."""
        found = self.runtime.share(self._read_progress() if self.runtime.is_main else None)
        left = [part for part in range(NUM_PARTS) if np.isnan(found[part]).any()]
        if left:
            logger.info("ranking all %d sub-networks on %d held-out images, norms' statistics by %d training images",
                        NUM_GENOTYPES, *self.tree.num_images)  # fmt: skip
        started = time.monotonic()
        for first in range(0, len(left), self.runtime.world_size):
            now = left[first : first + self.runtime.world_size]
            own = self._score_part(now[self.runtime.rank]) if self.runtime.rank < len(now) else None
            for part, of_part in zip(now, self.runtime.gather(own), strict=False):
                found[part] = of_part
            if self.runtime.is_main:
                self._write_progress(found)
            num_done = first + len(now)
            seconds_left = (time.monotonic() - started) / num_done * (len(left) - num_done)
            logger.info("%d of %d parts ranked, %s left", NUM_PARTS - len(left) + num_done, NUM_PARTS,
                        format_duration(seconds_left))  # fmt: skip
        return Ranking(found.reshape(NUM_GENOTYPES, -1), self.query_pids)

    def _score_part(self, part: int) -> np.ndarray:
        return np.stack([self.score(features) for features in self.tree.iterate_features(part)]).astype(np.float32)

    def _read_progress(self) -> np.ndarray:
        """Returns what is done, (16, 256, Q), NaN for the rest."""
        nothing = np.full((NUM_PARTS, NUM_GENOTYPES // NUM_PARTS, len(self.query_pids)), np.nan, np.float32)
        if not self.progress.exists():
            return nothing
        try:
            saved, found = read_arrays(self.progress, "ranking's progress", ["fingerprint", "ap"], 2 * nothing.nbytes)
        except UserError:
            saved, found = np.array("damaged"), nothing
        if str(saved) == self.fingerprint and found.shape == nothing.shape and found.dtype == nothing.dtype:
            return found
        logger.warning("%s is of other weights, images or settings, or damaged: ranking anew", self.progress)
        return nothing

    def _write_progress(self, found: np.ndarray) -> None:
        arrays = {"fingerprint": np.array(self.fingerprint), "ap": found}
        write_atomically(self.progress, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def compare_features(query: Tensor, gallery: Tensor, metric: str, normalize: bool) -> Tensor:
    """Computes all distances in float64: quick where matrices are small, and without products in TF32.

    Args:
        query: Features (Q, D).
        gallery: Features (G, D) on the same device.
        metric: ``euclidean``, squared; or ``cosine``, 1 − cosine.
        normalize: Scale features to length 1 first.

    Returns:
        (Q, G) float64.
    """
    query, gallery = query.double(), gallery.double()
    if normalize or metric == "cosine":
        query, gallery = F.normalize(query, dim=1), F.normalize(gallery, dim=1)
    products = query @ gallery.T
    if metric == "cosine":
        return 1 - products
    return query.square().sum(dim=1, keepdim=True) + gallery.square().sum(dim=1) - 2 * products


def _run_path(segment: Any, candidate: int, x: Tensor) -> Tensor:
    return segment(x, candidate)


def compute_fingerprint(network: nn.Module, *facts: object) -> str:
    """Computes what stands for a network's weights and plain facts: 64 hex digits."""
    digest = hashlib.sha256(repr(facts).encode())
    for name, parameter in network.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
