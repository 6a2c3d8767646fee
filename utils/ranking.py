"""How well a ranking finds people: CMC, mAP, mINP, from features, a distance matrix or a stream of its rows.

No row is sorted: every score follows from the ranks of the right matches, and a rank is a count of the images that
are closer. Rules (Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015; mINP from Ye et al.,
"Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2021):

- gallery images of the query's identity *and* camera are left out for this query;
- gallery images with pid −1 (junk) never count; pid 0 (distractors in some data sets) is a pid like any other;
- equal distances rank in the gallery's order;
- a query with no right match is left out of all means.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.distance import TILE_QUERIES, iterate_distances
from utils.errors import UserError
from utils.match_ranks import (
    CameraPairs,
    CameraTable,
    CellScore,
    Labels,
    MatchRules,
    SingleShotDraws,
    compute_average_precision,
    find_ranks,
)


@dataclass(frozen=True)
class RankingResult:
    """Scores of a ranking, in [0, 1].

    Attributes:
        cmc: (max_rank,) float64; ``cmc[k - 1]`` is the share of queries with a right match among their first k images.
            Past the gallery's size it stays at 1.
        mAP: Mean average precision.
        mINP: Mean of (number of right matches) / (rank of the last one).
        average_precision: (Q,) float64, one per query; NaN for queries that were left out.
        num_valid: Queries with a right match; the others are left out of the means.
        camera_pairs: The table of camera pairs, if it was asked for.
    """

    cmc: np.ndarray
    mAP: float
    mINP: float
    average_precision: np.ndarray
    num_valid: int
    camera_pairs: CameraPairs | None = None


class QueryScores(NamedTuple):
    """Scores of some queries; all lists but the last have one entry for each query that has a right match, in order.

    Attributes:
        queries: Their numbers.
        average_precision: In [0, 1].
        inverse_penalty: (number of right matches) / (rank of the last one).
        first_ranks: Rank of the first right match, from 1, in each of CUHK03's draws or alone: (10,) or (1,).
        cells: What they add to the table of camera pairs, if it was asked for.
    """

    queries: list[int]
    average_precision: list[float]
    inverse_penalty: list[float]
    first_ranks: list[np.ndarray]
    cells: list[CellScore]


def evaluate_ranking(
    query_features: Tensor,
    gallery_features: Tensor,
    query_pids: Labels,
    gallery_pids: Labels,
    query_camids: Labels,
    gallery_camids: Labels,
    *,
    metric: str = "euclidean",
    max_rank: int = 50,
    single_gallery_shot: bool = False,
    seed: int = 0,
    camera_pairs: bool = False,
    chunk_size: int = TILE_QUERIES,
) -> RankingResult:
    """Ranks the gallery for every query by distance of features and scores the rankings.

    Args:
        query_features: (Q, D), on the CPU or a GPU; distances are computed there in float32, ranks on the CPU.
        gallery_features: (G, D), on the same device.
        query_pids: (Q,) identities.
        gallery_pids: (G,) identities; −1 is junk.
        query_camids: (Q,) cameras.
        gallery_camids: (G,) cameras.
        metric: ``"euclidean"`` (squared) or ``"cosine"`` (1 − cosine).
        max_rank: Length of the CMC curve, at least 1.
        single_gallery_shot: CUHK03's old protocol for the CMC: one random gallery image per identity, mean over 10
            draws. mAP and mINP stay those of the whole gallery.
        seed: Of those draws.
        camera_pairs: Fill ``RankingResult.camera_pairs`` too, from the same distances.
        chunk_size: Queries whose distances are held at once; decides the memory, never the result.

    Raises:
        UserError: an unknown metric, an empty set, features with NaN or infinite values or of different dimensions,
            labels of another length than the features, or no query with a right match.
        ValueError: ``max_rank`` or ``chunk_size`` is below 1.
    """
    rules = MatchRules(query_pids, gallery_pids, query_camids, gallery_camids)
    rules.check_sizes(len(query_features), len(gallery_features))
    blocks = iterate_distances(query_features, gallery_features, metric, chunk_size)
    return _evaluate(blocks, rules, max_rank, single_gallery_shot, seed, camera_pairs)


def evaluate_distmat(
    distmat: Tensor | np.ndarray,
    query_pids: Labels,
    gallery_pids: Labels,
    query_camids: Labels,
    gallery_camids: Labels,
    *,
    max_rank: int = 50,
    single_gallery_shot: bool = False,
    seed: int = 0,
    camera_pairs: bool = False,
) -> RankingResult:
    """Scores a distance matrix, (Q, G) of any type of number, compared as it is; otherwise as ``evaluate_ranking``.

    Raises:
        UserError: also for NaN or infinite distances.
    """
    distances = torch.as_tensor(distmat)
    if not distances.is_floating_point():
        distances = distances.double()
    elif distances.dtype == torch.bfloat16:  # which NumPy lacks
        distances = distances.float()
    if distances.ndim != 2:
        raise UserError(f"the distance matrix has shape {tuple(distances.shape)}; expected (queries, gallery images)")
    rules = MatchRules(query_pids, gallery_pids, query_camids, gallery_camids)
    rules.check_sizes(*distances.shape)
    if not all(torch.isfinite(block).all() for block in distances.split(TILE_QUERIES)):
        raise UserError("the distance matrix holds NaN or infinite values; check the features it was computed from")
    return _evaluate(distances.split(TILE_QUERIES), rules, max_rank, single_gallery_shot, seed, camera_pairs)


def evaluate_blocks(
    blocks: Iterable[Tensor],
    query_pids: Labels,
    gallery_pids: Labels,
    query_camids: Labels,
    gallery_camids: Labels,
    *,
    max_rank: int = 50,
    single_gallery_shot: bool = False,
    seed: int = 0,
    camera_pairs: bool = False,
) -> RankingResult:
    """Scores a distance matrix that comes in blocks of rows, (rows, G) each, in the queries' order.

    For matrices that are too big to hold, such as those of ``utils.rerank.iterate_reranked``; otherwise as
    ``evaluate_distmat``. Values are finite. A block is read before the next one is asked for, and not changed.
    """
    rules = MatchRules(query_pids, gallery_pids, query_camids, gallery_camids)
    return _evaluate(blocks, rules, max_rank, single_gallery_shot, seed, camera_pairs)


def score_queries(
    blocks: Iterable[Tensor],
    query_pids: Labels,
    gallery_pids: Labels,
    query_camids: Labels,
    gallery_camids: Labels,
    *,
    rows: range | None = None,
    single_gallery_shot: bool = False,
    seed: int = 0,
    camera_pairs: bool = False,
) -> QueryScores:
    """Scores some of the queries, for several processes to share the work; otherwise as ``evaluate_blocks``.

    Args:
        blocks: The distances of ``rows`` alone.
        query_pids: (Q,) of all queries; the other labels too are those of all images.
        gallery_pids: (G,).
        query_camids: (Q,).
        gallery_camids: (G,).
        rows: The queries to score, in their order; None for all.
        single_gallery_shot: As there.
        seed: As there.
        camera_pairs: As there.
    """
    rules = MatchRules(query_pids, gallery_pids, query_camids, gallery_camids)
    rows = range(len(rules.query_pids)) if rows is None else rows
    return _score(blocks, rules, rows, single_gallery_shot, seed, camera_pairs)


def summarise_scores(
    parts: Sequence[QueryScores],
    query_pids: Labels,
    gallery_pids: Labels,
    query_camids: Labels,
    gallery_camids: Labels,
    *,
    max_rank: int = 50,
    camera_pairs: bool = False,
) -> RankingResult:
    """Puts the scores of all queries together: parts in their order, each as ``score_queries`` returns it.

    The result is that of ``evaluate_blocks``, bit for bit, however the queries were divided.
    """
    return _summarise(parts, MatchRules(query_pids, gallery_pids, query_camids, gallery_camids), max_rank, camera_pairs)


def _evaluate(
    blocks: Iterable[Tensor],
    rules: MatchRules,
    max_rank: int,
    single_gallery_shot: bool,
    seed: int,
    camera_pairs: bool,
) -> RankingResult:
    if max_rank < 1:
        raise ValueError(f"max_rank is {max_rank}; it must be at least 1")
    scores = _score(blocks, rules, range(len(rules.query_pids)), single_gallery_shot, seed, camera_pairs)
    return _summarise([scores], rules, max_rank, camera_pairs)


def _score(
    blocks: Iterable[Tensor],
    rules: MatchRules,
    rows: range,
    single_gallery_shot: bool,
    seed: int,
    camera_pairs: bool,
) -> QueryScores:
    rules.check_matches()
    queries: list[int] = []
    average_precision, inverse_penalty = list[float](), list[float]()
    first_ranks: list[np.ndarray] = []
    cells: list[CellScore] = []
    draws = SingleShotDraws(rules, seed) if single_gallery_shot else None
    table = CameraTable(rules) if camera_pairs else None
    for query, row in _iterate_rows(blocks, rules, rows):
        matches, left_out = rules.split_identity(query)
        if not len(matches):
            continue
        row[left_out] = np.inf
        row[rules.junk] = np.inf
        ranks = find_ranks(row, matches)
        queries.append(query)
        average_precision.append(compute_average_precision(ranks))
        inverse_penalty.append(len(ranks) / ranks[-1])
        first_ranks.append(draws.first_ranks(row, matches) if draws else ranks[:1])
        if table:
            cells += table.score(row, query, matches)
    return QueryScores(queries, average_precision, inverse_penalty, first_ranks, cells)


def _summarise(parts: Sequence[QueryScores], rules: MatchRules, max_rank: int, camera_pairs: bool) -> RankingResult:
    average_precision = np.full(len(rules.query_pids), np.nan)
    inverse_penalty = np.full(len(rules.query_pids), np.nan)
    for part in parts:
        average_precision[part.queries] = part.average_precision
        inverse_penalty[part.queries] = part.inverse_penalty
    first_ranks = [ranks for part in parts for ranks in part.first_ranks]
    first = np.concatenate(first_ranks)
    cells = (cell for part in parts for cell in part.cells)
    return RankingResult(
        cmc=np.bincount(np.minimum(first, max_rank + 1), minlength=max_rank + 2)[1:-1].cumsum() / len(first),
        mAP=float(np.nanmean(average_precision)),
        mINP=float(np.nanmean(inverse_penalty)),
        average_precision=average_precision,
        num_valid=len(first_ranks),
        camera_pairs=CameraTable(rules).average(cells) if camera_pairs else None,
    )


def _iterate_rows(blocks: Iterable[Tensor], rules: MatchRules, rows: range) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each query's index and a copy of its distances that may be changed, (G,)."""
    num_gallery = len(rules.gallery_pids)
    query = rows.start
    for block in blocks:
        distances = block.detach().cpu().numpy()
        if distances.shape[1] != num_gallery or query + len(distances) > rows.stop:
            raise ValueError(f"a block of distances has shape {distances.shape} at row {query} of {rows.stop}")
        row = np.empty(num_gallery, distances.dtype)
        for distance in distances:
            np.copyto(row, distance)
            yield query, row
            query += 1
    if query != rows.stop:
        raise ValueError(f"{query} rows of distances for {rows.stop} queries")
