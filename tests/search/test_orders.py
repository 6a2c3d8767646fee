"""Kendall's tau-b with its intervals: against scipy and simulated orders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from search import orders as module
from search.orders import Interval, compare_orders, compare_seeds, estimate_tau, estimate_tau_difference


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=5, max_size=25))
@settings(deadline=None, max_examples=60)
def test_tau_is_scipys(pairs):
    one, other = np.array(pairs, dtype=float).T
    expected = stats.kendalltau(one, other).statistic
    assert estimate_tau([compare_orders(one, other)]).value == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("number", "tau"), [(24, 0.0), (66, 0.4), (66, 0.8)])
def test_intervals_hold_the_tau_of_the_population(number, tau, monkeypatch):
    monkeypatch.setattr(module, "NUM_DRAWS", 400)
    generator = np.random.default_rng(3)
    correlation = np.sin(np.pi * tau / 2)
    held = 0
    for _ in range(200):
        one = generator.normal(size=number)
        other = correlation * one + np.sqrt(1 - correlation**2) * generator.normal(size=number)
        found = estimate_tau([compare_orders(one, other)])
        held += found.low <= tau <= found.high
    assert 0.91 <= held / 200 <= 0.99


def test_seeds_are_compared_over_all_pairs_of_trainings():
    generator = np.random.default_rng(5)
    scores = generator.normal(size=(12, 3))
    taus = [stats.kendalltau(scores[:, a], scores[:, b]).statistic for a, b in ((0, 1), (0, 2), (1, 2))]
    assert compare_seeds(scores.tolist()).value == pytest.approx(np.mean(taus))
    uneven = [row[:2] for row in scores[:6].tolist()] + scores[6:].tolist()
    assert abs(compare_seeds(uneven).value) < 1
    assert compare_seeds(scores[:9].tolist()) is None  # whose interval would promise too much


def test_early_scores_are_compared_with_another_trainings_late_ones():
    generator = np.random.default_rng(9)
    early, late = generator.normal(size=(2, 12, 2))
    taus = [stats.kendalltau(early[:, a], late[:, b]).statistic for a, b in ((0, 1), (1, 0))]
    assert compare_seeds(early.tolist(), late.tolist()).value == pytest.approx(np.mean(taus))


def test_difference_of_taus_is_over_the_same_architectures():
    """Of two orders that differ in one place it is known far better than either tau."""
    generator = np.random.default_rng(10)
    truth = generator.normal(size=40)
    one = truth + generator.normal(size=40)
    other = one + generator.normal(0, 0.05, size=40)
    first, second = (compare_orders(order, truth) for order in (one, other))
    found = estimate_tau_difference([first], [second])
    taus = [estimate_tau([comparisons]) for comparisons in (first, second)]
    assert found.value == pytest.approx(taus[0].value - taus[1].value)
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 0.4 * (taus[0].high - taus[0].low)
    assert estimate_tau_difference([first], [first]) == Interval(0, 0, 0)
