"""The judge of searches: against scipy, enumeration and simulated tables; what it refuses."""

import itertools
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from search import judge as module
from search import measures, orders
from search.arrays import plan_runs
from search.judge import Judge, check_unseen, list_judges
from search.measures import (
    Measures,
    bound_perfect,
    expect_best,
    expect_perfect,
    expect_random,
    measure,
    spread_random,
)
from search.submission import Submission
from search.table import Table
from search.trainings import Repeats, collect_trainings
from tests.search.test_table import make_row
from utils.errors import UserError

EVERYTHING = np.array(list(np.ndindex(*[4] * 6)))


def simulate(generator, truth, noise, repeats=0):
    """A table of 66 architectures, as many of them as asked for by two more seeds; folds differ a lot."""
    runs = plan_runs(32, 5, num_extra=34)
    trained = [(run, 1) for run in runs] + [(run, k) for run in runs[:repeats] for k in (2, 3)]
    return Table("simulated", {}, [
        make_row(run.digits, seed, fold := (run.fold + seed) % 4,
                 score=float(truth[int(run.digits, 4)] + 0.1 * fold + 0.02 * seed + generator.normal(0, noise)))
        for run, seed in trained
    ])  # fmt: skip


def additive(generator):
    effects = generator.normal(0, 0.02, (6, 4))
    return 0.3 + sum(effects[b][EVERYTHING[:, b]] for b in range(6))


@given(st.lists(st.integers(0, 5), min_size=5, max_size=9), st.integers(1, 5))
@settings(deadline=None)
def test_expected_best_is_the_mean_over_all_subsets(values, size):
    subsets = itertools.combinations(values, size)
    assert expect_best(np.array(values, dtype=float), size) == pytest.approx(np.mean([max(s) for s in subsets]))


def test_measures_of_a_small_table_by_hand():
    truth = np.arange(30.0)
    given = truth.copy()
    given[29], given[28], given[27] = -1, 40, 41  # the best comes last, its neighbours first and second
    found = measure(given, truth)
    assert found.tau == pytest.approx(stats.kendalltau(given, truth).statistic)
    assert found.top_tau == pytest.approx(-1)  # 27, 28, 29 come in the order 41, 40, −1
    assert (found.regret, found.regret_of_ten) == (2, 1)
    assert found.percentile == pytest.approx(27 / 29)


def test_ties_count_as_the_mean_over_their_orders():
    generator = np.random.default_rng(1)
    truth = generator.normal(size=24)
    given = generator.integers(0, 3, 24).astype(float)
    found = measure(given, truth)
    draws = []
    for _ in range(4000):
        order = np.lexsort((generator.random(24), -given))
        first = truth[order[0]]
        draws.append((truth.max() - first, truth.max() - truth[order[:10]].max(), (truth < first).sum() / 23))
    errors = np.std(draws, axis=0) / np.sqrt(len(draws))
    shown = (found.regret, found.regret_of_ten, found.percentile)
    assert (np.abs(np.mean(draws, axis=0) - shown) <= 4 * errors + 1e-12).all()


def test_random_order_is_what_random_scores_give_on_the_mean():
    generator = np.random.default_rng(2)
    truth = generator.normal(size=40)
    draws = np.array([astuple(measure(generator.random(40), truth)) for _ in range(2000)])
    errors = draws.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - astuple(expect_random(truth))) < 4 * errors).all()


def test_true_order_is_simulated_as_noise_lets_it_agree(monkeypatch):
    """What is estimated from noisy rows is, on the mean, what the true order reaches."""
    monkeypatch.setattr(measures, "NUM_SIMULATED", 40)
    generator = np.random.default_rng(4)
    noise = np.full(60, 0.7)
    reached, simulated = [], []
    for _ in range(40):
        truth = generator.normal(size=60)
        rows = truth + noise * generator.normal(size=60)
        reached.append(astuple(measure(truth, rows)))
        simulated.append(astuple(expect_perfect(rows, noise)))
    gap = np.subtract(reached, simulated)
    errors = gap.std(axis=0) / np.sqrt(40)
    errors[3] = 0.01  # the first ten miss the best too rarely for an error to be told
    assert (np.abs(gap.mean(axis=0)) < 4 * errors).all()
    assert expect_perfect(rows, noise * 10) == expect_random(rows)


