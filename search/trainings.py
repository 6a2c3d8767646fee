"""Scores of trained networks, put together for least squares.

Folds and seeds are blocking factors (fixed: two to four levels say too little about a variance for random effects).
Trainings of one architecture share what its candidates' means do not say; where some are repeated, that share of the
variance is estimated, and least squares are generalised by it, lest repeats count as if they were other architectures.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from genotype import BLOCK_NAMES, CANDIDATE_NAMES, NUM_BLOCKS, NUM_CANDIDATES
from utils.errors import UserError

MIN_RESIDUALS = 3  # degrees of freedom that the intervals need at least
_SAME = 1e-9  # scores differ by no more than rounding
MAX_SHARE = 0.999  # of the variance that trainings of one architecture can share


class Observation(NamedTuple):
    """The score of one trained network."""

    digits: str
    fold: int
    seed: int
    score: float


class Repeats(NamedTuple):
    """What repeated trainings of architectures say.

    Attributes:
        lack_of_fit: P-value of the test that architectures differ by no more than their candidates' means; None: there
            are no repeats.
        share: Of the variance around these means, how much trainings of one architecture have in common.
        noise: Variance between trainings of one architecture; NaN: there are no repeats. Where architectures seem to
            share nothing beyond these means, all that the means leave over counts as such noise.
        df: Degrees of freedom of that variance; 0: there are no repeats.
    """

    lack_of_fit: float | None
    share: float
    noise: float
    df: int

    @property
    def is_noise_pooled(self) -> bool:
        """Whether the noise is estimated from all residuals of the candidates' means, not from the repeats alone."""
        return self.df > 0 and self.share == 0


