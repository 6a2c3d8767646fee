"""Orthogonality of the arrays, by counting."""

import itertools
from collections import Counter

import numpy as np
import pytest

from search.arrays import make_array_32, make_array_64, plan_runs
from search.trainings import code_candidates
from utils.errors import UserError


def is_balanced(rows, columns, levels):
    """Whether each combination of levels of these columns comes equally often."""
    counts = Counter(tuple(row[c] for c in columns) for row in rows)
    combinations = 1
    for c in columns:
        combinations *= levels[c]
    return len(counts) == combinations and len(set(counts.values())) == 1


LEVELS = [4] * 7 + [2]


@pytest.mark.parametrize("make", [make_array_32, make_array_64])
def test_every_two_columns_are_orthogonal(make):
    rows = make()
    assert len(set(rows)) == len(rows) == (32 if make is make_array_32 else 64)
    for pair in itertools.combinations(range(8), 2):
        assert is_balanced(rows, pair, LEVELS), pair


def test_any_three_blocks_of_the_64_show_every_combination_once():
    rows = make_array_64()
    for three in itertools.combinations(range(6), 3):
        assert is_balanced(rows, three, LEVELS), three


@pytest.mark.parametrize("num_runs", [32, 64])
@pytest.mark.parametrize("num_folds", [2, 3, 4, 5, 6])
def test_plans_stay_orthogonal_and_even(num_runs, num_folds):
    runs = plan_runs(num_runs, seed=5, num_folds=num_folds, num_extra=12)
    array, extra = runs[:num_runs], runs[num_runs:]
    assert len({run.digits for run in runs}) == num_runs + 12
    rows = [(*map(int, run.digits), run.fold, run.seed_index) for run in array]
    for pair in itertools.combinations(range(6), 2):
        assert is_balanced(rows, pair, LEVELS)
    per_fold = Counter(run.fold for run in array).values()
    assert max(per_fold) - min(per_fold) <= 1
    if num_folds in (2, 4):
        for block in range(6):
            assert is_balanced(rows, (block, 6), [*LEVELS[:6], num_folds, 2])
    assert {run.fold for run in extra} == set(range(num_folds))


@pytest.mark.parametrize("num_runs", [32, 64])
@pytest.mark.parametrize("num_folds", [3, 5, 6])
def test_folds_that_the_array_lacks_cost_the_effects_little(num_runs, num_folds):
    """An eighth of precision at most; dealing out by turns cost up to everything (64 runs, 6 folds)."""
    runs = plan_runs(num_runs, 2, num_folds)
    blocks = code_candidates(np.array([[int(d) for d in run.digits] for run in runs]))
    folds = np.eye(num_folds)[[run.fold for run in runs]]
    alone, beside = (np.linalg.pinv(m.T @ m) for m in (blocks, np.hstack([blocks, folds])))
    assert np.linalg.matrix_rank(np.hstack([blocks, folds])) == 18 + num_folds
    assert np.diag(beside)[:18].mean() / np.diag(alone).mean() < 1.125


def test_seeds_give_other_fractions_and_the_same_seed_the_same():
    assert plan_runs(32, 1) == plan_runs(32, 1)
    first, second = ({run.digits for run in plan_runs(32, seed)} for seed in (1, 2))
    assert len(first & second) < 8


def test_other_sizes_are_refused():
    with pytest.raises(UserError, match="allowed are 32, 64"):
        plan_runs(48, 1)
    with pytest.raises(UserError, match="only 4064 are left"):
        plan_runs(32, 1, num_extra=5000)