def test_range_of_the_true_order_is_that_of_the_noise(monkeypatch):
    """At both ends of its interval; so 95 % hold, here where ten architectures of three trainings tell the noise."""
    monkeypatch.setattr(measures, "NUM_SIMULATED", 20)
    generator = np.random.default_rng(11)
    held = []
    for _ in range(120):
        truth = generator.normal(size=60)
        rows = truth + 0.8 * generator.normal(size=60)
        found = bound_perfect(rows, np.ones(60), Repeats(None, 0.0, 0.64 * generator.chisquare(20) / 20, 20))
        held.append(found.low.tau < expect_perfect(rows, np.full(60, 0.8)).tau < found.high.tau)
    assert 0.9 < np.mean(held) < 1
    counts = np.repeat([1, 3], 30)
    found = bound_perfect(rows, counts, Repeats(None, 0.0, 0.25, 20))
    least = expect_perfect(rows, np.sqrt(0.25 * 20 / 34.17 / counts))  # the chi-square quantiles of 20 degrees
    most = expect_perfect(rows, np.sqrt(0.25 * 20 / 9.591 / counts))
    assert found.mean == expect_perfect(rows, 0.5 / np.sqrt(counts))
    assert (found.low.tau, found.high.tau) == pytest.approx((most.tau, least.tau), abs=1e-3)
    assert (found.low.regret, found.high.regret) == pytest.approx((least.regret, most.regret), abs=1e-3)


@pytest.mark.parametrize("own", [0.0, 0.1])
def test_noise_is_known_from_repeats_and_where_nothing_else_is_left_over_from_all(own):
    """Architectures that are the sum of their blocks leave more degrees of freedom to the noise."""
    generator = np.random.default_rng(14)
    truth = additive(generator) + generator.normal(0, own, 4096)
    table = simulate(generator, truth, 0.01, repeats=16)
    repeats = collect_trainings(table.observe("b/mAP")).repeats
    assert np.sqrt(repeats.noise) == pytest.approx(0.01, rel=0.3)
    assert repeats.df == (27 if own else 98 - 1 - 3 - 2 - 18)


def test_range_of_random_orders():
    truth = np.random.default_rng(11).normal(size=40)
    low, high = spread_random(truth)
    generator = np.random.default_rng(12)
    draws = np.array([astuple(measure(generator.random(40), truth)) for _ in range(1000)])
    inside = (np.array(astuple(low)) <= draws) & (draws <= np.array(astuple(high)))
    assert 0.93 < inside.mean(axis=0)[0] < 0.97
    assert (inside.mean(axis=0)[1:] > 0.93).all()
    scale = np.sqrt(2 * (2 * 40 + 5) / (9 * 40 * 39))  # Kendall's standard deviation without ties
    assert (low.tau, high.tau) == (pytest.approx(-1.96 * scale, rel=0.05), pytest.approx(1.96 * scale, rel=0.05))
    assert (low.regret, high.regret) == (0, np.ptp(truth))  # of 40, without the best and the worst, less than 95 %
    assert (low.percentile, high.percentile) == (0, 1)
    more = np.random.default_rng(11).normal(size=41)
    low, high = spread_random(more)
    assert (low.regret, high.regret) == tuple(np.sort(more.max() - more)[[1, 39]])  # 39 of 41
    assert (low.percentile, high.percentile) == (1 / 40, 39 / 40)


def test_search_on_an_unseen_domain_is_refused():
    table = simulate(np.random.default_rng(13), np.arange(4096.0), 0.01)
    table.groups["unseen/mAP"] = ["synthetic_b/mAP", "synthetic_c/mAP"]
    check_unseen(table, Submission("fair", "000000", None, ["synthetic_a", "market1501"]))
    with pytest.raises(UserError, match="unfair searched on synthetic_b, which table simulated judges by as never"):
        check_unseen(table, Submission("unfair", "000000", None, ["synthetic_a", "synthetic_b"]))


def test_true_order_is_judged_as_the_true_order_and_folds_do_not_matter():
    generator = np.random.default_rng(6)
    truth = additive(generator)
    table = simulate(generator, truth, 0.01, repeats=16)
    best = module.np.base_repr(int(truth.argmax()), 4).zfill(6)
    found = Judge(table, table.at(), "b/mAP").judge(truth, best)
    assert (found.num_architectures, found.num_trainings, found.num_repeated) == (66, 98, 16)
    perfect, low, high = found.perfect
    assert found.tau.low <= perfect.tau <= found.tau.high
    assert 0.7 < low.tau < perfect.tau < high.tau < 0.95
    assert low.regret <= perfect.regret <= high.regret
    assert found.noise == pytest.approx(0.01, rel=0.3)
    assert found.tau_of_seeds.value < perfect.tau  # two noisy orders agree less than a noisy and the true one
    assert found.search.regret < found.random.mean.regret_of_ten < found.random.mean.regret
    assert found.answer.num_trainings == 0
    assert found.answer.percentile.value > 0.9
    assert found.answer.behind == pytest.approx(max(s.mean() for s in table.adjust("b/mAP").values())
                                                - found.answer.score.value)  # fmt: skip
    assert found.answer.score.low < found.answer.score.value < found.answer.score.high


