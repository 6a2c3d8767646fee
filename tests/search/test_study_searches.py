"""Studies of searches, on simulated tables whose truth is known."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import yaml
from scipy import stats

from genotype import BLOCK_NAMES, Genotype
from search import study_searches as module
from search.answer import Answer, BlockAnswer, write_ranking
from search.effects import fit_effects
from search.judge import Interval, Judge
from search.places import PLACE_NAMES, Place
from search.study_searches import (
    HAND_PICKED,
    judge_fewest_norms,
    list_searches,
    study_designs,
    study_left_out,
    study_random,
    study_searches,
)
from search.table import FOLDER, UNSEEN, Table
from tests.search.test_studies import EVERYTHING, simulate
from utils.errors import UserError

TRUTH = 0.1 * (EVERYTHING[:, 0] % 2) - 0.2 * (EVERYTHING[:, 5] > 1)  # what the simulated tables are made of
PLACES = {"conv2-1 inside": 0.1, "conv4-2 outside": -0.2}


def make_judge(table):
    return Judge(table, table.at(), UNSEEN)


def study_all(table, folder):
    return study_searches(table, make_judge(table), list_searches(folder))


def write_search(folder, scores, places=None):
    """Leaves what a search leaves: ``scores`` (4096,), and the places that it calls decided."""
    digits = "".join(map(str, EVERYTHING[scores.argmax()]))
    block = BlockAnswer("OSBlock", False, "simulated", np.zeros(4))
    decided = [Place(places.get(n, 0.0), 0.0, 0.0, n in places) for n in PLACE_NAMES] if places else ()
    genotype = Genotype.from_digits(digits)
    answer = Answer("design", genotype, [block] * len(BLOCK_NAMES), "worth", scores, "score", [], {"image_passes": 500},
                    places=decided)  # fmt: skip
    folder.mkdir(parents=True)
    replace(genotype, found=answer.as_found({})).to_json(folder / "genotype.json")
    write_ranking(folder / "ranking.npz", scores)


def test_searches_that_ran(tmp_path):
    generator = np.random.default_rng(0)
    for seed in (1, 2, 3):
        write_search(tmp_path / f"good-seed{seed}", TRUTH + generator.normal(0, 1e-3, 4096), PLACES)
        write_search(tmp_path / f"bad-seed{seed}", -TRUTH, {"conv2-1 inside": -0.1, "conv4-2 inside": 0.1})
    write_search(tmp_path / "once-seed1", TRUTH)
    (tmp_path / "a note").write_text("no search")
    found = {s.method: s for s in study_all(simulate(0.02), tmp_path)}
    good, bad, once = (found[name] for name in ("good", "bad", "once"))
    assert good.tau.mean > 0.6 and good.percentile.mean > 0.9 and good.regret.mean < 0.01 < bad.regret.mean
    assert good.tau.num == 3 and 0 < good.tau.half_width < 0.2
    over = good.tau_over_networks
    assert over.low < over.value < over.high and over.value == pytest.approx(good.tau.mean, abs=1e-3)
    assert bad.tau.mean < -0.5 and bad.percentile.mean < 0.1
    assert (good.num_right, good.num_wrong) == (6, 0)
    assert (bad.num_right, bad.num_wrong) == (0, 3)  # the table does not decide conv4-2 inside
    assert np.isnan(once.tau.half_width) and (once.num_right, once.num_wrong) == (0, 0)
    assert once.image_passes == 500
    assert good.alone is None and once.alone.tau.value == pytest.approx(once.tau.mean)


def test_fewest_norms_first():
    found = judge_fewest_norms(make_judge(simulate(0.02)))
    norms = np.array([0, 1, 1, 2])[EVERYTHING].sum(axis=1)
    trained = simulate(0.02).adjust("unseen/mAP")
    given = [-norms[int(d, 4)] for d in trained]
    assert found.tau.value == pytest.approx(stats.kendalltau(given, [s.mean() for s in trained.values()]).statistic)
    assert found.answer.digits == "000000"


def test_searches_at_another_setting_are_refused(tmp_path):
    write_search(tmp_path / "gumbel-seed1", TRUTH)
    path = tmp_path / "gumbel-seed1" / "genotype.json"
    genotype = Genotype.from_json(path)
    for found, told in (
        ({"method": "gumbel", "epochs": 3}, "searched for 3 epochs, table simulated trained for 40"),
        ({"sources": ["synthetic_c"]}, "gumbel-seed1 searched on synthetic_c, which table simulated judges by"),
    ):
        replace(genotype, found={**genotype.found, **found}).to_json(path)
        with pytest.raises(UserError, match=told):
            study_all(simulate(), tmp_path)
    replace(genotype, found={**genotype.found, "method": "design", "epochs": 3}).to_json(path)
    assert len(study_all(simulate(), tmp_path)) == 1


def test_folders_that_are_no_searches(tmp_path):
    assert study_all(simulate(), tmp_path / "none") == []
    (tmp_path / "gumbel").mkdir()
    with pytest.raises(UserError, match="METHOD-seedN"):
        study_all(simulate(), tmp_path)
    write_search(tmp_path / "searches" / "gumbel-seed1", TRUTH)
    path = tmp_path / "searches" / "gumbel-seed1" / "genotype.json"
    Genotype.from_json(path).to_json(path.with_name("kept.json"))
    replace(Genotype.from_json(path), found={}).to_json(path)
    with pytest.raises(UserError, match="lacks what the search cost"):
        study_all(simulate(), tmp_path / "searches")
    path.with_name("kept.json").rename(path)
    (tmp_path / "searches" / "gumbel-seed1" / "ranking.npz").unlink()
    with pytest.raises(UserError, match=r"no ranking\.npz"):
        study_all(simulate(), tmp_path / "searches")


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
