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
from utils.log import format_table

PLAIN, AIN = "000000", Genotype.named("osnet_ain").digits


@dataclass(frozen=True)
class Confirmed:
    """What the second round says of one architecture.

    Attributes:
        digits: The genotype.
        reason: Why it was trained anew.
        mean: Mean score on held-out images over the new trainings.
        trainings: How many.
        behind: By how much the mean is below the best's, over the seeds that both have.
        half_width: Of that difference's 95 % interval; None: too few trainings.
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
        Reasons by digits, ``number`` of them or a few more where ``number`` is less than five.
    """
    names = list_digits()
    best_seen = max(first, key=get_final_score).trial.digits
    simplest = "".join(str(block.chosen) for block in fit.blocks)
    order = np.argsort(-fit.predictions, kind="stable")
    wanted = [
        (names[int(order[0])], "best predicted"),
        (best_seen, "best of the first round"),
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

    A score is taken as the sum of its architecture's and its training's part and noise; the noise that remains, over
    all architectures together, gives the differences' intervals.

    Args:
        chosen: Reasons by digits.
        second: Finished trainings.
    """
    digits = sorted({result.trial.digits for result in second})
    keys = sorted({(result.trial.seed, result.trial.fold) for result in second})
    scores = np.full((len(digits), len(keys)), np.nan)
    for result in second:
        scores[digits.index(result.trial.digits), keys.index((result.trial.seed, result.trial.fold))] = get_final_score(
            result
        )
    noise, df = _measure_noise(scores)
    order = np.argsort(-np.nanmean(scores, axis=1), kind="stable")
    found = []
    for row in order:
        gaps = scores[order[0]] - scores[row]
        pairs = int(np.count_nonzero(~np.isnan(gaps)))
        reach = float(stats.t.ppf(1 - LEVEL / 2, df) * noise * np.sqrt(2 / pairs)) if df and pairs else None
        found.append(
            Confirmed(
                digits[row],
                chosen[digits[row]],
                float(np.nanmean(scores[row])),
                int(np.count_nonzero(~np.isnan(scores[row]))),
                float(np.nanmean(gaps)) if pairs else float("nan"),
                reach,
            )
        )
    return found


def _measure_noise(scores: np.ndarray) -> tuple[float, int]:
    """Returns the standard deviation of what rows and columns leave over, and its degrees of freedom."""
    there = ~np.isnan(scores)
    rows, columns = np.nonzero(there)
    design = np.hstack([np.eye(scores.shape[0])[rows], np.eye(scores.shape[1])[columns][:, 1:]])
    values = scores[there]
    residuals = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    df = len(values) - int(np.linalg.matrix_rank(design))
    return (float(np.sqrt(residuals @ residuals / df)), df) if df > 0 else (float("nan"), 0)


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
