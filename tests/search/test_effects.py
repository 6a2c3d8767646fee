"""The fit of trained networks' scores: known effects, coverage, false decisions, predictions, refusals."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from search import effects as module
from search.arrays import plan_runs
from search.effects import adjust_holm, average_effects, code_terms, fit_effects, predict
from search.trainings import Observation, code_candidates, collect_trainings, make_whitening
from utils.errors import UserError

EVERYTHING = np.array(list(np.ndindex(*[4] * 6)))


def observe(runs, truth, sd, generator, repeats=1):
    """Scores of planned runs: what is true of an architecture, a fold's part and noise."""
    folds = generator.normal(0, 1, 8)
    return [
        Observation(run.digits, run.fold, run.seed_index + 2 * r,
                    float(truth[int(run.digits, 4)] + folds[run.fold] + generator.normal(0, sd)))
        for run in runs for r in range(repeats)
    ]  # fmt: skip


def add_up(effects):
    return sum(effects[block][EVERYTHING[:, block]] for block in range(6))


def judge(observations):
    """The blocks' part of the fit alone: what is simulated a thousand times."""
    data = collect_trainings(observations)
    fit = sm.OLS(*data.whiten(code_candidates(data.genotypes))).fit()
    return module._judge_blocks(fit, data.nuisance.shape[1])


def interact(generator, sd):
    """For each two blocks an interaction of their candidates, no candidate better than another on the mean."""
    tables = generator.normal(0, sd, (6, 6, 4, 4))
    tables -= tables.mean(axis=2, keepdims=True)
    tables -= tables.mean(axis=3, keepdims=True)
    return sum(tables[a, b][EVERYTHING[:, a], EVERYTHING[:, b]] for a in range(6) for b in range(a))


def test_known_effects_are_found_without_noise():
    generator = np.random.default_rng(0)
    effects = generator.normal(0, 1, (6, 4))
    fit = fit_effects(observe(plan_runs(32, 3), add_up(effects), 1e-9, generator))
    centred = effects - effects.mean(axis=1, keepdims=True)
    assert [b.values for b in fit.blocks] == [pytest.approx(row, abs=1e-7) for row in centred]
    assert all(block.is_decided for block in fit.blocks)
    assert [b.chosen for b in fit.blocks] == effects.argmax(axis=1).tolist()
    assert fit.left_out_tau == 1
    assert stats.kendalltau(fit.predictions, add_up(effects)).statistic == pytest.approx(1)
    assert fit.not_worse.tolist() == [int(add_up(effects).argmax())]