def test_answer_of_the_table_is_scored_by_its_rows():
    generator = np.random.default_rng(7)
    truth = additive(generator)
    table = simulate(generator, truth, 0.0)
    digits = table.rows[0].digits
    found = Judge(table, table.at(), "b/mAP").judge(-truth, digits)
    assert found.search.tau == pytest.approx(-1)
    assert found.perfect is None
    assert found.answer.num_trainings == 1
    known = [truth[int(row.digits, 4)] for row in table.rows]
    assert found.answer.percentile.value == pytest.approx(np.mean(np.array(known[1:]) < known[0]))


def test_what_depends_on_the_rows_alone_is_computed_once(monkeypatch):
    generator = np.random.default_rng(15)
    truth = additive(generator)
    table = simulate(generator, truth, 0.01, repeats=16)
    calls = []
    for name in ("bound_perfect", "spread_random", "fit_effects"):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, n=name, f=original: (calls.append(n), f(*a))[1])
    judge = Judge(table, table.at(), "b/mAP")
    best, worst = (module.np.base_repr(int(i), 4).zfill(6) for i in (truth.argmax(), truth.argmin()))
    judge.judge(truth, best)
    second = judge.judge(-truth, worst)
    assert sorted(calls) == ["bound_perfect", "fit_effects", "spread_random"]
    assert second == Judge(table, table.at(), "b/mAP").judge(-truth, worst)


def test_tau_of_several_searches_has_the_interval_of_the_architectures():
    generator = np.random.default_rng(16)
    truth = additive(generator)
    table = simulate(generator, truth, 0.01)
    judge = Judge(table, table.at(), "b/mAP")
    rankings = [truth + generator.normal(0, 0.02, 4096) for _ in range(3)]
    taus = [judge.judge(ranking, None).tau for ranking in rankings]
    found = judge.estimate_mean_tau(rankings)
    assert found.value == pytest.approx(np.mean([tau.value for tau in taus]), abs=1e-3)
    assert found.high - found.low < max(tau.high - tau.low for tau in taus)


def test_tau_is_scipys_with_the_means_of_a_table():
    """With repeats, folds and seeds to be taken out, and many ties in the ranking."""
    generator = np.random.default_rng(17)
    truth = additive(generator)
    table = simulate(generator, truth, 0.01, repeats=16)
    ranking = np.round(truth + generator.normal(0, 0.02, 4096), 2)
    means = {digits: scores.mean() for digits, scores in table.adjust("b/mAP").items()}
    given = [ranking[int(digits, 4)] for digits in means]
    expected = stats.kendalltau(given, list(means.values())).statistic
    found = Judge(table, table.at(), "b/mAP").judge(ranking, None)
    assert len(set(given)) < 30 and found.search.tau == pytest.approx(expected) == found.tau.value


def test_intervals_hold_what_all_architectures_would_show(monkeypatch):
    """Of one search, of three together, and of a difference; parts of fold and seed are estimated, as always."""
    monkeypatch.setattr(orders, "NUM_DRAWS", 300)
    generator = np.random.default_rng(18)
    held, widths = np.zeros(3), []
    for _ in range(80):
        truth = additive(generator) + generator.normal(0, 0.01, 4096)
        table = simulate(generator, truth, 0.02)
        rankings = [truth + generator.normal(0, 0.04, 4096) for _ in range(3)]
        noisy = truth + generator.normal(0, 0.02, 4096)  # of another training of each of the 4,096
        taus = [stats.kendalltau(ranking, noisy).statistic for ranking in rankings]
        judge = Judge(table, table.at(), "b/mAP")
        found = [
            (judge.estimate_mean_tau(rankings[:1]), taus[0]),
            (judge.estimate_mean_tau(rankings), np.mean(taus)),
            (judge.estimate_mean_tau_difference(rankings[:1], rankings[1:2]), taus[0] - taus[1]),
        ]
        held += [interval.low <= tau <= interval.high for interval, tau in found]
        widths.append([interval.high - interval.low for interval, _ in found])
    assert (held / 80 >= 0.88).all()
    assert (np.mean(widths, axis=0) < (0.35, 0.3, 0.35)).all()


