"""Studies of searches that a table's rows stand in for, on simulated tables whose truth is known."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import yaml
from scipy import stats

from search import study_drawn as module
from search.effects import fit_effects
from search.orders import Interval
from search.study_drawn import HAND_PICKED, study_designs, study_left_out, study_random
from search.table import FOLDER, Table
from tests.search.test_studies import simulate


def test_best_of_random_networks_is_what_all_choices_give_on_average():
    table = simulate(0.02)
    table = Table("small", table.groups, [row for row in table.rows if row.seed == 1])
    study = study_random(table, 2, 10)
    truth, early = (
        {digits: scores.mean() for digits, scores in table.adjust(*at).items()}
        for at in (("unseen/mAP", 40), ("heldout_new/mAP", 10))
    )
    answers = [truth[max(pair, key=lambda d: early[d])] for pair in product(truth, repeat=2)]
    best = max(truth.values())
    assert study.regret.value == pytest.approx(best - np.mean(answers))
    assert study.regret.low == pytest.approx(best - np.quantile(answers, 0.975, method="inverted_cdf"))
    assert study.regret.high == pytest.approx(best - np.quantile(answers, 0.025, method="inverted_cdf"))
    shares = [np.mean([a > other for other in truth.values()]) for a in answers]  # without ties
    assert study.percentile.value == pytest.approx(np.mean(shares) * len(truth) / (len(truth) - 1))
    assert (study.image_passes, study.num_trainings, study.tau) == (2 * 1000, 2, None)


def test_random_networks_that_are_more_than_there_are():
    study = study_random(simulate(), 1000, 40)
    assert (study.num_trainings, study.num_networks) == (1000, 40)
    assert study.regret.value == pytest.approx(0, abs=1e-3)  # late scores are the truth


def test_networks_picked_by_hand_are_no_random_ones():
    table = simulate(num_extra=40)
    rows = [replace(row, digits="110110" if row.digits == table.rows[0].digits else row.digits) for row in table.rows]
    assert {"000000", "110110", "220000", "333333"} < HAND_PICKED
    picked = Table("picked", table.groups, rows)
    assert [study_random(t, 8, 10).num_networks for t in (table, picked)] == [72, 71]
    assert [study_designs(t, 10)[0].num_networks for t in (table, picked)] == [72, 71]


def test_networks_that_plans_pick_by_hand_are_known():
    plans = [yaml.safe_load(path.read_text()) for path in FOLDER.glob("*.yaml")]
    picked = [set(plan["genotypes"]) for plan in plans if "genotypes" in plan]
    assert len(picked) >= 2
    assert all(found <= HAND_PICKED for found in picked)


def test_answers_are_behind_the_best_of_the_table_also_where_they_could_not_have_been_it(monkeypatch):
    table = simulate(num_extra=40)
    scores = {digits: found.mean() for digits, found in table.adjust("unseen/mAP", 40).items()}
    second, best = sorted(scores, key=lambda digits: scores[digits])[-2:]
    monkeypatch.setattr(module, "HAND_PICKED", {best})
    for study in (study_random(table, 1000, 40), *study_designs(table, 40)):
        assert study.regret.low == pytest.approx(scores[best] - scores[second])
        assert study.percentile.high == pytest.approx(70 / 71)


def test_trainings_that_lack_a_budget_are_left_out():
    table = simulate(num_extra=40)
    rows = table.at()
    once = next(row for row in rows if sum(other.digits == row.digits for other in rows) == 1)
    lacking = Table("lacking", table.groups, [row for row in table.rows if row.key != once.key])
    assert [study_random(t, 8, 10).num_networks for t in (table, lacking)] == [72, 71]
    assert [study.num_trainings for study in study_designs(lacking, 10)] == [32, 50, 50]


def test_fits_that_few_draws_can_make_are_not_studied():
    """With fifteen folds 32 trainings cannot tell the candidates' effects from theirs, unless folds are missing."""
    table = simulate(num_extra=60)
    rows = [replace(row, fold=i // 2 % 15) for i, row in enumerate(table.rows)]
    assert study_designs(Table("fifteen folds", table.groups, rows), 40) is None


def test_designs():
    assert study_designs(simulate(), 40) is None  # 40 networks: too few to judge by
    table = simulate(0.02, early_noise=2.0, num_extra=40)
    (late, confirmed, _), (early, _, _) = (study_designs(table, budget) for budget in (40, 10))
    assert late.tau.value > 0.5 and late.percentile.value > 0.8
    assert abs(early.tau.value) < 0.3 and early.regret.value > late.regret.value
    assert late.tau.low < late.tau.value < late.tau.high
    assert (late.num_trainings, late.image_passes) == (32, 32 * 4000)
    assert confirmed.regret.value < late.regret.value  # what it is confirmed by is the truth
    assert (confirmed.tau, confirmed.num_trainings) == (None, 50)


@pytest.mark.parametrize("best", ["000000", "110110"])
def test_known_networks_are_among_those_confirmed(best):
    table = simulate(0.02, num_extra=40)
    scores = {digits: found.mean() for digits, found in table.adjust("unseen/mAP", 40).items()}
    highest = max(scores, key=lambda digits: scores[digits])
    rows = [
        replace(row, digits=best, scores={name: score + 0.1 for name, score in row.scores.items()})
        if row.digits == highest
        else row
        for row in table.rows
    ]
    fit, confirmed, beside = study_designs(Table("known", table.groups, rows), 40)
    assert fit.num_networks == 71 and fit.regret.low > 0 and confirmed.regret.low > 0
    assert beside.most_frequent == (best, pytest.approx(1))
    assert beside.regret == Interval(0, 0, 0) and beside.percentile == Interval(1, 1, 1)


@pytest.mark.parametrize(("place", "confirmed"), [(5, True), (6, False)])
def test_six_are_confirmed(monkeypatch, place, confirmed):
    """One is the best seen, the others the fit's first five."""
    table = simulate(0.02, num_extra=40)
    scores = {digits: found.mean() for digits, found in table.adjust("unseen/mAP", 40).items()}
    falling = sorted(scores, key=lambda digits: -scores[digits])
    best, rest = falling[0], falling[40:]  # the fit has seen the worst of all
    rest.insert(place - 1, best)
    monkeypatch.setattr(module, "NUM_DRAWS", 1)
    monkeypatch.setattr(module, "_draw_fits", lambda *_: [(falling[39:40], rest, -np.arange(len(rest), dtype=float))])
    alone, found, _ = study_designs(table, 40)
    assert alone.most_frequent == (rest[0], 1)
    assert (found.most_frequent[0] == best) == confirmed


def test_studies_are_of_the_designed_search_as_it_is_set_up():
    design = yaml.safe_load((FOLDER.parent / "design.yaml").read_text())["nas"]["design"]
    assert (design["runs"], design["confirm"]) == (module.NUM_RUNS, module.NUM_CONFIRMED)


def test_networks_that_are_left_out():
    table = simulate(0.02, early_noise=2.0)
    early, late = study_left_out(table)
    assert (early.budget, late.budget) == (10, 40)
    assert late.tau.low < late.tau.value < late.tau.high
    assert late.tau.value > 0.5 and abs(early.tau.value) < 0.3
    assert late.difference == Interval(0, 0, 0)
    assert early.difference.value == pytest.approx(early.tau.value - late.tau.value)
    assert early.difference.low < early.difference.value < early.difference.high < 0
    fit = fit_effects(table.observe("heldout_new/mAP", 40))
    truth = {digits: found.mean() for digits, found in table.adjust("unseen/mAP", 40).items()}
    assert set(fit.left_out) == set(truth)
    pairs = [(fit.left_out[digits][1], truth[digits]) for digits in truth]
    assert late.tau.value == pytest.approx(stats.kendalltau(*zip(*pairs, strict=True)).statistic)


def test_left_out_networks_that_are_too_few(monkeypatch):
    table = simulate()
    monkeypatch.setattr(module, "HAND_PICKED", set(sorted({row.digits for row in table.rows})[15:]))
    assert study_left_out(table) == []