@pytest.mark.parametrize("num_runs", [32, 64])
def test_intervals_cover_and_equal_candidates_are_not_decided(num_runs):
    """1,000 simulations: 95 % intervals hold the truth in 92 to 98 %, and at most 5 % of searches decide wrongly."""
    generator = np.random.default_rng(1)
    runs = plan_runs(num_runs, 7)
    effects = generator.normal(0, 1, (6, 4))
    centred = effects - effects.mean(axis=1, keepdims=True)
    covered, false, ruled_out = [], {"all equal": 0, "two ahead of the others": 0}, 0
    pairs = np.tile([5.0, 5.0, 0.0, 0.0], (6, 1))
    for _ in range(1000 // 3 + 1):
        blocks = judge(observe(runs, add_up(effects), 1.0, generator))
        covered += [(b.low <= row) & (row <= b.high) for b, row in zip(blocks, centred, strict=True)]
        for name, truth in (("all equal", np.zeros(4096)), ("two ahead of the others", add_up(pairs))):
            blocks = judge(observe(runs, truth, 1.0, generator))
            equal = {"all equal": {0, 1, 2, 3}, "two ahead of the others": {0, 1}}[name]
            false[name] += any(b.is_decided or equal & set(b.ruled_out) for b in blocks)
            ruled_out += sum(len(b.ruled_out) for b in blocks) if name != "all equal" else 0
    assert 0.92 <= np.mean(covered) <= 0.98
    assert max(false.values()) <= 0.05 * len(covered) / 6 + 2 * np.sqrt(0.05 * 0.95 * len(covered) / 6)
    assert ruled_out >= 0.95 * 2 * len(
        covered
    )  # of two candidates in each block that are five standard deviations worse


def test_intervals_cover_where_candidates_interact_and_some_architectures_are_repeated():
    """As in the tables: 66 architectures, 16 of them by three seeds, and interactions larger than the seeds' noise."""
    generator = np.random.default_rng(8)
    covered, predicted, false = [], [], 0
    for seed in range(40):
        truth = interact(generator, 0.5)
        runs = plan_runs(32, seed, num_extra=34)
        trained = [(run, 0) for run in runs] + [(run, k) for run in runs[:16] for k in (1, 2)]
        observations = [
            Observation(run.digits, (run.fold + k) % 4, k, truth[int(run.digits, 4)] + generator.normal(0, 0.2))
            for run, k in trained
        ]
        blocks = judge(observations)
        covered += [(b.low <= 0) & (b.high >= 0) for b in blocks]
        false += any(b.is_decided for b in blocks)
        if seed % 2:
            continue
        data = collect_trainings(observations)
        _, low, high, _ = module._predict_all(data)
        scores = truth + generator.normal(0, 0.2, 4096)
        predicted.append(np.mean((low <= scores) & (scores <= high)))
    assert 0.92 <= np.mean(covered) <= 0.98  # 0.86 with repeats taken for other architectures
    assert 0.92 <= np.mean(predicted) <= 0.98  # 0.52 with intervals for the means
    assert false <= 5  # 5 % of 40, and twice the standard error


@pytest.mark.parametrize("num_runs", [32, 64])
def test_places_are_judged_rightly(num_runs):
    """1,000 simulations: intervals hold the truth, at most 5 % of searches decide a place that makes no difference."""
    generator = np.random.default_rng(11)
    runs, covered, false, found = plan_runs(num_runs, 7), [], 0, []
    worth = np.array([1.0, -1.5, *[0.0] * 10])
    effects = np.zeros((6, 4))
    effects[0] = worth[0] * np.array([0, 1, 0, 1]) + worth[1] * np.array([0, 0, 1, 1])
    for _ in range(1000):
        places = module.judge_places(collect_trainings(observe(runs, add_up(effects), 0.5, generator)))
        covered += [place.low <= value <= place.high for place, value in zip(places, worth, strict=True)]
        false += any(place.is_decided for place in places[2:])
        found.append(places[0].is_decided and places[1].is_decided)
    assert 0.92 <= np.mean(covered) <= 0.98
    assert false <= 1000 * 0.05 + 2 * np.sqrt(1000 * 0.05 * 0.95)
    assert np.mean(found) > 0.8


def test_whitening_makes_repeats_independent():
    genotypes = np.array([[0] * 6, [1] * 6, [0] * 6, [2] * 6, [0] * 6])
    same = (genotypes[:, :1] == genotypes[:, 0]).astype(float)
    root = make_whitening(genotypes, 0.7)
    assert root @ (0.3 * np.eye(5) + 0.7 * same) @ root.T == pytest.approx(np.eye(5))
    assert make_whitening(genotypes, 0.0) == pytest.approx(np.eye(5))


def test_undecided_block_keeps_the_simplest_that_is_not_worse():
    generator = np.random.default_rng(2)
    effects = np.zeros((6, 4))
    effects[0] = [0, 0, -50, 0.01]
    effects[1] = [-50, -50, 0, 0.01]
    blocks = judge(observe(plan_runs(32, 1), add_up(effects), 1.0, generator))
    assert [b.chosen for b in blocks][:2] == [0, 2]
    assert not blocks[0].is_decided
    assert not blocks[1].is_decided


def test_terms_are_centred_over_all_architectures_and_orthogonal():
    terms = code_terms(EVERYTHING)
    assert np.abs(terms.mean(axis=0)).max() < 1e-12
    assert terms.T @ terms / 4096 == pytest.approx(np.eye(18) / 4)


def test_average_is_that_of_the_scores_own_likelihood():
    """By the scores' marginal distribution in place of penalties: weights, effects, noise, all from the definition."""
    generator = np.random.default_rng(12)
    data = collect_trainings(observe(plan_runs(32, 5), add_up(generator.normal(0, 0.4, (6, 4))), 0.7, generator))
    fixed, terms, scores = data.nuisance, code_terms(data.genotypes), data.scores
    degrees = 1 / (1 + np.exp(-module.LOGITS))
    prior = degrees * (1 - degrees) * np.gradient(module.LOGITS)
    prior = np.append(prior / prior.sum(), 1)
    variances = np.append((1 - degrees) / degrees / 8, 0)  # 32 runs: 8 is the information on an effect
    df, weights, effects, noises = 32 - fixed.shape[1], [], [], []
    for chosen in np.ndindex(5, 5, 6):
        own = np.repeat(variances[list(chosen)], 6)
        inverse = np.linalg.inv(np.eye(32) + terms @ np.diag(own) @ terms.T)
        information = fixed.T @ inverse @ fixed
        rest = scores - fixed @ np.linalg.solve(information, fixed.T @ inverse @ scores)
        noises.append(rest @ inverse @ rest / df)
        logs = np.linalg.slogdet(inverse)[1] - np.linalg.slogdet(information)[1] - df * np.log(noises[-1])
        weights.append(np.exp(logs / 2) * prior[list(chosen)].prod())
        effects.append(own * (terms.T @ inverse @ rest))
    weights = np.array(weights) / np.sum(weights)
    found = average_effects(data)
    assert found.df == df == 27
    assert found.noise == pytest.approx(weights @ noises, rel=1e-6)
    assert found.params[5:] == pytest.approx(weights @ np.array(effects), abs=1e-6)


@pytest.mark.parametrize("kind", ["outside alone", "each candidate for itself"])
def test_predictions_are_better_than_least_squares(kind):
    """Where one kind of effects is larger than the others by far; where all are alike they are little worse."""
    generator = np.random.default_rng(13)
    taus = []
    for seed in range(30):
        worth = generator.normal(0, 0.5, (6, 4))
        truth = add_up(worth[:, [0, 0, 1, 1]] if kind == "outside alone" else worth)
        observations = observe(plan_runs(32, seed), truth, 1.0, generator)
        data = collect_trainings(observations)
        scores, design = data.whiten(code_terms(data.genotypes))
        plain = code_terms(EVERYTHING) @ np.linalg.lstsq(design, scores, rcond=None)[0][-18:]
        taus.append([stats.kendalltau(p, truth).statistic for p in (predict(observations, EVERYTHING), plain)])
    better = np.subtract(*np.transpose(taus)).mean()
    assert better > (0.1 if kind == "outside alone" else -0.06), better


def test_lack_of_fit_shows_where_trainings_were_repeated():
    generator = np.random.default_rng(5)
    additive = add_up(generator.normal(0, 1, (6, 4)))
    mixed = additive + 3 * (EVERYTHING[:, 0] == EVERYTHING[:, 1])
    runs = plan_runs(32, 1)
    assert fit_effects(observe(runs, additive, 0.1, generator)).lack_of_fit is None
    assert fit_effects(observe(runs, additive, 0.5, generator, repeats=2)).lack_of_fit > 0.01
    assert fit_effects(observe(runs, mixed, 0.5, generator, repeats=2)).lack_of_fit < 0.001


def test_set_of_the_not_worse_holds_the_best_as_often_as_it_says():
    generator = np.random.default_rng(6)
    held = 0
    for seed in range(60):
        truth = add_up(generator.normal(0, 0.6, (6, 4)))
        observations = observe(plan_runs(32, seed), truth, 0.7, generator)
        *_, not_worse = module._predict_all(collect_trainings(observations))
        held += int(truth.argmax()) in not_worse
    assert held >= 52  # of 60: 95 % less twice the standard error


def test_holm():
    assert adjust_holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjust_holm([0.9, 0.5]) == [1, 1]


def test_too_few_trainings_are_refused():
    runs = observe(plan_runs(32, 1), np.zeros(4096), 1.0, np.random.default_rng(0))
    with pytest.raises(UserError, match="20 trainings are finished; the effects need at least"):
        fit_effects(runs[:20])
    without = [run for run in runs if run.digits[2] != "3"] * 2
    with pytest.raises(UserError, match="no finished training has conv3-1 OSBlockINv3"):
        fit_effects(without)
    with pytest.raises(UserError, match="mix up effects"):
        fit_effects(runs[:20] * 2)


@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("of_fold", [0.0, 0.1])
def test_scores_that_are_all_the_same_say_nothing(score, of_fold):
    """Rounding would decide otherwise, or end in a traceback after all the trainings."""
    runs = [Observation(r.digits, r.fold, r.seed_index, score + of_fold * r.fold) for r in plan_runs(32, 1)]
    with pytest.raises(UserError, match="all 32 finished trainings score the same"):
        fit_effects(runs)
