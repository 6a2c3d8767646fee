"""Scores of a network on targets: features of query and gallery, then CMC, mAP and mINP."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from engine.scores import Scores, average_splits
from utils.distance import TILE_QUERIES, iterate_distances, normalize_features
from utils.distributed import Runtime
from utils.label_names import LabelNames
from utils.log import progress
from utils.ranking import RankingResult, score_queries, summarise_scores
from utils.rerank import iterate_reranked
from utils.work_share import WorkShare

logger = logging.getLogger(__name__)

Prepare = Callable[[Any], Tensor]  # of a batch: normalised images (N, 3, H, W) float32 on the device
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


class EvaluationTarget(Protocol):
    """What a network is tested on."""

    @property
    def query(self) -> Batches:
        """Images that are searched for."""

    @property
    def gallery(self) -> Batches:
        """Images that are searched in."""

    @property
    def splits(self) -> Mapping[int, "EvaluationTarget"]:
        """By number the splits to take the mean over, whose images are in the above; empty: the above is the split."""

    @property
    def names(self) -> LabelNames:
        """What the data set's files call people and cameras."""


class Observer(Protocol):
    """Sees every ranking that is scored."""

    def watch(
        self, name: str, target: EvaluationTarget, blocks: Iterable[Tensor], labels: LabelArrays, distance: str
    ) -> Iterable[Tensor]:
        """Passes the blocks of rows of a target's distance matrix on, unchanged; ``distance`` says what they hold."""

    def finish(self, name: str, result: RankingResult) -> None:
        """Takes the scores, after the last block."""


class LabelledFeatures(NamedTuple):
    """Features of images with their labels.

    Attributes:
        features: (N, D) float32.
        pids: (N,) int64.
        camids: (N,) int64.
    """

    features: Tensor
    pids: np.ndarray
    camids: np.ndarray

    def pick(self, images: Batches, wanted: Batches) -> "LabelledFeatures":
        """Takes those of the images that are ``wanted``, in their order; these are those of ``images``."""
        row_of = {sample.path: row for row, sample in enumerate(images.samples)}
        rows = [row_of[sample.path] for sample in wanted.samples]
        return LabelledFeatures(self.features[rows], self.pids[rows], self.camids[rows])


@dataclass(frozen=True)
class ScoringRules:
    """How features are compared and scored.

    Attributes:
        metric: ``euclidean`` (squared) or ``cosine``.
        normalize: Scale features to length 1 first.
        ranks: Ranks of the CMC curve to keep.
        flip: Features are the mean over an image and its mirror image.
        camera_pairs: Score each pair of cameras too.
        rerank: Score the k-reciprocally re-ranked distances too, as target ``NAME+rerank``.
        single_gallery_shot: Names of targets whose CMC takes one random gallery image per identity.
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
) -> LabelledFeatures:
    """Runs a network in evaluation over images; under torchrun each process does its share and all get the whole.

    Returns:
        Those of all images, on the CPU, in the samples' order.
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
    return LabelledFeatures(features[order], pids[order].numpy(), camids[order].numpy())


def evaluate_targets(
    network: nn.Module,
    targets: Mapping[str, EvaluationTarget],
    prepare: Prepare,
    runtime: Runtime,
    rules: ScoringRules,
    observer: Observer | None = None,
) -> dict[str, Scores]:
    """Scores a network on every target.

    Args:
        network: Maps images to features in evaluation; left in the mode it was in.
        targets: By name.
        prepare: Makes normalised images on the device from a batch.
        runtime: Under torchrun every process must call this; all get the same scores.
        rules: How features are compared.
        observer: Sees the rankings; needed in rank 0 alone.

    Raises:
        UserError: no query of a target has a match, or features are not finite.
    """
    scores: dict[str, Scores] = {}
    for name, target in targets.items():
        query, gallery = (
            compute_features(network, batches, prepare, runtime, flip=rules.flip, label=f"{name}, features of {part}")
            for part, batches in (("query", target.query), ("gallery", target.gallery))
        )
        query, gallery = (found._replace(features=found.features.to(runtime.device)) for found in (query, gallery))
        single_shot = name in rules.single_gallery_shot
        if not target.splits:
            of_kind = score_rankings(name, target, query, gallery, rules, single_shot, runtime, observer)
            scores |= {f"{name}{kind}": kind_scores for kind, kind_scores in of_kind.items()}
            continue
        of_split: dict[int, dict[str, Scores]] = {}
        for number, split in target.splits.items():
            parts = query.pick(target.query, split.query), gallery.pick(target.gallery, split.gallery)
            watching = None if of_split else observer  # pictures of one split are enough
            label = f"{name}-split{number}"
            of_split[number] = score_rankings(label, split, *parts, rules, single_shot, runtime, watching)
        for kind in next(iter(of_split.values())):
            scores[f"{name}{kind}"] = average_splits({number: found[kind] for number, found in of_split.items()})
    return scores


