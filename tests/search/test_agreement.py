"""Agreement of searches: against the published example, simulation, and the corners."""

import numpy as np
import pytest
from scipy import stats

from search.agreement import combine_rankings, compare_searches, count_votes, estimate_kappa
from search.submission import Submission
from utils.errors import UserError


def submissions(*digits, scores=None):
    return [Submission(d, d, None if scores is None else scores[i]) for i, d in enumerate(digits)]


def test_kappa_by_hand():
    """Three searches, written out after Fleiss: pairs that agree, and how often chance makes them."""
    found = compare_searches(submissions("000111", "001112", "000123"))
    assert found.votes.tolist() == [[3, 0, 0, 0], [3, 0, 0, 0], [2, 1, 0, 0], [0, 3, 0, 0], [0, 2, 1, 0], [0, 1, 1, 1]]
    agreeing = (1 + 1 + 1 / 3 + 1 + 1 / 3 + 0) / 6
    by_chance = (8**2 + 7**2 + 2**2 + 1**2) / 18**2
    assert found.share == pytest.approx(agreeing)
    assert found.kappa.value == pytest.approx((agreeing - by_chance) / (1 - by_chance))
    assert found.kappa.low < found.kappa.value < found.kappa.high


def test_interval_holds_kappa_of_searches_at_chance():
    generator = np.random.default_rng(0)
    found = [estimate_kappa(generator.integers(0, 4, (5, 6))) for _ in range(200)]
    assert np.mean([f.low <= 0 <= f.high for f in found]) >= 0.92


def test_kappa_where_it_has_no_interval_or_is_none():
    assert np.isnan(estimate_kappa(np.array([[0, 1, 2, 3, 0, 1]] * 2)).low)
    same = estimate_kappa(np.array([[0, 1, 2, 3, 0, 1]] * 4))
    assert (same.value, same.low, same.high) == (1, 1, 1)
    assert np.isnan(estimate_kappa(np.zeros((4, 6), dtype=int)).value)
    assert count_votes(np.zeros((4, 6), dtype=int)).sum() == 24


def test_rankings_are_correlated_where_there_are_any():
    generator = np.random.default_rng(1)
    one, other = generator.random(4096), generator.random(4096)
    other[:4000] = np.nan
    found = compare_searches(submissions("000000", "111111", "222222", scores=[one, other, None]))
    assert found.taus[0, 1] == found.taus[1, 0] == stats.kendalltau(one[4000:], other[4000:]).statistic
    assert np.isnan(found.taus[2, 0])
    assert found.pair_taus.tolist() == [found.taus[0, 1]]
    with pytest.raises(UserError, match="between two or more"):
        compare_searches(submissions("000000"))


def test_rankings_together_have_the_mean_of_their_ranks():
    one, other = np.array([0.1, 0.4, 0.2, np.nan, 0.2]), np.array([30.0, 10.0, 20.0, 0.0, -1e9])
    found = combine_rankings([one, other])
    assert found.tolist()[:3] == [(1 + 4) / 2, (4 + 2) / 2, (2.5 + 3) / 2]
    assert np.isnan(found[3]) and found[4] == (2.5 + 1) / 2
    assert np.nanargmax(found) == 1
    assert one[3] != one[3] and other[3] == 0, "the searches' scores are left as they are"


def test_rankings_together_are_nearer_to_the_truth_than_each():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=4096)
    rankings = [np.exp(truth + generator.normal(size=4096)) * unit for unit in (1, 1000, 1e-6)]
    taus = [stats.kendalltau(ranking, truth).statistic for ranking in rankings]
    assert stats.kendalltau(combine_rankings(rankings), truth).statistic > max(taus) + 0.1
