"""Pictures to look at after an evaluation: ranked lists, CMC curves, distances, activation maps.

What they show is collected while the evaluation runs, in little memory (neither the distance matrix nor the features
are kept), and drawn when its scores are safely on the disk.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from engine.evaluator import Batches, EvaluationTarget, LabelArrays, Prepare
from utils.files import make_folder
from utils.histogram import DistanceHistogram
from utils.label_names import LabelNames
from utils.match_ranks import MatchRules
from utils.ranked_lists import TopLists, watch_blocks
from utils.ranking import RankingResult

logger = logging.getLogger(__name__)

MAPS_OF_A_TARGET = 24  # query images


@dataclass
class WatchedRanking:
    """What is kept of one target's ranking; ``result`` comes last."""

    target: EvaluationTarget
    distance: str
    rules: MatchRules
    lists: TopLists
    histogram: DistanceHistogram
    result: RankingResult | None = None


class Pictures:
    """Watches an evaluation's rankings, takes activation maps, and draws both."""

    def __init__(self, topk: int = 0, shown: Mapping[str, tuple[Batches, LabelNames]] | None = None) -> None:
        """Starts with nothing collected.

        Args:
            topk: Length of the ranked lists; 0 for no pictures of rankings.
            shown: By target, the images whose activation maps are wanted, and the names of their labels.
        """
        self.topk = topk
        self.shown = dict(shown or {})
        self.rankings: dict[str, WatchedRanking] = {}
        self._network: tuple[nn.Module, Prepare] | None = None

    def watch(
        self, name: str, target: EvaluationTarget, blocks: Iterable[Tensor], labels: LabelArrays, distance: str
    ) -> Iterable[Tensor]:
        """Passes the blocks of a target's distance matrix on and keeps what the pictures show."""
        if not self.topk:
            return blocks
        rules = MatchRules(*labels)
        watched = WatchedRanking(
            target, distance, rules, TopLists(len(rules.query_pids), self.topk), DistanceHistogram()
        )
        self.rankings[name] = watched
        return watch_blocks(blocks, rules, watched.lists, watched.histogram)

    def finish(self, name: str, result: RankingResult) -> None:
        """Takes the scores of a target whose blocks have all passed."""
        if self.topk:
            self.rankings[name].result = result

    def keep_network(self, model: nn.Module, prepare: Prepare) -> None:
        """Keeps the network that was scored, without wrappers; its last feature map, of ``conv5``, is shown."""
        self._network = model, prepare

    def write(self, folder: Path) -> None:
        """Draws all that was collected, and the activation maps of the network that was scored.

        Raises:
            UserError: the folder cannot be written or an image not read.
        """
        # matplotlib takes a moment to load, which a run without pictures is spared
        from engine.picture_files import write_cmc, write_maps, write_ranking

        for name, watched in self.rankings.items():
            write_ranking(name, watched, folder)
        if self.rankings:
            write_cmc({name: w.result for name, w in self.rankings.items() if w.result is not None}, folder)
        if self._network:
            model, prepare = self._network
            for name, (batches, names) in self.shown.items():
                write_maps(name, model, prepare, batches, names, make_folder(folder / f"visactmap_{name}"))
        drawn = [f"visrank_{name}" for name in self.rankings] + [f"visactmap_{name}" for name in self.shown]
        logger.info("pictures are in %s", ", ".join(str(folder / part) for part in drawn))


def choose_shown(num_images: int, seed: int = 0) -> list[int]:
    """Chooses the query images whose activation maps are drawn: at random, the same in every run; ascending."""
    chosen = np.random.default_rng(seed).permutation(num_images)[:MAPS_OF_A_TARGET]
    return sorted(chosen.tolist())
