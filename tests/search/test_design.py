"""The designed search, its trainings written down instead of made."""

import json

import numpy as np
import pytest

from genotype import CANDIDATE_NAMES
from search.confirm import compare_confirmed, format_confirmed
from search.decide_effects import METRIC
from search.design import Design, DesignedSearch
from search.trials import Trial, read_trials
from tests.search.fake_trials import FakeLauncher, write_trial
from utils.errors import UserError

EVERYTHING = np.array(list(np.ndindex(*[4] * 6)))
BEST = [1, 0, 2, 3, 1, 0]
TRUTH = 0.3 + 0.05 * (np.array(BEST) == EVERYTHING).sum(axis=1)


def search(tmp_path, launch=None, confirm=0, conditions=None, **more):
    design = Design(**{"runs": 32, "extra_runs": 0, "confirm": confirm, "num_folds": 4, "seed": 1, **more})
    launch = launch or FakeLauncher(TRUTH, tmp_path / "runs", noise=1e-4)
    return DesignedSearch(tmp_path, design, lambda t, f: [t.name], launch, conditions or {"recipe": "a"}), launch


def test_finds_the_best_of_an_additive_world(tmp_path):
    designed, launch = search(tmp_path, confirm=6)
    answer, results = designed.run()
    assert answer.genotype.digits == "".join(map(str, BEST))
    assert answer.num_decided == 6
    assert answer.rank == 1
    assert answer.not_worse[0] == answer.genotype.digits
    assert answer.costs == {"seconds": 60.0 * 50, "image_passes": 300 * 50, "peak_memory_bytes": 10**9}
    assert len(results) == len(launch.asked) == len(set(launch.asked)) == 32 + 6 * 3
    confirmed = answer.details["confirmed"]
    assert confirmed[0]["digits"] == answer.genotype.digits
    assert {row["reason"] for row in confirmed} >= {"plain", "OSNet-AIN", "best predicted"}
    assert json.dumps(answer.as_found({}))


def test_started_again_it_trains_what_is_missing_alone(tmp_path):
    designed, launch = search(tmp_path, FakeLauncher(TRUTH, tmp_path / "runs", 1e-4, failing=("111001-seed2-fold2",)))
    first_round = designed.design.list_first_round()
    assert "111001-seed2-fold2" in [trial.name for trial in first_round]
    designed.run()
    again, launch = search(tmp_path)
    _, results = again.run()
    assert launch.asked == ["111001-seed2-fold2"]
    assert len(results) == 32


def test_equal_candidates_are_not_decided_and_the_report_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    designed, _ = search(tmp_path, FakeLauncher(np.full(4096, 0.3), tmp_path / "runs", noise=0.05))
    answer, _ = designed.run()
    assert answer.num_decided == 0
    assert len(answer.not_worse) > 500
    assert "undetermined" in caplog.text
    assert "left-out architectures are predicted with Kendall's tau" in caplog.text


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"conditions": {"recipe": "b"}}, "conditions.recipe: 'a' then, 'b' now"),
        ({"runs": 64}, "design.runs: 32 then, 64 now"),
        ({"seed": 2}, "design.seed: 1 then, 2 now"),
    ],
)
def test_another_plan_in_the_folder_is_refused_and_shown(tmp_path, changed, told):
    search(tmp_path)[0].run()
    with pytest.raises(UserError, match=told):
        search(tmp_path, **changed)[0].run()


def test_second_round_may_be_added_later(tmp_path):
    search(tmp_path)[0].run()
    designed, launch = search(tmp_path, confirm=4)
    designed.run()
    assert len(launch.asked) == 12


def test_too_many_failures_are_refused(tmp_path):
    plan, _ = search(tmp_path)
    failing = tuple(trial.name for trial in plan.design.list_first_round()[:12])
    designed, _ = search(tmp_path, FakeLauncher(TRUTH, tmp_path / "runs", failing=failing))
    with pytest.raises(UserError, match="20 trainings are finished; the effects need at least"):
        designed.run()


def test_confirmed_are_compared_in_pairs_with_intervals(tmp_path):
    """Against scipy's two-way analysis of the same numbers, written out."""
    generator = np.random.default_rng(0)
    digits = ["000000", "110110", "222222"]
    scores = (
        np.array([0.3, 0.35, 0.32])[:, None] + np.array([0.0, 0.1, -0.05])[None] + generator.normal(0, 0.01, (3, 3))
    )
    trials = [Trial(d, s, 0) for d in digits for s in range(3)]
    for trial in trials:
        write_trial(trial, tmp_path, float(scores[digits.index(trial.digits), trial.seed]))
    table = compare_confirmed(dict.fromkeys(digits, "why"), read_trials(trials, tmp_path))
    assert [c.digits for c in table] == ["110110", "222222", "000000"]
    residuals = scores - scores.mean(1, keepdims=True) - scores.mean(0, keepdims=True) + scores.mean()
    reach = 2.7764451 * np.sqrt((residuals**2).sum() / 4 * 2 / 3)  # t with 4 degrees of freedom
    assert table[2].half_width == pytest.approx(reach, rel=1e-6)
    assert table[2].behind == pytest.approx(scores[1].mean() - scores[0].mean())
    assert "110110" in format_confirmed(table)


def test_names_of_the_answer_are_the_candidates(tmp_path):
    answer, _ = search(tmp_path)[0].run()
    found = answer.as_found({"sources": ["a"]})
    assert list(found["blocks"][0]["values"]) == list(CANDIDATE_NAMES)
    assert found["sources"] == ["a"]
    assert METRIC == "heldout_new/mAP"
