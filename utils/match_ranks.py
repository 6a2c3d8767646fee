"""The ranks of one query's right matches, and which gallery images count for it.

``utils.ranking`` states the rules and puts these pieces together.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from utils.errors import UserError

if TYPE_CHECKING:  # loading it takes seconds, which who only reads data sets is spared
    from torch import Tensor

JUNK_PID = -1
NUM_SINGLE_SHOT_DRAWS = 10
SORTED_PER_MATCH = 32  # candidates; sorting so many costs less than counting once over 16,000 images

Labels: TypeAlias = "Tensor | np.ndarray | Sequence[int]"


class MatchRules:
    """Which gallery images are right for a query, and which do not count."""

    def __init__(self, query_pids: Labels, gallery_pids: Labels, query_camids: Labels, gallery_camids: Labels) -> None:
        self.query_pids, self.gallery_pids = _as_labels(query_pids), _as_labels(gallery_pids)
        self.query_camids, self.gallery_camids = _as_labels(query_camids), _as_labels(gallery_camids)
        for name, pids, camids in (
            ("query", self.query_pids, self.query_camids),
            ("gallery", self.gallery_pids, self.gallery_camids),
        ):
            if len(pids) != len(camids):
                raise UserError(f"{len(pids)} {name} pids but {len(camids)} {name} camids; give one of each per image")
            if not len(pids):
                raise UserError(f"no {name} images; the test needs at least one")
        self.junk = np.flatnonzero(self.gallery_pids == JUNK_PID)
        self._order = np.argsort(self.gallery_pids, kind="stable")
        ordered = self.gallery_pids[self._order]
        self._first = np.searchsorted(ordered, self.query_pids, side="left")
        self._last = np.searchsorted(ordered, self.query_pids, side="right")

    def check_sizes(self, num_query: int, num_gallery: int) -> None:
        """Raises UserError unless there is one label per image."""
        for name, count, pids in (
            ("query", num_query, self.query_pids),
            ("gallery", num_gallery, self.gallery_pids),
        ):
            if count != len(pids):
                raise UserError(f"{count} {name} images but {len(pids)} {name} pids; give one pid per image")

    def check_matches(self) -> None:
        """Raises UserError if no query has a right match."""
        num_query = len(self.query_pids)
        if not any(len(self.split_identity(query)[0]) for query in range(num_query)):
            raise UserError(
                f"none of the {num_query} queries has a gallery image of its identity under another camera; "
                "check that query and gallery come from the same data set"
            )

    def split_identity(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the gallery indices of the query's right matches and of those its camera leaves out, ascending."""
        same_pid = self._order[self._first[query] : self._last[query]]
        if self.query_pids[query] == JUNK_PID:
            return same_pid[:0], same_pid
        same_camera = self.gallery_camids[same_pid] == self.query_camids[query]
        return same_pid[~same_camera], same_pid[same_camera]


