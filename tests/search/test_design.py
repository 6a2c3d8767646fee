"""The designed search, its trainings written down instead of made."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from genotype import CANDIDATE_NAMES
from search.confirm import choose_for_confirmation, compare_confirmed, format_confirmed
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
    designed = DesignedSearch(tmp_path, design, lambda t, f: [t.name], launch, conditions or {"recipe": "a"})
    designed.keep_plan()
    return designed, launch


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
        search(tmp_path, **changed)


@pytest.mark.parametrize("content", ["", "[]", '{"design": {}}', '{"design": 1, "conditions": 2}'])
def test_a_damaged_plan_is_one_line(tmp_path, content):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(UserError, match=r"plan\.json is (damaged|not a plan file)"):
        search(tmp_path)


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
    tukey = 5.0402 / np.sqrt(2)  # of three means with 4 degrees of freedom, as books print it
    assert table[2].half_width == pytest.approx(tukey * np.sqrt((residuals**2).sum() / 4 * 2 / 3), rel=1e-4)
    assert table[2].behind == pytest.approx(scores[1].mean() - scores[0].mean())
    assert "110110" in format_confirmed(table)


def confirm(scores, tmp_path, lost=()):
    """Compares architectures (rows) trained with the same seeds (columns)."""
    digits = [f"00000{i}" for i in range(len(scores))]
    trials = {Trial(d, s, s): row[s] for d, row in zip(digits, scores, strict=True) for s in range(len(row))}
    for trial, score in trials.items():
        write_trial(trial, tmp_path, float(score))
    kept = [trial for trial in trials if (trial.digits, trial.seed) not in lost]
    return compare_confirmed(dict.fromkeys(digits, "why"), read_trials(kept, tmp_path))


def test_a_lost_training_in_a_hard_fold_makes_nobody_win(tmp_path):
    scores = np.array([0.5, 0.48, 0.47])[:, None] + np.array([0.1, 0.0, -0.2])
    table = confirm(scores + 1e-4 * np.eye(3), tmp_path, lost=[("000001", 2)])
    assert [c.digits for c in table] == ["000000", "000001", "000002"]
    assert table[1].behind == pytest.approx(0.02, abs=1e-3)
    assert table[1].trainings == 2


def test_few_trainings_give_no_interval_or_are_refused(tmp_path):
    assert confirm(np.array([[0.5], [0.4]]), tmp_path)[1].half_width is None
    with pytest.raises(UserError, match="the 2 finished trainings of the second round cannot be compared"):
        confirm(np.full((2, 2), 0.5), tmp_path, lost=[("000000", 0), ("000001", 1)])


def test_best_of_the_first_round_is_not_the_one_with_the_easy_fold(tmp_path):
    scores = {"000001": (0, 0.5), "000002": (0, 0.3), "000003": (0, 0.3), "000010": (1, 0.6), "000011": (1, 0.61)}
    trials = [Trial(digits, 1, fold) for digits, (fold, _) in scores.items()]
    for trial in trials:
        write_trial(trial, tmp_path, scores[trial.digits][1])
    fit = SimpleNamespace(predictions=np.arange(4096.0), blocks=[SimpleNamespace(chosen=3)] * 6)
    chosen = choose_for_confirmation(fit, read_trials(trials, tmp_path), 5)
    assert chosen["000001"] == "best of its fold in the first round"
    assert list(chosen) == ["333333", "000001", "000000", "110110", "333332"]


def test_names_of_the_answer_are_the_candidates(tmp_path):
    answer, _ = search(tmp_path)[0].run()
    found = answer.as_found({"sources": ["a"]})
    assert list(found["blocks"][0]["values"]) == list(CANDIDATE_NAMES)
    assert found["sources"] == ["a"]
    assert METRIC == "heldout_new/mAP"