def score_rankings(
    name: str,
    target: EvaluationTarget,
    query: LabelledFeatures,
    gallery: LabelledFeatures,
    rules: ScoringRules,
    single_gallery_shot: bool,
    runtime: Runtime,
    observer: Observer | None = None,
) -> dict[str, Scores]:
    """Scores every ranking of a target; ``name`` is the observer's. Each process scores a share of the queries.

    Where rank 0 has an observer, which sees whole rankings, it scores all queries.

    Returns:
        By what the ranking's name has after the target's: "" and, if that is wanted, "+rerank". The same in all
        processes, bit for bit what one process alone computes.

    Raises:
        UserError: no query has a match, or features are not finite.
    """
    labels = (query.pids, gallery.pids, query.camids, gallery.camids)
    rows = runtime.share_of_run.rows(len(query.pids), TILE_QUERIES)
    if runtime.any([observer is not None])[0]:
        rows = range(len(query.pids) if runtime.is_main else 0)
    max_rank = max(DRAWN_RANKS if observer else 1, min(max(rules.ranks), len(gallery.pids)))
    scores = {}
    for kind, blocks, distance in iterate_rankings(query.features, gallery.features, rules, rows, runtime.share_of_run):
        if observer:
            blocks = observer.watch(f"{name}{kind}", target, blocks, labels, distance)
        blocks = progress(blocks, -(-len(rows) // TILE_QUERIES), f"{name}{kind}, ranking")
        own = score_queries(
            blocks, *labels, rows=rows, single_gallery_shot=single_gallery_shot, camera_pairs=rules.camera_pairs
        )
        result = summarise_scores(runtime.gather(own), *labels, max_rank=max_rank, camera_pairs=rules.camera_pairs)
        if observer:
            observer.finish(f"{name}{kind}", result)
        scores[kind] = Scores.from_result(result, rules.ranks)
    return scores


def iterate_rankings(
    query: Tensor, gallery: Tensor, rules: ScoringRules, rows: range, share: WorkShare
) -> Iterator[tuple[str, Iterable[Tensor], str]]:
    """Yields every ranking to score: what its name has after the target's, its distances by rows, what they are.

    Args:
        query: Features (Q, D).
        gallery: Features (G, D) on the same device.
        rules: How features are compared.
        rows: The queries to compare.
        share: This process's part of what re-ranking has to know of all images.

    Raises:
        UserError: features that cannot be compared.
    """
    if rules.normalize:
        query, gallery = normalize_features(query), normalize_features(gallery)
    yield "", iterate_distances(query, gallery, rules.metric, rows=rows), DISTANCES[rules.metric]
    if rules.rerank:
        yield (
            "+rerank",
            iterate_reranked(query, gallery, metric=rules.metric, rows=rows, share=share),
            "re-ranked distance",
        )


def build_scoring_rules(cfg: Any) -> ScoringRules:
    """Builds the way of scoring from the ``test`` settings."""
    return ScoringRules(
        metric=cfg.test.dist_metric,
        normalize=cfg.test.normalize_feature,
        ranks=tuple(sorted(set(cfg.test.ranks))),
        flip=cfg.test.flip,
        rerank=cfg.test.rerank,
        camera_pairs=cfg.test.camera_pairs,
        single_gallery_shot=frozenset({"cuhk03"} if cfg.cuhk03.use_metric_cuhk03 else ()),
    )
