"""What each candidate is worth in each block: least squares and a mixed model of really trained networks.

Three models, for three questions:

- *Which candidate, and is that sure?* One mean per candidate and block, beside fold and seed as blocking factors. In an
  orthogonal array interactions of two other blocks are spread over these means and widen the intervals. A block is
  decided where its best candidate's lead over the second is significant: a two-sided t-test, since two equal candidates
  ahead of the others are the case in which chance most often makes one of them lead; p-values are adjusted over the six
  blocks after Holm.
- *Does IN help at a place, and is that sure?* With two bits per block (IN inside, IN outside) half of the networks tell
  on either side; the twelve p-values are adjusted in the same way.
- *How good is a network that nobody trained?* A mixed model: IN inside, IN outside, and what both together add to
  their sum, are random effects of a variance of their own for each of these three kinds. Predictions are shrunk by
  these variances and averaged over what they may be: all degrees of shrinking are equally probable beforehand, and that
  both merely add up as probable as that they do not. How well that predicts is measured by leaving each architecture
  out. The intervals are for the score of a new training: what the model lacks cannot be told from noise where each
  architecture is trained once, and intervals for the means would leave it out (simulated with interactions: they hold
  half of them).

Source: Hsu, "Multiple Comparisons" (1996), on the best of several means; Henderson, "Best linear unbiased estimation
and prediction under a selection model" (1975); Daniels, "A prior for the variance in hierarchical models" (1999), on
equally probable degrees of shrinking; Hoeting et al., "Bayesian model averaging" (1999).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import statsmodels.api as sm
from scipy import stats

from genotype import NUM_BLOCKS, NUM_CANDIDATES, NUM_INS
from search.places import NUM_PLACES, Place
from search.trainings import Observation, Trainings, code_candidates, collect_trainings

LEVEL = 0.05  # share of searches that decide something wrong where nothing is to be decided
NUM_PAIRS = NUM_BLOCKS * NUM_CANDIDATES * (NUM_CANDIDATES - 1) // 2
NUM_DRAWS = 2000  # for the set of architectures that cannot be told from the best
LOGITS = np.array([-9.0, -5.0, -2.5, -0.5, 1.5])  # of the degrees of shrinking that predictions are averaged over
_NO_EFFECT = 1e9  # noise variance over information times variance of effects that are none
_NUM_KINDS = 3  # of effects: inside, outside, both


@dataclass(frozen=True)
class BlockEffects:
    """One block's candidates.

    Attributes:
        values: By how much each candidate's mean score is above the block's, (4,).
        low: Lower ends of the 95 % intervals.
        high: Upper ends.
        p_values: Of each value's being 0.
        best: The candidate with the highest value, 0–3.
        p_decision: P-value of the best's lead over the second, adjusted over the blocks.
        is_decided: Whether that is at most ``LEVEL``.
        ruled_out: Candidates that the best beats, of all pairs in all blocks compared at ``LEVEL`` together.
        chosen: The best where it is decided; else, of those not significantly worse, the one with the fewest IN.
    """

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_values: np.ndarray
    best: int
    p_decision: float
    is_decided: bool
    ruled_out: tuple[int, ...]
    chosen: int


@dataclass(frozen=True)
class EffectsFit:
    """What trained networks say about all 4,096.

    Attributes:
        blocks: The six blocks' effects.
        places: The twelve places' effects, in the order of ``search.places.PLACE_NAMES``.
        residual_sd: Standard deviation of a score around the means per candidate, architectures and trainings together.
        lack_of_fit: P-value of the test that interactions add nothing; None without repeated trainings.
        predictions: Predicted score of each genotype, (4096,), for the mean fold and seed.
        low: Lower ends of 95 % intervals for the score of one new training, (4096,).
        high: Upper ends.
        left_out: Of each architecture trained, by digits: its score without fold and seed, and what the others predict.
        not_worse: Numbers of the genotypes that are not significantly worse than the best predicted.
        num_runs: Trainings that went in.
    """

    blocks: tuple[BlockEffects, ...]
    places: tuple[Place, ...]
    residual_sd: float
    lack_of_fit: float | None
    predictions: np.ndarray
    low: np.ndarray
    high: np.ndarray
    left_out: dict[str, tuple[float, float]]
    not_worse: np.ndarray
    num_runs: int

    @property
    def left_out_tau(self) -> float:
        """Kendall's tau-b between the scores of left-out architectures and their predictions.

        Lower than for the 4,096 as a whole, since a run that is missing in an orthogonal array is the one that the
        others say least about, and since its score has noise: simulated with 32 runs, -0.14 where the predictions agree
        with the true order of all at 0, 0.16 where at 0.56, 0.41 where at 0.74.
        """
        return float(stats.kendalltau(*zip(*self.left_out.values(), strict=True)).statistic)

    @property
    def left_out_error(self) -> float:
        """Root mean square error of those predictions."""
        return float(np.sqrt(np.mean([(score - predicted) ** 2 for score, predicted in self.left_out.values()])))


class Averaged(NamedTuple):
    """Effects, averaged over degrees of shrinking.

    Attributes:
        params: Of the constant, folds, seeds and ``code_terms``, (k + 18,).
        covariance: Of their errors, (k + 18, k + 18).
        noise: Variance of a training's score around them.
        df: Degrees of freedom of that variance.
    """

    params: np.ndarray
    covariance: np.ndarray
    noise: float
    df: int


def fit_effects(observations: Sequence[Observation]) -> EffectsFit:
    """Fits scores of trained networks.

    Args:
        observations: At one budget, of one recipe and data set.

    Raises:
        UserError: too few trainings, or such that an effect cannot be told; says what is missing.
    """
    data = collect_trainings(observations)
    fit = sm.OLS(*data.whiten(code_candidates(data.genotypes))).fit()
    predicted = _predict_all(data)
    return EffectsFit(
        blocks=_judge_blocks(fit, data.nuisance.shape[1]),
        places=judge_places(data),
        residual_sd=float(np.sqrt(fit.scale)),
        lack_of_fit=data.repeats.lack_of_fit,
        predictions=predicted[0],
        low=predicted[1],
        high=predicted[2],
        left_out=_leave_out(data),
        not_worse=predicted[3],
        num_runs=len(observations),
    )


def predict(observations: Sequence[Observation], genotypes: np.ndarray) -> np.ndarray:
    """Predicts the scores of genotypes (n, 6) for the mean fold and seed, (n,), as ``fit_effects`` does, and no more.

    Raises:
        UserError: as there.
    """
    data = collect_trainings(observations)
    params = average_effects(data).params
    return params[0] + code_terms(genotypes) @ params[data.nuisance.shape[1] :]


def predict_left_out(observations: Sequence[Observation]) -> dict[str, tuple[float, float]]:
    """Predicts each architecture by the others, as ``EffectsFit.left_out`` says, and no more.

    Raises:
        UserError: as ``fit_effects``.
    """
    return _leave_out(collect_trainings(observations))


def code_terms(genotypes: np.ndarray) -> np.ndarray:
    """Codes genotypes (n, 6), centred over all 4,096: IN inside, IN outside, both or none of them, (n, 18)."""
    inside, outside = (genotypes & 1) - 0.5, (genotypes >> 1) - 0.5
    return np.hstack([inside, outside, 2 * inside * outside])


def average_effects(data: Trainings) -> Averaged:
    """Fits the mixed model at each degree of shrinking of each kind of effect, and averages by what is probable.

    The degree is the share of an effect's estimate that is taken off it in a balanced experiment: noise variance over
    noise variance plus information times the effects' variance. The likelihood is the restricted one.
    """
    scores, design = data.whiten(code_terms(data.genotypes))
    first = data.nuisance.shape[1]
    gram, products = design.T @ design, design.T @ scores
    information = np.diag(gram)[first:].reshape(_NUM_KINDS, NUM_BLOCKS).mean(axis=1)
    ratios, prior = _combine_degrees()
    penalties = information * ratios
    systems = np.repeat(gram[None], len(penalties), axis=0)
    effects = first + np.arange(_NUM_KINDS * NUM_BLOCKS)
    systems[:, effects, effects] += np.repeat(penalties, NUM_BLOCKS, axis=1)
    inverses = np.linalg.inv(systems)
    params = inverses @ products
    df = len(scores) - first
    noises = np.maximum(scores @ scores - params @ products, 1e-12 * (scores @ scores)) / df
    logs = NUM_BLOCKS * np.log(penalties).sum(axis=1) - np.linalg.slogdet(systems)[1] - df * np.log(noises)
    weights = np.exp((logs - logs.max()) / 2) * prior
    weights /= weights.sum()
    mean = weights @ params
    apart = params - mean
    covariance = np.einsum("m,mij->ij", weights * noises, inverses) + np.einsum("m,mi,mj->ij", weights, apart, apart)
    return Averaged(mean, covariance, float(weights @ noises), df)


@functools.cache
def _combine_degrees() -> tuple[np.ndarray, np.ndarray]:
    """Lists all combinations of degrees of shrinking that are averaged over, the third kind also as no effect at all.

    Returns:
        Noise variance over information times the effects' variance, (combinations, 3), and what each combination's
        probability is proportional to before there are scores, (combinations,).
    """
    degrees = 1 / (1 + np.exp(-LOGITS))
    prior = degrees * (1 - degrees) * np.gradient(LOGITS)
    ratios, prior = np.append(degrees / (1 - degrees), _NO_EFFECT), np.append(prior / prior.sum(), 1.0)
    chosen = np.array(list(np.ndindex(len(LOGITS), len(LOGITS), len(LOGITS) + 1)))
    return ratios[chosen], prior[chosen].prod(axis=1)


def _judge_blocks(fit: sm.regression.linear_model.RegressionResults, first: int) -> tuple[BlockEffects, ...]:
    """Finds every candidate's effect with its interval, and which blocks are decided."""
    num_free = NUM_CANDIDATES - 1
    expand = np.vstack([np.eye(num_free), -np.ones(num_free)])
    found = []
    for block in range(NUM_BLOCKS):
        contrasts = np.zeros((NUM_CANDIDATES, len(fit.params)))
        contrasts[:, first + block * num_free : first + (block + 1) * num_free] = expand
        test = fit.t_test(contrasts)
        values, (low, high) = np.asarray(test.effect), test.conf_int(LEVEL).T
        best = int(values.argmax())
        gaps = fit.t_test(contrasts[best] - np.delete(contrasts, best, axis=0))
        others = np.delete(np.arange(NUM_CANDIDATES), best)
        close = [best, *others[np.asarray(gaps.pvalue) > LEVEL]]
        simplest = int(min(close, key=lambda k: (NUM_INS[k], -values[k])))
        p_gaps = dict(zip(others.tolist(), np.asarray(gaps.pvalue).tolist(), strict=True))
        found.append((values, low, high, np.asarray(test.pvalue), best, p_gaps, simplest))
    adjusted = adjust_holm([max(block[5].values()) for block in found])
    return tuple(
        BlockEffects(values, low, high, p, best, adjusted[i], adjusted[i] <= LEVEL,
                     tuple(k for k, p_gap in p_gaps.items() if p_gap * NUM_PAIRS <= LEVEL or adjusted[i] <= LEVEL),
                     best if adjusted[i] <= LEVEL else simplest)
        for i, (values, low, high, p, best, p_gaps, simplest) in enumerate(found)
    )  # fmt: skip