def test_shares_are_predicted_alike_for_trained_and_untrained():
    generator = np.random.default_rng(19)
    truth = additive(generator)
    table = simulate(generator, truth, 0.002)
    judge, scores = Judge(table, table.at(), "b/mAP"), table.adjust("b/mAP")
    rows = np.array([truth[int(digits, 4)] for digits in scores])
    away = next(d for d in map("".join, itertools.product("0123", repeat=6)) if d not in scores)
    for digits in (table.rows[0].digits, away, np.base_repr(int(truth.argmax()), 4).zfill(6)):
        found = judge.predict_share(digits)
        assert found.value == pytest.approx(np.mean(rows < truth[int(digits, 4)]), abs=0.06)
        assert found.low <= found.value <= found.high <= 1
        assert found.value <= judge.predicted_shares[1]
    mean, most = judge.predicted_shares
    assert mean == pytest.approx(np.mean([np.mean(rows < score) for score in truth]), abs=0.02) and most > 0.95


def test_trained_networks_are_predicted_without_their_own_trainings():
    """One that is far better than its candidates, which the others cannot know."""
    generator = np.random.default_rng(21)
    truth = additive(generator)
    outlier = simulate(generator, truth, 0.0).rows[5].digits
    truth[int(outlier, 4)] += 0.5
    table = simulate(generator, truth, 0.002)
    answer = Judge(table, table.at(), "b/mAP").judge(truth, outlier).answer
    assert answer.percentile.value == 1 and answer.behind == 0
    others = [s.mean() for digits, s in table.adjust("b/mAP").items() if digits != outlier]
    assert answer.predicted.value == np.mean(np.array(others) < table.predict("b/mAP").left_out[outlier][1]) < 1


def test_single_domains_of_a_group():
    generator = np.random.default_rng(20)
    truth = additive(generator)
    table = simulate(generator, truth, 0.01)
    table.groups["both/mAP"], table.groups["one/mAP"] = ["b/mAP", "c/mAP"], ["b/mAP"]
    found = {name: judge.measure(truth) for name, judge in list_judges(table, table.at(), "both/mAP").items()}
    assert found == {name: Judge(table, table.at(), name).judge(truth, None).search for name in ("b/mAP", "c/mAP")}
    assert list_judges(table, table.at(), "one/mAP") == list_judges(table, table.at(), "b/mAP") == {}


def test_domain_that_all_networks_solve_judges_nothing():
    generator = np.random.default_rng(23)
    table = simulate(generator, additive(generator), 0.01)
    rows = [replace(row, scores={**row.scores, "c/mAP": 1.0}) for row in table.rows]
    solved = Table("solved", {"both/mAP": ["b/mAP", "c/mAP"]}, rows)
    assert set(list_judges(solved, solved.at(), "both/mAP")) == {"b/mAP"}


def test_constant_scores_order_nothing():
    found = measure(np.ones(30), np.arange(30.0))
    assert np.isnan(found.tau)
    assert np.isnan(found.top_tau)
    assert found == Measures(found.tau, found.top_tau, *astuple(expect_random(np.arange(30.0)))[2:])


def test_best_by_rounding_is_not_behind():
    """A mean of equal scores may come out above each of them."""
    scores = np.array([0.1, 0.1, 0.1, *np.linspace(0, 0.05, 27)])
    assert scores[:3].mean() > scores.max()
    found = measure(np.array([1.0] * 3 + [0.0] * 27), scores)
    assert (str(found.regret), str(found.regret_of_ten)) == ("0.0", "0.0")


def test_what_cannot_be_judged_is_refused():
    generator = np.random.default_rng(8)
    truth = additive(generator)
    table = simulate(generator, truth, 0.01)
    later = [make_row(row.digits, row.seed, row.fold, epochs=20) for row in table.rows]
    with pytest.raises(UserError, match=r"rows of several budgets \(\[10, 20\] epochs\) cannot be judged together"):
        Judge(table, [*table.rows, *later], "b/mAP").judge(truth, "000000")
    with pytest.raises(UserError, match=r"12 architectures at 10 epochs are too few .*; 21 are needed"):
        Judge(table, table.rows[:12], "b/mAP").judge(truth, "000000")
    with pytest.raises(UserError, match=f"no score for 1 of the 66 trained architectures: {table.rows[3].digits}"):
        truth[int(table.rows[3].digits, 4)] = np.nan
        Judge(table, table.rows, "b/mAP").judge(truth, "000000")
