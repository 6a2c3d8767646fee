"""The decision by a ranking of all sub-networks: what each candidate is worth in each block, and how sure that is.

Every sub-network was scored on the same queries, so chance is in who was held out: people are drawn anew, with all
their queries, again and again (a bootstrap), and each time all sub-networks are compared on those drawn. That says how
far the order would change with other people; it says nothing of how well a shared network's weights stand for those of
networks trained alone. Draws of few people spread too little; they are stretched as Student's distribution is wider
than the normal one.

Source: Efron, Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 6; Hsu, "Multiple Comparisons" (1996).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from genotype import CANDIDATE_NAMES, NUM_BLOCKS, NUM_CANDIDATES, Genotype, digits_of, number_of
from search.answer import Answer, BlockAnswer
from search.places import CONTRASTS, NUM_PLACES, Place
from search.ranking import Ranking

LEVEL = 0.05  # share of searches that decide something wrong where nothing is to be decided
PAIR_LEVEL = LEVEL / (NUM_BLOCKS * (NUM_CANDIDATES - 1)) / 2  # of one comparison; / 2: either of a pair could be ahead
PLACE_LEVEL = LEVEL / NUM_PLACES / 2
NUM_DRAWS = 10_000
NUM_DRAWS_OF_ALL = 2_000  # of those, for what compares single sub-networks
SHARED_WEIGHTS = (
    "Intervals say how the order would change with other held-out people. How well shared weights stand for networks "
    "trained alone they do not say: train the found network beside the next best (python -m tools.compare_genotypes)."
)


@dataclass(frozen=True)
class BlockMarginals:
    """One block's candidates, each by the mean over the 1,024 sub-networks that have it.

    Attributes:
        values: By how much that mean is above the mean of all 4,096, (4,), in mAP.
        low: Lower ends of the values' 95 % intervals.
        high: Upper ends.
        best: The candidate with the highest value, 0–3.
        share_beaten: In what share of draws the best beats each candidate, (4,); 1 for itself.
        is_decided: Whether it beats each of the others in all but a share of ``PAIR_LEVEL``: at ``LEVEL`` over all
            blocks' comparisons together.
    """

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    best: int
    share_beaten: np.ndarray
    is_decided: bool


@dataclass(frozen=True)
class RankingDecision:
    """What a ranking says.

    Attributes:
        digits: The answer: ``composed`` if that is not significantly worse than the best of all, else the best.
        blocks: The six blocks.
        places: The twelve places.
        composed: The genotype of each block's best candidate.
        best: The genotype with the highest score.
        not_worse: Numbers of the genotypes that are not significantly worse than the best, ascending.
        num_people: Whom the queries show.
    """

    digits: str
    blocks: tuple[BlockMarginals, ...]
    places: tuple[Place, ...]
    composed: str
    best: str
    not_worse: np.ndarray
    num_people: int

    @property
    def is_composed(self) -> bool:
        """Whether the answer follows from the blocks one by one; if not, blocks interact."""
        return self.digits == self.composed


def decide_by_ranking(average_precision: np.ndarray, query_pids: np.ndarray, seed: int = 0) -> RankingDecision:
    """Decides block by block, and makes sure that what comes of it is one of the good sub-networks.

    A block by block answer can miss where blocks interact. So where the composed genotype is significantly worse than
    the best of the 4,096, the best is the answer.

    Args:
        average_precision: Of each sub-network and query, (4096, Q), without NaN.
        query_pids: (Q,): whom each query shows.
        seed: Of the draws of people.
    """
    sums, weights = _draw_people(average_precision, query_pids, seed)
    scores = average_precision.mean(axis=1, dtype=np.float64)
    means = [_average_by_candidate(scores[:, None], block)[:, 0] for block in range(NUM_BLOCKS)]
    drawn = [weights @ _average_by_candidate(sums, block).T for block in range(NUM_BLOCKS)]
    blocks = tuple(_judge_block(*both, sums.shape[1]) for both in zip(means, drawn, strict=True))
    places = tuple(place for both in zip(means, drawn, strict=True) for place in _judge_places(*both, sums.shape[1]))
    not_worse = _find_not_worse(scores, weights[:NUM_DRAWS_OF_ALL] @ sums.T, sums.shape[1])
    composed = "".join(str(block.best) for block in blocks)
    best = digits_of(int(scores.argmax()))
    is_good = number_of(composed) in not_worse
    return RankingDecision(
        digits=composed if is_good else best,
        blocks=blocks,
        places=places,
        composed=composed,
        best=best,
        not_worse=not_worse,
        num_people=sums.shape[1],
    )


def _draw_people(average_precision: np.ndarray, query_pids: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws people with replacement.

    Returns:
        Each sub-network's sum over the queries of each person, (4096, P); and weights of the people in each draw,
        (``NUM_DRAWS``, P), by which those sums give mean average precisions.
    """
    people, index = np.unique(query_pids, return_inverse=True)
    membership = np.zeros((len(query_pids), len(people)))
    membership[np.arange(len(query_pids)), index] = 1
    counts = np.random.default_rng(seed).multinomial(len(people), np.full(len(people), 1 / len(people)), NUM_DRAWS)
    return average_precision @ membership, counts / (counts @ membership.sum(axis=0))[:, None]


