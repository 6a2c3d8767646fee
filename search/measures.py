"""What an order of architectures is worth beside their scores, and what a random and the true order would be worth.

Of a random order the means are exact; the true one is simulated, since noise of the trainings keeps even that from
agreeing with them.
"""

from dataclasses import astuple, dataclass
from math import comb
from typing import NamedTuple

import numpy as np
from scipy import stats

from search.orders import LEVEL
from search.trainings import Repeats

NUM_SIMULATED = 500  # perfect rankings
NUM_RANDOM = 4000
FIRST = 10  # how many of a ranking's first are looked at


@dataclass(frozen=True)
class Measures:
    """What a ranking is worth among the rows.

    Attributes:
        tau: Kendall's tau-b with the rows' scores.
        top_tau: The same within the tenth of the architectures that scored best; NaN where that is below three, or the
            ranking has them all equal.
        regret: By how much the row that it ranks first is below the best row.
        regret_of_ten: By how much the best of its first ten is.
        percentile: Share of the other rows that its first row is better than, ties counted by half.
    """

    tau: float
    top_tau: float
    regret: float
    regret_of_ten: float
    percentile: float


class Expected(NamedTuple):
    """Measures that are expected of an order, and the ends of their ranges, measure by measure."""

    mean: Measures
    low: Measures
    high: Measures


def measure(given: np.ndarray, truth: np.ndarray) -> Measures:
    """Measures scores that a search gives architectures against what they scored, (n,) each.

    Where several are first together, or share the tenth place, the mean over their orders is taken.
    """
    best, top = truth.max(), _find_top(truth)
    first = given == given.max()
    return Measures(
        tau=float(stats.kendalltau(given, truth).statistic),
        top_tau=float(stats.kendalltau(given[top], truth[top]).statistic) if len(top) > 2 else float("nan"),
        regret=max(0.0, float(best - truth[first].mean())),  # rounding may go below
        regret_of_ten=max(0.0, float(best - _expect_best_of_first(given, truth))),
        percentile=float(compute_percentiles(truth)[first].mean()),
    )


def expect_random(truth: np.ndarray) -> Measures:
    """Returns the expected measures of a random order."""
    best = truth.max()
    return Measures(0.0, 0.0, float(best - truth.mean()), float(best - expect_best(truth, FIRST)), 0.5)


def spread_random(truth: np.ndarray) -> tuple[Measures, Measures]:
    """Finds between which measures at least 95 % of random orders lie, simulated but for those of the first."""
    count = len(truth)
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(count), (NUM_RANDOM, 1)), axis=1)
    of_ten = truth[np.argsort(-orders, axis=1)[:, :FIRST]].max(axis=1)
    top = _find_top(truth)
    taus, top_taus = _correlate(orders, truth), _correlate(orders[:, top], truth[top])
    # of the first, each architecture has the same chance
    found = [taus, top_taus, truth.max() - truth, truth.max() - of_ten, compute_percentiles(truth)]
    low, high = (
        [sign * float(np.quantile(sign * v, LEVEL / 2, method="inverted_cdf")) for v in found] for sign in (1, -1)
    )
    return Measures(*low), Measures(*high)


def compute_percentiles(truth: np.ndarray) -> np.ndarray:
    """Computes of what share of the others each value is the better one, ties counted by half, (n,)."""
    below, equal = (truth[:, None] > truth).sum(axis=1), (truth[:, None] == truth).sum(axis=1)
    return (below + (equal - 1) / 2) / (len(truth) - 1)


def _find_top(truth: np.ndarray) -> np.ndarray:
    """Finds the tenth of the architectures that scored best."""
    return np.argsort(-truth, kind="stable")[: -(-len(truth) // 10)]


def _correlate(orders: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Computes tau-b of many orders without ties, (draws, n), with one that may have some, (n,); NaN below three."""
    if (count := len(truth)) < 3:
        return np.full(len(orders), np.nan)
    signs = np.sign(truth[:, None] - truth)
    agreement = np.array([np.vdot(np.sign(order[:, None] - order), signs) for order in orders])
    return agreement / np.sqrt(count * (count - 1) * np.abs(signs).sum())


def expect_best(values: np.ndarray, size: int) -> float:
    """Returns the expected largest of ``size`` values drawn without replacement."""
    ways = np.array([comb(i, size - 1) for i in range(len(values))], dtype=float)
    return float(np.sort(values) @ ways / comb(len(values), size))


def expect_perfect(truth: np.ndarray, noise: np.ndarray) -> Measures:
    """Simulates the measures of the true order against rows with their noise.

    Args:
        truth: Mean scores of the architectures, (n,), noise included; drawn together until that is out of them.
        noise: Standard deviations of that noise, (n,).
    """
    share = 1 - np.mean(noise**2) / truth.var(ddof=1)
    if share <= 0:
        return expect_random(truth)  # nothing but noise
    without = truth.mean() + np.sqrt(share) * (truth - truth.mean())
    generator = np.random.default_rng(0)
    draws = [measure(without, without + noise * generator.standard_normal(len(truth))) for _ in range(NUM_SIMULATED)]
    return Measures(*np.mean([astuple(draw) for draw in draws], axis=0).tolist())


def bound_perfect(truth: np.ndarray, counts: np.ndarray, repeats: Repeats) -> Expected:
    """Simulates the measures of the true order with the estimated noise, and with both ends of its 95 % interval.

    The noise is taken as normal and the same for all architectures.

    Args:
        truth: Mean scores of the architectures, (n,), noise included.
        counts: Of each architecture's trainings, (n,).
        repeats: From which the noise is known; there are some.
    """
    ends = repeats.df / stats.chi2.ppf([LEVEL / 2, 1 - LEVEL / 2], repeats.df)
    found = [expect_perfect(truth, np.sqrt(repeats.noise * factor / counts)) for factor in (1, *ends)]
    values = np.array([astuple(measures) for measures in found])
    return Expected(found[0], Measures(*values.min(axis=0).tolist()), Measures(*values.max(axis=0).tolist()))


def _expect_best_of_first(given: np.ndarray, truth: np.ndarray) -> float:
    limit = np.sort(given)[-FIRST]
    sure, tied = truth[given > limit], truth[given == limit]
    floor = sure.max() if len(sure) else -np.inf
    return expect_best(np.maximum(tied, floor), FIRST - len(sure))
