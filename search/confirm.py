"""The second round of a designed experiment: the most promising and the known architectures, trained anew."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from genotype import Genotype
from search.answer import list_digits
from search.decide_effects import get_final_score
from search.effects import LEVEL, EffectsFit
from search.trials import TrialResult
from utils.errors import UserError
from utils.log import format_table

CONFIRM_SEEDS = 3  # new trainings of each architecture
PLAIN, AIN = "000000", Genotype.named("osnet_ain").digits


@dataclass(frozen=True)
class Confirmed:
    """What the second round says of one architecture.

    Attributes:
        digits: The genotype.
        reason: Why it was trained anew.
        mean: Mean score on held-out images over the new seeds and folds.
        trainings: How many are finished.
        behind: By how much the mean is below the best's.
        half_width: Of that difference's 95 % interval, all differences together; None: too few trainings.
    """

    digits: str
    reason: str
    mean: float
    trainings: int
    behind: float
    half_width: float | None

    def as_document(self) -> dict[str, Any]:
        """Returns it as plain values."""
        return asdict(self)


def choose_for_confirmation(fit: EffectsFit, first: Sequence[TrialResult], number: int) -> dict[str, str]:
    """Chooses what is trained anew: best predicted, best seen, simplest not worse, plain, published; then next best.

    Returns:
        Reasons by digits, ``number`` of them.
    """
    names = list_digits()
    folds = {result.trial.fold for result in first}
    levels = {fold: np.mean([get_final_score(r) for r in first if r.trial.fold == fold]) for fold in folds}
    best_seen = max(first, key=lambda result: get_final_score(result) - levels[result.trial.fold]).trial.digits
    simplest = "".join(str(block.chosen) for block in fit.blocks)
    order = np.argsort(-fit.predictions, kind="stable")
    wanted = [
        (names[int(order[0])], "best predicted"),
        (best_seen, "best of its fold in the first round"),
        (simplest, "simplest that is not worse, block by block"),
        (PLAIN, "plain"),
        (AIN, "OSNet-AIN"),
        *((names[int(i)], "next best predicted") for i in order[1:]),
    ]
    chosen: dict[str, str] = {}
    for digits, reason in wanted:
        if len(chosen) < number:
            chosen.setdefault(digits, reason)
    return chosen


def compare_confirmed(chosen: Mapping[str, str], second: Sequence[TrialResult]) -> list[Confirmed]:
    """Compares architectures trained with the same new seeds and folds; the best mean comes first.

    A score is taken as the sum of its architecture's and its training's part and noise. An architecture that lost a
    training is thus judged as if it had all of them: folds differ by more than architectures do. The intervals are
    Tukey's: the best is the best of several, and every other is compared with it.

    Args:
        chosen: Reasons by digits.
        second: Finished trainings.

    Raises:
        UserError: so few are finished that some architectures have no seed in common, not even through others.
    """
    digits = sorted({result.trial.digits for result in second})
    keys = sorted({(result.trial.seed, result.trial.fold) for result in second})
    rows = np.array([digits.index(result.trial.digits) for result in second], dtype=int)
    columns = [keys.index((result.trial.seed, result.trial.fold)) for result in second]
    contrasts = np.vstack([np.eye(len(keys))[:-1, :-1], -np.ones((1, max(len(keys) - 1, 0)))])
    design = np.hstack([np.eye(len(digits))[rows], contrasts[columns]])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise UserError(f"the {len(second)} finished trainings of the second round cannot be compared; train the rest")
    inverse = np.linalg.inv(design.T @ design)
    scores = np.array([get_final_score(result) for result in second])
    means = inverse @ design.T @ scores
    df = len(scores) - design.shape[1]
    noise = np.linalg.norm(scores - design @ means) / np.sqrt(df) if df else np.nan
    order = np.argsort(-means[: len(digits)], kind="stable")
    errors = noise * np.sqrt(inverse[order, order] + inverse[order[:1], order[:1]] - 2 * inverse[order, order[:1]])
    factor = stats.studentized_range.ppf(1 - LEVEL, len(digits), df) / np.sqrt(2) if df and len(digits) > 1 else np.nan
    return [
        Confirmed(
            digits=digits[row],
            reason=chosen[digits[row]],
            mean=float(means[row]),
            trainings=int(np.count_nonzero(rows == row)),
            behind=float(means[order[0]] - means[row]),
            half_width=float(factor * error) if np.isfinite(factor) else None,
        )
        for row, error in zip(order, errors, strict=True)
    ]


def format_confirmed(table: Sequence[Confirmed]) -> str:
    """Sets the second round as a table."""
    rows = [
        (
            c.digits,
            c.reason,
            f"{c.mean:.1%}",
            c.trainings,
            f"{c.behind:.1%}" + (f" ± {c.half_width:.1%}" if c.half_width is not None and c is not table[0] else ""),
        )
        for c in table
    ]
    return format_table(("genotype", "chosen as", "held-out mAP", "trainings", "behind the best"), rows)