class Trainings(NamedTuple):
    """Trained networks as the fits take them.

    Attributes:
        genotypes: Candidates, (n, 6).
        nuisance: A constant, folds and seeds, (n, k).
        scores: (n,).
        whitening: What makes their deviations from the terms independent, (n, n): V^(-1/2).
        repeats: What the whitening was made from.
    """

    genotypes: np.ndarray
    nuisance: np.ndarray
    scores: np.ndarray
    whitening: np.ndarray
    repeats: Repeats = Repeats(None, 0.0, float("nan"), 0)

    def select(self, rows: np.ndarray) -> "Trainings":
        """Keeps some rows, (n,) bool, with all trainings of an architecture or none."""
        whitening = self.whitening[np.ix_(rows, rows)]
        return Trainings(self.genotypes[rows], self.nuisance[rows], self.scores[rows], whitening, self.repeats)

    def whiten(self, terms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns scores and design of a model, ready for least squares."""
        return self.whitening @ self.scores, self.whitening @ np.hstack([self.nuisance, terms])

    def estimate_nuisance(self) -> np.ndarray:
        """Returns the parts of fold and seed in the scores, (n,), beside the candidates' means."""
        scores, design = self.whiten(code_candidates(self.genotypes))
        params = np.linalg.lstsq(design, scores, rcond=None)[0]
        return self.nuisance[:, 1:] @ params[1 : self.nuisance.shape[1]]


def collect_trainings(observations: Sequence[Observation]) -> Trainings:
    """Puts trainings together as the fits take them.

    Raises:
        UserError: too few, or such that an effect cannot be told; says what is missing.
    """
    genotypes = np.array([[int(d) for d in o.digits] for o in observations])
    nuisance, scores = _code_blocking(observations), np.array([o.score for o in observations])
    _check_identified(genotypes, nuisance)
    _check_different(nuisance, scores)
    repeats = _compare_repeats(genotypes, nuisance, scores)
    return Trainings(genotypes, nuisance, scores, make_whitening(genotypes, repeats.share), repeats)


def list_by_architecture(observations: Sequence[Observation]) -> dict[str, np.ndarray]:
    """Lists the scores of each architecture's trainings, the parts of fold and seed taken out, by its digits.

    Raises:
        UserError: too few trainings to know these parts.
    """
    return group_scores(collect_trainings(observations), observations)


def group_scores(data: Trainings, observations: Sequence[Observation]) -> dict[str, np.ndarray]:
    """Does the same where ``data`` was collected from the observations already."""
    scores = data.scores - data.estimate_nuisance()
    return {d: scores[[o.digits == d for o in observations]] for d in sorted({o.digits for o in observations})}


def code_candidates(genotypes: np.ndarray) -> np.ndarray:
    """Codes genotypes (n, 6) for one mean per candidate and block: (n, 18), sums to zero over a block's candidates."""
    contrasts = np.vstack([np.eye(NUM_CANDIDATES - 1), -np.ones(NUM_CANDIDATES - 1)])
    return np.hstack([contrasts[genotypes[:, block]] for block in range(NUM_BLOCKS)])


def make_whitening(genotypes: np.ndarray, share: float) -> np.ndarray:
    """Returns V^(-1/2) of trainings (n, 6) whose deviations correlate by ``share`` within an architecture."""
    same = (genotypes[:, None] == genotypes).all(axis=2)
    mean = same / same.sum(axis=1)
    return mean / np.sqrt(1 - share + share * same.sum(axis=1)) + (np.eye(len(genotypes)) - mean) / np.sqrt(1 - share)


def _code_blocking(observations: Sequence[Observation]) -> np.ndarray:
    """Codes a constant, folds and seeds: (n, 1 + folds − 1 + seeds − 1), so that the constant is their mean."""
    columns = [np.ones((len(observations), 1))]
    for values in ([o.fold for o in observations], [o.seed for o in observations]):
        levels, index = np.unique(values, return_inverse=True)
        contrasts = np.vstack([np.eye(len(levels) - 1), -np.ones(len(levels) - 1)])
        columns.append(contrasts[index])
    return np.hstack(columns)


def _check_identified(genotypes: np.ndarray, nuisance: np.ndarray) -> None:
    """Raises UserError where the trainings cannot tell all effects apart, and says which candidates were not tried."""
    needed = nuisance.shape[1] + NUM_BLOCKS * (NUM_CANDIDATES - 1) + MIN_RESIDUALS
    missing = [
        f"{block} {CANDIDATE_NAMES[k]}"
        for b, block in enumerate(BLOCK_NAMES)
        for k in range(NUM_CANDIDATES)
        if not np.any(genotypes[:, b] == k)
    ]
    if missing:
        raise UserError(f"no finished training has {', '.join(missing)}: the effects cannot be told; train more")
    if len(genotypes) < needed:
        raise UserError(f"{len(genotypes)} trainings are finished; the effects need at least {needed}")
    design = np.hstack([nuisance, code_candidates(genotypes)])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise UserError(
            f"the {len(genotypes)} finished trainings mix up effects of different blocks, folds or seeds; train the "
            "rest"
        )


def _check_different(nuisance: np.ndarray, scores: np.ndarray) -> None:
    """Raises UserError where all architectures score the same: what is left is rounding, of which nothing follows."""
    residuals = scores - nuisance @ np.linalg.lstsq(nuisance, scores, rcond=None)[0]
    if np.abs(residuals).max() < _SAME:
        raise UserError(
            f"all {len(scores)} finished trainings score the same, {scores.mean():.1%}, but for folds and seeds: the "
            "effects cannot be told; judge by harder images, or train for longer"
        )


def _compare_repeats(genotypes: np.ndarray, nuisance: np.ndarray, scores: np.ndarray) -> Repeats:
    """Compares what the candidates' means leave over with the spread of repeated trainings, by sums of squares.

    The noise is the smaller of both mean squares; so its mean is too small by up to a tenth, and what stands beside it
    as the best that an order can reach is rather too high. Over 2,500 simulations each of the rows of both tables, with
    architectures whose own standard deviation was 0, ½ and ¾ of the noise's, the chi-square interval held the noise in
    94 to 95 %; where it was pooled, in 95, 83 and 60 % (drawn table), 95, 90 and 80 % (real).
    """
    cells = np.unique(genotypes, axis=0, return_inverse=True)[1].ravel()
    same = np.eye(cells.max() + 1)[cells]
    by_candidates, by_cells = np.hstack([nuisance, code_candidates(genotypes)]), np.hstack([nuisance[:, 1:], same])
    (left, df_left), (pure, df_pure) = (_sum_squares(design, scores) for design in (by_candidates, by_cells))
    if df_pure < 1 or df_left <= df_pure:
        return Repeats(None, 0.0, float("nan"), 0)
    noise = max(pure / df_pure, np.finfo(float).tiny)
    q, _ = np.linalg.qr(by_candidates)
    weight = len(scores) - float(((same.T @ q) ** 2).sum())  # of the architectures' own variance in ``left``
    own = (left - noise * df_left) / weight
    p_value = float(stats.f.sf((left - pure) / (df_left - df_pure) / noise, df_left - df_pure, df_pure))
    if own <= 0:
        return Repeats(p_value, 0.0, max(left / df_left, np.finfo(float).tiny), df_left)
    return Repeats(p_value, min(own / (own + noise), MAX_SHARE), noise, df_pure)


def _sum_squares(design: np.ndarray, scores: np.ndarray) -> tuple[float, int]:
    """Returns the sum of squares that a design leaves over, and its degrees of freedom."""
    residuals = scores - design @ np.linalg.lstsq(design, scores, rcond=None)[0]
    return float(residuals @ residuals), len(scores) - int(np.linalg.matrix_rank(design))
