"""Scores of a network on targets: features of query and gallery, then CMC, mAP and mINP."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from utils.distance import normalize_features
from utils.distributed import Runtime
from utils.log import format_table, progress
from utils.ranking import RankingResult, evaluate_blocks, evaluate_ranking
from utils.rerank import iterate_reranked

logger = logging.getLogger(__name__)

Prepare = Callable[[Any], Tensor]  # of a batch: normalised images (N, 3, H, W) float32 on the device


class Batches(Protocol):
    """Batches with ``indices`` and labels, in a fixed order, that can be gone through again and again."""

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


@dataclass(frozen=True)
class Scores:
    """Scores on one target, in [0, 1], and what they were computed from.

    Attributes:
        ranks: CMC at each of the ranks asked for.
        mAP: Mean average precision.
        mINP: Mean inverse negative penalty.
        num_queries: Queries with a right match in the gallery.
    """

    ranks: dict[int, float]
    mAP: float
    mINP: float
    num_queries: int

    @classmethod
    def from_result(cls, result: RankingResult, ranks: Sequence[int]) -> "Scores":
        """Takes the scores at ``ranks`` from a ranking's result."""
        return cls({k: float(result.cmc[k - 1]) for k in ranks}, result.mAP, result.mINP, result.num_valid)

    def as_dict(self) -> dict[str, float]:
        """Lists the scores by name, for ``metrics.json``."""
        cmc = {f"rank{k}": value for k, value in self.ranks.items()}
        return {**cmc, "mAP": self.mAP, "mINP": self.mINP, "num_queries": self.num_queries}


@dataclass(frozen=True)
class Protocols:
    """How features are compared and scored.

    Attributes:
        metric: ``euclidean`` (squared) or ``cosine``.
        normalize: Scale features to length 1 first.
        ranks: Ranks of the CMC curve to keep.
        flip: Features are the mean over an image and its mirror image.
        rerank: Score the k-reciprocally re-ranked distances too, as target ``NAME+rerank``.
        single_gallery_shot: Names of targets whose CMC takes one random gallery image an identity.
    """

    metric: str = "euclidean"
    normalize: bool = False
    ranks: Sequence[int] = (1, 5, 10, 20)
    flip: bool = False
    rerank: bool = False
    single_gallery_shot: frozenset[str] = frozenset()


@torch.no_grad()
def compute_features(
    network: nn.Module, batches: Batches, prepare: Prepare, runtime: Runtime, *, flip: bool = False, label: str = ""
) -> tuple[Tensor, np.ndarray, np.ndarray]:
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
    network: nn.Module, targets: Mapping[str, Target], prepare: Prepare, runtime: Runtime, protocols: Protocols
) -> dict[str, Scores]:
    """Scores a network on every target.

    Args:
        network: Maps images to features in evaluation; left in the mode it was in.
        targets: By name.
        prepare: Makes normalised images on the device from a batch.
        runtime: Under torchrun every process must call this; all get the same scores.
        protocols: How features are compared.

    Raises:
        UserError: no query of a target has a match, or features are not finite.
    """
    scores: dict[str, Scores] = {}
    for name, target in targets.items():
        query, query_pids, query_camids = compute_features(
            network, target.query, prepare, runtime, flip=protocols.flip, label=f"{name} query"
        )
        gallery, gallery_pids, gallery_camids = compute_features(
            network, target.gallery, prepare, runtime, flip=protocols.flip, label=f"{name} gallery"
        )
        query, gallery = query.to(runtime.device), gallery.to(runtime.device)
        if protocols.normalize:
            query, gallery = normalize_features(query), normalize_features(gallery)
        labels = (query_pids, gallery_pids, query_camids, gallery_camids)
        max_rank, single_shot = max(protocols.ranks), name in protocols.single_gallery_shot
        result = evaluate_ranking(
            query, gallery, *labels, metric=protocols.metric, max_rank=max_rank, single_gallery_shot=single_shot
        )
        scores[name] = Scores.from_result(result, protocols.ranks)
        if protocols.rerank:
            if protocols.metric == "cosine":
                query, gallery = normalize_features(query), normalize_features(gallery)
            blocks = iterate_reranked(query, gallery)
            reranked = evaluate_blocks(blocks, *labels, max_rank=max_rank, single_gallery_shot=single_shot)
            scores[f"{name}+rerank"] = Scores.from_result(reranked, protocols.ranks)
    return scores


def format_scores(scores: Mapping[str, Scores]) -> str:
    """Sets scores as a table in percent, a line a target."""
    ranks: Iterable[int] = next(iter(scores.values())).ranks
    header = ["target", "mAP", *(f"rank-{k}" for k in ranks), "mINP", "queries"]
    rows = [
        [name, f"{s.mAP:.1%}", *(f"{v:.1%}" for v in s.ranks.values()), f"{s.mINP:.1%}", s.num_queries]
        for name, s in scores.items()
    ]
    return format_table(header, rows)


def build_protocols(cfg: Any) -> Protocols:
    """Builds the way of scoring from the ``test`` settings."""
    return Protocols(
        metric=cfg.test.dist_metric,
        normalize=cfg.test.normalize_feature,
        ranks=tuple(sorted(set(cfg.test.ranks))),
        flip=cfg.test.flip,
        rerank=cfg.test.rerank,
        single_gallery_shot=frozenset({"cuhk03"} if cfg.cuhk03.use_metric_cuhk03 else ()),
    )
