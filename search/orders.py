"""Kendall's tau-b between orders, with intervals of a bootstrap over what is ordered.

Source: Kendall, "The treatment of ties in ranking problems" (1945), on tau-b; Efron, Tibshirani, "An Introduction to
the Bootstrap" (1993), chapter 13.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, zip_longest

import numpy as np

NUM_DRAWS = 2000  # of the bootstrap
MIN_REPEATED = 10  # architectures with several trainings, for seeds to be compared
LEVEL = 0.05


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def compare_seeds(scores: Sequence[np.ndarray], others: Sequence[np.ndarray] | None = None) -> Interval | None:
    """Estimates Kendall's tau-b between two trainings of each architecture, over all pairs.

    Args:
        scores: Of each architecture, two or more trainings, fold and seed taken out.
        others: Other scores of the same trainings, such as at the end; one training's scores are then compared with
            these of another.

    Returns:
        None for fewer than ``MIN_REPEATED`` architectures: an interval of a few does not hold what it promises.
    """
    pairs = pair_seeds(scores, others)
    return estimate_tau(pairs) if pairs else None


def pair_seeds(scores: Sequence[np.ndarray], others: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
    """Compares the orders by two trainings of each architecture, of all pairs; none for too few."""
    if len(scores) < MIN_REPEATED:
        return []
    columns, other_columns = (np.array(list(zip_longest(*s, fillvalue=np.nan))) for s in (scores, others or scores))
    pairs = combinations(range(len(columns)), 2) if others is None else permutations(range(len(columns)), 2)
    return [compare_orders(columns[i], other_columns[j]) for i, j in pairs]


def compare_orders(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compares each two of n items: (3, n, n), agreement 1, 0 or −1, and whether either order tells them apart.

    NaN: an item that is missing, compared with none.
    """
    signs = np.sign(one[:, None] - one), np.sign(other[:, None] - other)
    both = np.isfinite(signs[0] + signs[1])
    return np.where(both, np.stack([signs[0] * signs[1], abs(signs[0]), abs(signs[1])]), 0)


def estimate_tau(comparisons: Sequence[np.ndarray]) -> Interval:
    """Estimates Kendall's tau-b with its interval from comparisons of one or more pairs of orders of the same items."""
    return _summarize(_draw_taus(comparisons))


def estimate_tau_difference(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> Interval:
    """Estimates by how much one tau-b is above another, over the same items drawn, each as in ``estimate_tau``."""
    return _summarize(_draw_taus(one) - _draw_taus(other))


def _draw_taus(comparisons: Sequence[np.ndarray]) -> np.ndarray:
    """Returns tau-b of all items, then of each bootstrap draw; NaN where an order has them all equal."""
    total = np.sum(comparisons, axis=0)
    num_items = total.shape[1]
    weights = np.random.default_rng(0).multinomial(num_items, np.full(num_items, 1 / num_items), NUM_DRAWS)
    weights = np.vstack([np.ones(num_items), weights])
    sums = np.einsum("bi,kij,bj->kb", weights, total, weights, optimize=True)
    told = sums[1] * sums[2] > 0
    return np.divide(sums[0], np.sqrt(sums[1] * sums[2]), where=told, out=np.full(len(weights), np.nan))


def _summarize(draws: np.ndarray) -> Interval:
    if np.isnan(draws[0]):
        return Interval(float("nan"), float("nan"), float("nan"))
    low, high = np.nanquantile(draws[1:], [LEVEL / 2, 1 - LEVEL / 2])
    return Interval(float(draws[0]), float(low), float(high))
