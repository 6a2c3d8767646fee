"""Scores of a network on targets: features of query and gallery, then CMC, mAP and mINP."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from engine.scores import Scores, average_splits
from utils.distance import iterate_distances, normalize_features
from utils.distributed import Runtime
from utils.label_names import LabelNames
from utils.log import progress
from utils.ranking import RankingResult, evaluate_blocks
from utils.rerank import iterate_reranked

logger = logging.getLogger(__name__)

Prepare = Callable[[Any], Tensor]  # of a batch: normalised images (N, 3, H, W) float32 on the device
Found = tuple[Tensor, np.ndarray, np.ndarray]  # features (N, D) of images, their pids and camids (N,)
LabelArrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # pids of query, gallery; camids of query, gallery

DRAWN_RANKS = 50  # length of the CMC curve that an observer gets, at least
DISTANCES = {"euclidean": "squared Euclidean distance", "cosine": "cosine distance"}


class Batches(Protocol):
    """Batches with ``indices`` and labels, in a fixed order, that can be gone through again and again.

    ``samples`` are the images in that order, with ``path``, ``pid`` and ``camid``.
    """

    samples: Any  # a sequence

    def __iter__(self) -> Any: ...
    def __len__(self) -> int: ...


class Target(Protocol):
    """What a network is tested on."""

    @property
    def query(self) -> Batches:
        """Images that are searched for."""

    @property
    def gallery(self) -> Batches:
        """Images that are searched in."""

    @property
    def splits(self) -> Mapping[int, "Target"]:
        """By number the splits to take the mean over, whose images are in the above; empty: the above is the split."""

    @property
    def names(self) -> LabelNames:
        """What the data set's files call people and cameras."""


class Observer(Protocol):
    """Sees every ranking that is scored."""

    def watch(
        self, name: str, target: Target, blocks: Iterable[Tensor], labels: LabelArrays, distance: str
    ) -> Iterable[Tensor]:
        """Passes the blocks of rows of a target's distance matrix on, unchanged; ``distance`` says what they hold."""

    def finish(self, name: str, result: RankingResult) -> None:
        """Takes the scores, after the last block."""


@dataclass(frozen=True)
class Protocols:
    """How features are compared and scored.

    Attributes:
        metric: ``euclidean`` (squared) or ``cosine``.
        normalize: Scale features to length 1 first.
        ranks: Ranks of the CMC curve to keep.
        flip: Features are the mean over an image and its mirror image.
        camera_pairs: Score each pair of cameras too.
        rerank: Score the k-reciprocally re-ranked distances too, as target ``NAME+rerank``.
        single_gallery_shot: Names of targets whose CMC takes one random gallery image an identity.
    """

    metric: str = "euclidean"
    normalize: bool = False
    ranks: Sequence[int] = (1, 5, 10, 20)
    flip: bool = False
    rerank: bool = False
    camera_pairs: bool = False
    single_gallery_shot: frozenset[str] = frozenset()


@torch.no_grad()
def compute_features(
    network: nn.Module, batches: Batches, prepare: Prepare, runtime: Runtime, *, flip: bool = False, label: str = ""
) -> Found:
    """Runs a network in evaluation over images; under torchrun each process does its share and all get the whole.

    Returns:
        Features (N, D) float32 on the CPU, pids (N,) and camids (N,) int64, in the samples' order.
    """
    was_training = network.training
    network.eval()
    parts: list[tuple[Tensor, ...]] = []
    for batch in progress(batches, len(batches), label):
        images = prepare(batch)
        features = network(images)
        if flip:
            features = (features + network(images.flip(3))) / 2
        parts.append((batch.indices, features.float().cpu(), batch.pids, batch.camids))
    network.train(was_training)
    gathered = [part for parts_of_rank in runtime.gather(parts) for part in parts_of_rank]
    indices, features, pids, camids = (torch.cat(column) for column in zip(*gathered, strict=True))
    order = indices.argsort()
    return features[order], pids[order].numpy(), camids[order].numpy()


