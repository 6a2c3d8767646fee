"""Networks trained several times each with the same seeds: means with intervals, and paired differences."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.05


class Interval(NamedTuple):
    """A mean and the half-width of its 95 % interval, NaN for a single value."""

    mean: float
    half_width: float
    num: int

    def format(self, spec: str = ".1%") -> str:
        """Writes both by a format's specification, of which the half-width takes no sign."""
        reach = "" if np.isnan(self.half_width) else f" ± {self.half_width:{spec.removeprefix('+')}}"
        return f"{self.mean:{spec}}{reach}"


def estimate(values: Sequence[float]) -> Interval:
    """Estimates a mean by Student's t.

    Args:
        values: At least one.
    """
    count = len(values)
    if count < 2:
        return Interval(float(values[0]), float("nan"), count)
    reach = stats.t.ppf(1 - LEVEL / 2, count - 1) * np.std(values, ddof=1) / np.sqrt(count)
    return Interval(float(np.mean(values)), float(reach), count)


def estimate_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Interval | None:
    """Estimates by how much a network's mean is above the reference's, over the seeds that both have.

    Args:
        values: Scores by seed.
        reference: The same of the other network.

    Returns:
        None without a common seed.
    """
    common = sorted(values.keys() & reference.keys())
    return estimate([values[seed] - reference[seed] for seed in common]) if common else None
