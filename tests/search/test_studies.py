"""Studies of tables: on simulated tables whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from search.arrays import plan_runs
from search.places import PLACE_NAMES
from search.studies import can_be_studied, list_named, study_budgets, study_signals, study_sources
from search.table import Row, Table
from utils.errors import UserError

EVERYTHING = np.array(list(np.ndindex(*[4] * 6)))
UNSEEN = [f"synthetic_{letter}/mAP" for letter in "bcd"]


def simulate(late_noise=0.0, early_noise=0.5, num_rows=None, num_extra=8):
    """Early scores are noise, late ones the truth; held-out images tell it, seen ones its contrary."""
    generator = np.random.default_rng(0)
    worth = np.zeros((6, 4))
    worth[0] = [0, 0.1, 0, 0.1]  # IN inside the first block
    worth[5] = [0, 0, -0.2, -0.2]  # and outside the last
    worth += generator.normal(0, 0.01, (6, 4))
    truth = 0.5 + sum(worth[b][EVERYTHING[:, b]] for b in range(6))
    runs, rows = plan_runs(32, 3, num_extra=num_extra), []
    for run, seed in [(run, 1) for run in runs] + [(run, 2) for run in runs[:12]]:
        for epochs, noise in ((10, early_noise), (40, late_noise)):
            score = float(truth[int(run.digits, 4)]) + 0.3 * run.fold + 0.1 * seed + generator.normal(0, noise)
            scores = {name: 0.5 + 0.1 * (score + generator.normal(0, 1e-3)) for name in UNSEEN}
            scores |= {"heldout_new/mAP": 0.5 + 0.12 * score, "synthetic_a/mAP": 0.5 - 0.1 * score}
            about = ("r", "i", 1, 1.0, "m", {})
            rows.append(Row(run.digits, seed, run.fold, epochs, 40, 100 * epochs, scores, -score, *about))
    return Table("simulated", {"unseen/mAP": UNSEEN}, rows[:num_rows])


def test_budgets():
    early, late = study_budgets(simulate())
    assert (early.budget, late.budget, late.image_passes) == (10, 40, 4000)
    assert late.unseen.value == 1
    assert abs(early.seeds.value) < 0.4  # one training's noise with another's truth
    for tau in (late.held_out, late.loss, late.seeds):
        assert tau.value > 0.95
    assert late.difference.low == late.difference.high == 0
    assert early.difference.value == pytest.approx(early.held_out.value - late.held_out.value)
    assert early.difference.low < early.difference.value < early.difference.high < -0.3
    for tau in (early.unseen, early.held_out, early.loss):
        assert abs(tau.value) < 0.4
        assert tau.low < tau.value < tau.high


def test_signals():
    found = study_signals(simulate())
    assert set(found) == {"heldout_new/mAP", "synthetic_a/mAP"}
    held_out, seen = found["heldout_new/mAP"], found["synthetic_a/mAP"]
    assert held_out.tau.value > 0.95
    assert (held_out.difference.low, held_out.difference.high) == (0, 0)
    assert seen.tau.value < -0.95
    assert seen.difference.low <= seen.difference.value < -1.9
    assert seen.difference.value <= seen.difference.high < -1.5
    assert held_out.seeds.value > 0.95 and seen.seeds.value < -0.95


def test_sources():
    """An unseen domain whose scores are the others' contrary pulls the mean down by as much as it should."""
    table = simulate()
    found = study_sources(table)
    assert list(found.single) == UNSEEN and all(0.9 < tau <= 1 for tau in found.single.values())
    assert found.mean.tau.value == pytest.approx(np.mean(list(found.single.values())), abs=1e-3)
    assert -0.1 < found.mean.difference.low <= found.mean.difference.value <= found.mean.difference.high < 0.02
    assert found.mean.seeds.value > 0.9
    rows = [replace(row, scores={**row.scores, UNSEEN[0]: 1 - row.scores[UNSEEN[0]]}) for row in table.rows]
    turned = study_sources(Table("turned", table.groups, rows))
    assert turned.single[UNSEEN[0]] < -0.9 and turned.mean.tau.value < found.mean.tau.value - 0.5
    assert study_sources(Table("one", {"unseen/mAP": UNSEEN[:1]}, rows)) is None


def test_seeds_do_not_share_their_luck():
    found = study_signals(simulate(late_noise=0.5))
    assert found["heldout_new/mAP"].tau.value > 0.95  # of the same trainings
    assert abs(found["heldout_new/mAP"].seeds.value) < 0.4
    assert study_signals(simulate(num_rows=80))["heldout_new/mAP"].seeds is None  # the first 40 trainings


def test_places():
    places = dict(zip(PLACE_NAMES, simulate(0.02).predict("unseen/mAP").places, strict=True))
    assert {name for name, place in places.items() if place.is_decided} >= {"conv2-1 inside", "conv4-2 outside"}
    assert places["conv2-1 inside"].value == pytest.approx(0.01, abs=0.005)
    assert places["conv4-2 outside"].value == pytest.approx(-0.02, abs=0.005)


def test_named_architectures_that_are_there():
    table = simulate()
    digits = table.rows[0].digits
    ((name, found, values),) = list_named(table, {"first": digits, "absent": "x"}, ["unseen/mAP", "synthetic_a/mAP"])
    assert (name, found) == ("first", digits)
    assert values[0] == pytest.approx(1 - values[1], abs=1e-3)


def test_small_tables_are_not_studied():
    assert can_be_studied(simulate())
    assert not can_be_studied(simulate(num_rows=40))  # 20 trainings
    assert not can_be_studied(simulate(num_rows=0))
    table = simulate()
    assert not can_be_studied(Table("no unseen domains", {}, table.rows))

    def drop(rows, name):
        return [replace(row, scores={k: v for k, v in row.scores.items() if k != name}) for row in rows]

    assert not can_be_studied(Table("no held-out images", table.groups, drop(table.rows, "heldout_new/mAP")))
    damaged = Table("damaged", table.groups, [*table.rows[:-1], *drop(table.rows[-1:], UNSEEN[0])])
    with pytest.raises(UserError, match="lacks the score 'synthetic_b/mAP'"):
        can_be_studied(damaged)