def evaluate_targets(
    network: nn.Module,
    targets: Mapping[str, Target],
    prepare: Prepare,
    runtime: Runtime,
    protocols: Protocols,
    observer: Observer | None = None,
) -> dict[str, Scores]:
    """Scores a network on every target.

    Args:
        network: Maps images to features in evaluation; left in the mode it was in.
        targets: By name.
        prepare: Makes normalised images on the device from a batch.
        runtime: Under torchrun every process must call this; all get the same scores.
        protocols: How features are compared.
        observer: Sees the rankings; needed in one process only.

    Raises:
        UserError: no query of a target has a match, or features are not finite.
    """
    scores: dict[str, Scores] = {}
    for name, target in targets.items():
        query, gallery = (
            compute_features(network, batches, prepare, runtime, flip=protocols.flip, label=f"{name} {part}")
            for part, batches in (("query", target.query), ("gallery", target.gallery))
        )
        query, gallery = ((features.to(runtime.device), pids, camids) for features, pids, camids in (query, gallery))
        single_shot = name in protocols.single_gallery_shot
        if not target.splits:
            found = score_rankings(name, target, query, gallery, protocols, single_shot, observer)
            scores |= {f"{name}{kind}": of_kind for kind, of_kind in found.items()}
            continue
        of_split: dict[int, dict[str, Scores]] = {}
        for number, split in target.splits.items():
            parts = pick_images(query, target.query, split.query), pick_images(gallery, target.gallery, split.gallery)
            watching = None if of_split else observer  # pictures of one split are enough
            of_split[number] = score_rankings(f"{name}-split{number}", split, *parts, protocols, single_shot, watching)
        for kind in next(iter(of_split.values())):
            scores[f"{name}{kind}"] = average_splits({number: found[kind] for number, found in of_split.items()})
    return scores


def score_rankings(
    name: str,
    target: Target,
    query: Found,
    gallery: Found,
    protocols: Protocols,
    single_gallery_shot: bool,
    observer: Observer | None = None,
) -> dict[str, Scores]:
    """Scores every ranking of a target; ``name`` is the observer's.

    Returns:
        By what the ranking's name has after the target's: "" and, if that is wanted, "+rerank".

    Raises:
        UserError: no query has a match, or features are not finite.
    """
    labels = (query[1], gallery[1], query[2], gallery[2])
    max_rank = max(DRAWN_RANKS if observer else 1, *protocols.ranks)
    scores = {}
    for kind, blocks, distance in iterate_rankings(query[0], gallery[0], protocols):
        if observer:
            blocks = observer.watch(f"{name}{kind}", target, blocks, labels, distance)
        result = evaluate_blocks(
            blocks,
            *labels,
            max_rank=max_rank,
            single_gallery_shot=single_gallery_shot,
            camera_pairs=protocols.camera_pairs,
        )
        if observer:
            observer.finish(f"{name}{kind}", result)
        scores[kind] = Scores.from_result(result, protocols.ranks)
    return scores


def pick_images(found: Found, images: Batches, wanted: Batches) -> Found:
    """Takes what was found of ``images`` for those that are ``wanted``, in their order."""
    row_of = {sample.path: row for row, sample in enumerate(images.samples)}
    rows = [row_of[sample.path] for sample in wanted.samples]
    features, pids, camids = found
    return features[rows], pids[rows], camids[rows]


def iterate_rankings(
    query: Tensor, gallery: Tensor, protocols: Protocols
) -> Iterator[tuple[str, Iterable[Tensor], str]]:
    """Yields every ranking to score: what its name has after the target's, its distances by rows, what they are.

    Args:
        query: Features (Q, D).
        gallery: Features (G, D) on the same device.
        protocols: How features are compared.

    Raises:
        UserError: features that cannot be compared.
    """
    if protocols.normalize:
        query, gallery = normalize_features(query), normalize_features(gallery)
    blocks = iterate_distances(query, gallery, protocols.metric)
    yield "", blocks, DISTANCES[protocols.metric]
    if protocols.rerank:
        blocks = iterate_reranked(query, gallery, metric=protocols.metric)
        yield "+rerank", blocks, "re-ranked distance"


def build_protocols(cfg: Any) -> Protocols:
    """Builds the way of scoring from the ``test`` settings."""
    return Protocols(
        metric=cfg.test.dist_metric,
        normalize=cfg.test.normalize_feature,
        ranks=tuple(sorted(set(cfg.test.ranks))),
        flip=cfg.test.flip,
        rerank=cfg.test.rerank,
        camera_pairs=cfg.test.camera_pairs,
        single_gallery_shot=frozenset({"cuhk03"} if cfg.cuhk03.use_metric_cuhk03 else ()),
    )
