"""Scores on targets: of one split, or the mean over several, with their spread; as a table and as plain values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from utils.label_names import LabelNames
from utils.log import format_table
from utils.match_ranks import CameraPairs
from utils.ranking import RankingResult


@dataclass(frozen=True)
class Scores:
    """Scores on one target, in [0, 1], and what they were computed from.

    Attributes:
        ranks: CMC at each of the ranks asked for.
        mAP: Mean average precision.
        mINP: Mean inverse negative penalty.
        num_queries: Queries with a right match in the gallery; of several splits, those of all together.
        splits: What the other values are the means of, by split_id; empty for scores of a single split.
        camera_pairs: Scores of each pair of cameras, if they were asked for, of a single split.
    """

    ranks: dict[int, float]
    mAP: float
    mINP: float
    num_queries: int
    splits: Mapping[int, "Scores"] = field(default_factory=dict)
    camera_pairs: CameraPairs | None = field(default=None, compare=False)

    @classmethod
    def from_result(cls, result: RankingResult, ranks: Sequence[int]) -> "Scores":
        """Takes the scores at ``ranks`` from a ranking's result; past the end of its CMC curve they stay the same."""
        cmc = {k: float(result.cmc[min(k, len(result.cmc)) - 1]) for k in ranks}
        return cls(cmc, result.mAP, result.mINP, result.num_valid, camera_pairs=result.camera_pairs)

    def rates(self) -> dict[str, float]:
        """Lists what is a share by name: CMC, mAP and mINP."""
        return {**{f"rank{k}": value for k, value in self.ranks.items()}, "mAP": self.mAP, "mINP": self.mINP}

    def deviations(self) -> dict[str, float]:
        """Lists the sample standard deviation (n − 1) of each rate over the splits; empty for a single split."""
        rates = [split.rates() for split in self.splits.values()]
        return {name: float(np.std([r[name] for r in rates], ddof=1)) for name in self.rates()} if rates else {}

    def as_dict(self) -> dict[str, float]:
        """Lists the scores by name; those of several splits with their deviations, as ``mAP_std``."""
        deviations = {f"{name}_std": value for name, value in self.deviations().items()}
        return {**self.rates(), **deviations, "num_queries": self.num_queries}

    def as_document(self) -> dict[str, Any]:
        """Lists the scores and those of every split and pair of cameras, for ``metrics.json``."""
        document: dict[str, Any] = self.as_dict()
        if self.splits:
            document["splits"] = {str(split_id): split.as_document() for split_id, split in self.splits.items()}
        if self.camera_pairs:
            document["camera_pairs"] = self.camera_pairs.as_rows()
        return document


def average_splits(splits: Mapping[int, Scores]) -> Scores:
    """Returns the means over at least two splits, by split_id, of which each counts the same."""
    parts = list(splits.values())
    return Scores(
        ranks={k: float(np.mean([part.ranks[k] for part in parts])) for k in parts[0].ranks},
        mAP=float(np.mean([part.mAP for part in parts])),
        mINP=float(np.mean([part.mINP for part in parts])),
        num_queries=sum(part.num_queries for part in parts),
        splits=dict(splits),
    )


def format_scores(scores: Mapping[str, Scores]) -> str:
    """Sets scores as a table in percent: one line per target, or one per split and one for their mean ± deviation."""
    ranks: Iterable[int] = next(iter(scores.values())).ranks
    header = ["target", "mAP", *(f"rank-{k}" for k in ranks), "mINP", "queries"]
    rows = []
    for name, of_target in scores.items():
        rows += [_format_row(f"{name} split {split_id}", split) for split_id, split in of_target.splits.items()]
        rows.append(_format_row(f"{name} mean ± std" if of_target.splits else name, of_target))
    note = "\n±: sample standard deviation (n − 1) over the splits" if any(s.splits for s in scores.values()) else ""
    return format_table(header, rows) + note


def format_camera_pairs(scores: Mapping[str, Scores], names: Mapping[str, LabelNames]) -> str:
    """Sets scores of pairs of cameras: one table per ranking, one line per query camera; "" where there are none.

    Args:
        scores: By ranking: a target's name, or that and ``+rerank``.
        names: By target.
    """
    tables = []
    for name, of_target in scores.items():
        name_camera = names[name.removesuffix("+rerank")].camera
        parts = {f"{name} split {i}": split for i, split in of_target.splits.items()} or {name: of_target}
        for label, part in parts.items():
            if pairs := part.camera_pairs:
                rows = [
                    [
                        name_camera(camid),
                        *("–" if not n else f"{mAP:.1%} / {rank1:.1%}" for mAP, rank1, n in zip(*cells, strict=True)),
                    ]
                    for camid, *cells in zip(pairs.query_camids, pairs.mAP, pairs.rank1, pairs.num_queries, strict=True)
                ]
                tables.append(format_table([f"{label}, mAP / rank-1", *map(name_camera, pairs.gallery_camids)], rows))
    return "\n\n".join(tables)


def _format_row(label: str, scores: Scores) -> list[str]:
    deviations = scores.deviations()
    cells = {
        name: f"{rate:.1%}" + (f" ± {deviations[name]:.1%}" if deviations else "")
        for name, rate in scores.rates().items()
    }
    return [label, cells["mAP"], *(cells[f"rank{k}"] for k in scores.ranks), cells["mINP"], str(scores.num_queries)]