def judge_places(data: Trainings) -> tuple[Place, ...]:
    """Finds what IN is worth at each of the twelve places."""
    fit = sm.OLS(*data.whiten(code_terms(data.genotypes)[:, :NUM_PLACES])).fit()
    first = data.nuisance.shape[1]
    columns = first + np.arange(NUM_PLACES).reshape(2, NUM_BLOCKS).T.ravel()  # the model has all insides first
    values, (low, high) = fit.params[columns], fit.conf_int(LEVEL)[columns].T
    is_decided = np.array(adjust_holm(fit.pvalues[columns])) <= LEVEL
    return tuple(map(Place, values.tolist(), low.tolist(), high.tolist(), is_decided.tolist()))


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for being several, after Holm (1979)."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1))
    return np.minimum(adjusted, 1).tolist()


def _predict_all(data: Trainings) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Predicts all genotypes: means, both ends of a new training's intervals, and which are not significantly worse."""
    fit = average_effects(data)
    everything = np.array(list(np.ndindex(*[NUM_CANDIDATES] * NUM_BLOCKS)))
    rows = np.hstack([np.zeros((len(everything), data.nuisance.shape[1])), code_terms(everything)])
    rows[:, 0] = 1
    means = rows @ fit.params
    variances = np.einsum("ij,jk,ik->i", rows, fit.covariance, rows) + fit.noise
    reach = stats.t.ppf(1 - LEVEL / 2, fit.df) * np.sqrt(variances)
    return means, means - reach, means + reach, _find_not_worse(rows, means, fit.covariance, fit.df)


