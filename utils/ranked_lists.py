"""Ranked lists of single queries, taken from a stream of distances as it passes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from utils.histogram import DistanceHistogram
from utils.match_ranks import MatchRules, find_ranks


@dataclass(frozen=True)
class Neighbour:
    """A gallery image in a query's ranked list.

    Attributes:
        rank: From 1, among the images that count for the query.
        path: Image file.
        person: What the data set's files call the person.
        camera: The same of the camera.
        distance: To the query, in the ranking's measure.
        is_match: Whether it shows the query's person.
    """

    rank: int
    path: str
    person: str
    camera: str
    distance: float
    is_match: bool


@dataclass(frozen=True)
class RankedList:
    """A query and its nearest gallery images.

    Attributes:
        path: The query's image file.
        person: What the data set's files call the person.
        camera: The same of the camera.
        average_precision: In [0, 1].
        num_matches: Right matches in the gallery.
        neighbours: The nearest, in order; junk images and those of the query's identity and camera are left out.
        first_match: The nearest right match, in ``neighbours`` or after them.
    """

    path: str
    person: str
    camera: str
    average_precision: float
    num_matches: int
    neighbours: tuple[Neighbour, ...]
    first_match: Neighbour


class TopLists:
    """Every query's nearest images as gallery indices: (Q, topk) numbers for any size of the gallery.

    All queries are kept because which of them are wanted is known only when all are scored.

    Attributes:
        indices: (Q, topk) int64, nearest first; −1 where fewer images count, and for queries without a match.
        distances: (Q, topk) float64, NaN there.
        first_match: (Q,) int64, the nearest right match, −1 for queries without one.
        first_rank: (Q,) int64, its rank from 1; 0 for queries without one.
        first_distance: (Q,) float64.
        num_matches: (Q,) int64, right matches.
    """

    def __init__(self, num_queries: int, topk: int) -> None:
        self.indices = np.full((num_queries, topk), -1, dtype=np.int64)
        self.distances = np.full((num_queries, topk), np.nan)
        self.first_match = np.full(num_queries, -1, dtype=np.int64)
        self.first_rank = np.zeros(num_queries, dtype=np.int64)
        self.first_distance = np.full(num_queries, np.nan)
        self.num_matches = np.zeros(num_queries, dtype=np.int64)

    def add(self, query: int, row: np.ndarray, matches: np.ndarray) -> None:
        """Takes what is kept of one query.

        Args:
            query: Its index.
            row: (G,) its distances, infinite for images that do not count.
            matches: Gallery indices of its right matches, ascending, at least one.
        """
        nearest = find_nearest(row, self.indices.shape[1])
        self.indices[query, : len(nearest)] = nearest
        self.distances[query, : len(nearest)] = row[nearest]
        first = matches[np.argmin(row[matches])]
        self.first_match[query] = first
        self.first_rank[query] = find_ranks(row, np.array([first]))[0]
        self.first_distance[query] = row[first]
        self.num_matches[query] = len(matches)


def find_nearest(row: np.ndarray, count: int) -> np.ndarray:
    """Returns the indices of the ``count`` smallest finite values of ``row`` (G,), ascending; ties in row order."""
    largest = np.partition(row, count - 1)[count - 1] if count < len(row) else np.inf
    images = np.flatnonzero(row <= largest)
    images = images[np.isfinite(row[images])]
    return images[np.argsort(row[images], kind="stable")][:count]


def watch_blocks(
    blocks: Iterable[Tensor], rules: MatchRules, lists: TopLists, histogram: DistanceHistogram
) -> Iterator[Tensor]:
    """Passes a distance matrix's blocks of rows on, unchanged but on the CPU, and keeps what pictures need of them.

    Args:
        blocks: (rows, G) each, in the queries' order.
        rules: Which images count for which query.
        lists: Filled with each query's nearest images.
        histogram: Filled with the distances of right matches and of other identities.
    """
    query = 0
    for block in blocks:
        on_cpu = block.detach().cpu()
        for distances in on_cpu.numpy():
            matches, left_out = rules.split_identity(query)
            if len(matches):
                ignored = np.union1d(left_out, rules.junk)
                histogram.add(distances, matches, ignored)
                row = distances.copy()
                row[ignored] = np.inf
                lists.add(query, row, matches)
            query += 1
        yield on_cpu


def choose_queries(average_precision: np.ndarray, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Chooses queries to look at.

    Args:
        average_precision: (Q,), NaN for queries that were left out; these are never chosen.
        count: Queries of each kind; fewer where there are fewer.
        seed: Of the random ones and of the order of equal scores, which would otherwise all be the first identity's.

    Returns:
        Query indices: ``best`` from the highest score down, ``worst`` from the lowest up, ``random`` ascending.
    """
    valid = np.flatnonzero(~np.isnan(average_precision))
    shuffled = np.random.default_rng(seed).permutation(valid)
    ascending = shuffled[np.argsort(average_precision[shuffled], kind="stable")]
    return {
        "best": ascending[::-1][:count].copy(),
        "worst": ascending[:count].copy(),
        "random": np.sort(shuffled[:count]),
    }