def _average_by_candidate(values: np.ndarray, block: int) -> np.ndarray:
    """Averages the rows of all sub-networks, (4096, n), over those that have each candidate of a block: (4, n)."""
    grid = values.reshape(*[NUM_CANDIDATES] * NUM_BLOCKS, -1)
    return grid.mean(axis=tuple(axis for axis in range(NUM_BLOCKS) if axis != block))


def _judge_block(means: np.ndarray, drawn: np.ndarray, num_people: int) -> BlockMarginals:
    """Judges candidates by their means (4,) and those of each draw of so many people (draws, 4)."""
    best, values = int(means.argmax()), means - means.mean()
    deviations = drawn - drawn.mean(axis=1, keepdims=True) - values
    stretched = values + deviations * _compute_stretch(num_people, PAIR_LEVEL)
    share_beaten = (stretched[:, [best]] > stretched).mean(axis=0)
    share_beaten[best] = 1
    close = [k for k in range(NUM_CANDIDATES) if share_beaten[k] < 1 - PAIR_LEVEL or k == best]
    low, high = _find_ends(values, deviations, num_people)
    return BlockMarginals(
        values=values,
        low=low,
        high=high,
        best=best,
        share_beaten=share_beaten,
        is_decided=len(close) == 1,
    )


def _judge_places(means: np.ndarray, drawn: np.ndarray, num_people: int) -> list[Place]:
    """Judges a block's two places by its candidates' means (4,) and those of each draw of so many people (draws, 4)."""
    values, deviations = CONTRASTS @ means, (drawn - means) @ CONTRASTS.T
    stretched = values + deviations * _compute_stretch(num_people, PLACE_LEVEL)
    is_decided = (np.sign(stretched) == np.sign(values)).mean(axis=0) >= 1 - PLACE_LEVEL
    low, high = _find_ends(values, deviations, num_people)
    return list(map(Place, values.tolist(), low.tolist(), high.tolist(), is_decided.tolist()))


def _find_ends(values: np.ndarray, deviations: np.ndarray, num_people: int) -> np.ndarray:
    """Finds the ends of the values' 95 % intervals, (2, n), by how draws of so many people deviate (draws, n)."""
    reach = np.quantile(deviations, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    return values + _compute_stretch(num_people, LEVEL / 2) * reach


def _find_not_worse(scores: np.ndarray, drawn: np.ndarray, num_people: int) -> np.ndarray:
    """Finds the sub-networks whose lag behind the best is within what 4,095 comparisons may show by chance.

    Args:
        scores: (4096,).
        drawn: The same of each draw, (draws, 4096).
        num_people: In a draw.
    """
    best = int(scores.argmax())
    lags, drawn_lags = scores[best] - scores, drawn[:, [best]] - drawn
    errors = drawn_lags.std(axis=0)
    differs = errors > 0
    largest = ((drawn_lags - lags)[:, differs] / errors[differs]).max(axis=1, initial=0)
    limit = np.quantile(largest, 1 - LEVEL) * _compute_stretch(num_people, LEVEL)
    return np.flatnonzero(lags <= limit * errors)


def _compute_stretch(num_people: int, level: float) -> float:
    """Computes by how much the means of so many people spread wider than their draws, where a share ``level`` ends."""
    widening = stdtrit(num_people - 1, 1 - level) / ndtri(1 - level)  # quantiles of t and of the normal distribution
    return float(widening * (num_people / (num_people - 1)) ** 0.5)


def answer_by_ranking(ranking: Ranking, costs: Mapping[str, float]) -> Answer:
    """Makes the answer of a one-shot search by its ranking of all sub-networks; see ``Answer`` for the costs."""
    decision = decide_by_ranking(ranking.average_precision, ranking.query_pids)
    scores, not_worse = ranking.scores, decision.not_worse
    blocks = []
    for chosen, block in zip(decision.digits, decision.blocks, strict=True):
        candidate = CANDIDATE_NAMES[int(chosen)]
        is_decided = block.is_decided and block.best == int(chosen)
        reason = _explain(block, int(chosen))
        intervals = (row.tolist() for row in (block.values, block.low, block.high))
        blocks.append(BlockAnswer(candidate, is_decided, reason, *intervals))
    return Answer(
        method="uniform",
        genotype=Genotype.from_digits(decision.digits),
        blocks=blocks,
        places=decision.places,
        value_name="held-out mAP above the mean of all sub-networks",
        scores=scores,
        score_name="mAP of the sub-network on held-out images, with the shared weights",
        not_worse=[digits_of(int(i)) for i in not_worse[np.argsort(-scores[not_worse], kind="stable")]],
        costs=costs,
        caution=[SHARED_WEIGHTS],
        details={"best": decision.best, "score_of_best": float(scores.max()), "people": decision.num_people},
        arrays={"ap": ranking.average_precision, "query_pids": ranking.query_pids},
    )


def _explain(block: BlockMarginals, chosen: int) -> str:
    """Says why a block has its candidate."""
    others = [k for k in range(NUM_CANDIDATES) if k != block.best]
    second, best = max(others, key=lambda k: block.values[k]), CANDIDATE_NAMES[block.best]
    if chosen != block.best:
        return f"as in the best of all networks, since blocks interact; on average it would be {best}"
    reason = f"ahead of {CANDIDATE_NAMES[second]} in {block.share_beaten[second]:.1%} of draws of people"
    ruled_out = [CANDIDATE_NAMES[k] for k in others if block.share_beaten[k] >= 1 - PAIR_LEVEL]
    return f"{reason}; ruled out: {', '.join(ruled_out)}" if ruled_out else reason