def _find_not_worse(rows: np.ndarray, means: np.ndarray, covariance: np.ndarray, df: float) -> np.ndarray:
    """Finds the genotypes whose lag behind the best is within what 4,095 comparisons may show by chance."""
    best = int(means.argmax())
    lags = rows[best] - rows
    errors = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", lags, covariance, lags), 0))
    distinct = errors > 1e-12 * max(errors.max(), 1e-300)
    generator = np.random.default_rng(0)
    root = np.linalg.cholesky(covariance + 1e-15 * np.trace(covariance) * np.eye(len(covariance)))
    draws = root @ generator.standard_normal((len(covariance), NUM_DRAWS))
    draws /= np.sqrt(generator.chisquare(df, NUM_DRAWS) / df)
    largest = np.max(lags[distinct] @ draws / errors[distinct, None], axis=0)
    limit = np.quantile(largest, 1 - LEVEL)
    return np.flatnonzero((means[best] - means) <= limit * errors)


def _leave_out(data: Trainings) -> dict[str, tuple[float, float]]:
    """Predicts each architecture by a model that is fitted without it; see ``EffectsFit.left_out``."""
    found, num_nuisance = {}, data.nuisance.shape[1]
    for architecture in np.unique(data.genotypes, axis=0):
        own = (data.genotypes == architecture).all(axis=1)
        rest = data.select(~own)
        if np.linalg.matrix_rank(rest.nuisance) < num_nuisance:
            continue
        params = average_effects(rest).params
        blocking = data.nuisance[own, 1:] @ params[1:num_nuisance]
        predicted = params[0] + code_terms(architecture[None]) @ params[num_nuisance:]
        score = float((data.scores[own] - blocking).mean())
        found["".join(map(str, architecture))] = score, predicted.item()
    return found