def find_ranks(row: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """Finds the ranks, from 1 and ascending, of the images ``matches`` of one row; ties rank in the row's order.

    Only images as near as the farthest match affect a rank. A few of those are put in order; of many, each match
    counts the closer ones, which is far quicker than sorting them.
    """
    thresholds = row[matches]
    closer = row <= thresholds.max()
    if np.count_nonzero(closer) <= SORTED_PER_MATCH * len(matches):
        images = np.flatnonzero(closer)
        images = images[np.argsort(row[images], kind="stable")]
        is_match = closer
        is_match.fill(False)
        is_match[matches] = True
        return 1 + np.flatnonzero(is_match[images])
    ranks = []
    for match, threshold in zip(matches.tolist(), thresholds, strict=True):
        np.less_equal(row[:match], threshold, out=closer[:match])
        np.less(row[match:], threshold, out=closer[match:])
        ranks.append(1 + np.count_nonzero(closer))
    return np.sort(ranks)


def compute_average_precision(ranks: np.ndarray) -> float:
    """Computes the mean of the precision at each right match; ``ranks`` ascend from 1."""
    return float((np.arange(1, len(ranks) + 1) / ranks).sum() / len(ranks))


class SingleShotDraws:
    """CUHK03's old protocol: the rank of a query's match among one random image per identity.

    A draw orders all gallery images at random, the same for all queries; an identity shows the first of its images
    that the query may see.
    """

    def __init__(self, rules: MatchRules, seed: int) -> None:
        self._pids = rules.gallery_pids
        generator = np.random.default_rng(seed)
        self._priorities = [generator.permutation(len(self._pids)) for _ in range(NUM_SINGLE_SHOT_DRAWS)]
        self._drawn = [self._draw(priority) for priority in self._priorities]

    def _draw(self, priority: np.ndarray) -> np.ndarray:
        """Returns the drawn gallery index of each identity."""
        by_priority = np.argsort(priority)
        return by_priority[np.unique(self._pids[by_priority], return_index=True)[1]]

    def first_ranks(self, row: np.ndarray, matches: np.ndarray) -> np.ndarray:
        """Returns the rank, from 1, of a query's match in every draw, (10,).

        Args:
            row: The query's distances, infinite for images that do not count.
            matches: Gallery indices of its right matches.
        """
        ranks = []
        for priority, drawn in zip(self._priorities, self._drawn, strict=True):
            match = matches[np.argmin(priority[matches])]
            shown = np.union1d(drawn, [match])  # the image drawn of its identity is this one or does not count
            ranks.append(find_ranks(row[shown], np.searchsorted(shown, [match])))
        return np.concatenate(ranks)


@dataclass(frozen=True)
class CameraPairs:
    """Scores of the queries of one camera in the gallery images of one other camera.

    Rows are query cameras, columns gallery cameras; a query counts in a cell if it has a right match there. NaN where
    no query does, as for a camera with itself.

    Attributes:
        query_camids: (A,) int64, ascending.
        gallery_camids: (B,) int64, ascending.
        mAP: (A, B) float64.
        rank1: (A, B) float64.
        num_queries: (A, B) int64.
    """

    query_camids: np.ndarray
    gallery_camids: np.ndarray
    mAP: np.ndarray
    rank1: np.ndarray
    num_queries: np.ndarray

    def as_rows(self) -> list[dict[str, float]]:
        """Lists the pairs that any query counts in."""
        return [
            {
                "query_camid": int(self.query_camids[a]),
                "gallery_camid": int(self.gallery_camids[b]),
                "mAP": float(self.mAP[a, b]),
                "rank1": float(self.rank1[a, b]),
                "num_queries": int(self.num_queries[a, b]),
            }
            for a, b in np.argwhere(self.num_queries)
        ]


class CellScore(NamedTuple):
    """What a query adds to the cell of its camera (row) and a camera of the gallery (column)."""

    row: int
    column: int
    average_precision: float
    is_first: bool


class CameraTable:
    """The cells of (query camera, gallery camera): scores each query in those it counts in, and takes the means."""

    def __init__(self, rules: MatchRules) -> None:
        self._query_camids, self._rows = np.unique(rules.query_camids, return_inverse=True)
        self._gallery_camids, self._columns = np.unique(rules.gallery_camids, return_inverse=True)
        self._images = [np.flatnonzero(self._columns == column) for column in range(len(self._gallery_camids))]

    def score(self, row: np.ndarray, query: int, matches: np.ndarray) -> Iterator[CellScore]:
        """Ranks, for each camera with a right match, its images alone; arguments as in ``first_ranks``."""
        for column in np.unique(self._columns[matches]).tolist():
            images = self._images[column]
            here = np.searchsorted(images, matches[self._columns[matches] == column])
            ranks = find_ranks(row[images], here)
            yield CellScore(int(self._rows[query]), column, compute_average_precision(ranks), bool(ranks[0] == 1))

    def average(self, cells: Iterable[CellScore]) -> CameraPairs:
        """Returns the means of all queries' scores, given in the queries' order."""
        shape = (len(self._query_camids), len(self._gallery_camids))
        precision, rank1, count = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.int64)
        for cell in cells:
            at = cell.row, cell.column
            precision[at] += cell.average_precision
            rank1[at] += cell.is_first
            count[at] += 1
        present = np.where(count, count, np.nan)
        return CameraPairs(self._query_camids, self._gallery_camids, precision / present, rank1 / present, count)


def _as_labels(labels: Labels) -> np.ndarray:
    values = np.asarray(labels.cpu() if hasattr(labels, "cpu") else labels)  # tensors may be on a GPU
    return values.astype(np.int64).reshape(-1)
