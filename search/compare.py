"""Networks trained several times each with the same seeds: means with intervals, paired differences, and their file."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from utils.checks import Fits, find_misfit, is_text
from utils.errors import UserError
from utils.files import write_atomically
from utils.read_file import read_json

LEVEL = 0.05
FORMAT, VERSION = "osnet-comparison", 1
RANDOM = "random "  # what the labels of drawn networks begin with
RANDOM_MEAN = "mean of the random networks"
ABOUT_RANDOM_MEAN = (
    f"The {RANDOM_MEAN} is shown where all of them have the same seeds; its intervals are also over the networks "
    "(of two networks they are wide: Student's t is 12.7 then)."
)
Scores = Mapping[str, Mapping[int, Mapping[str, float]]]  # of each network, by seed, mAP on each target


class Mean(NamedTuple):
    """A mean and the half-width of its 95 % interval, NaN for a single value."""

    mean: float
    half_width: float
    num: int

    def format(self, spec: str = ".1%") -> str:
        """Writes both by a format's specification, of which the half-width takes no sign."""
        reach = "" if np.isnan(self.half_width) else f" ± {self.half_width:{spec.removeprefix('+')}}"
        return f"{self.mean:{spec}}{reach}"


@dataclass(frozen=True)
class Comparison:
    """A comparison as its file holds it.

    Attributes:
        settings: Of all trainings, by full key, those that change what is computed and are not at their defaults.
        scores: Of each network, by its label, the first the one that the others are compared with.
    """

    settings: Mapping[str, Any]
    scores: Scores

    def write(self, path: Path) -> None:
        """Writes the file.

        Raises:
            UserError: scores that are none.
        """
        document = {"settings": self.settings, "scores": self.scores}
        text = json.dumps({"format": FORMAT, "version": VERSION, **document}, indent=1) + "\n"
        if misfit := find_misfit(json.loads(text), _FIELDS):
            raise UserError(f"{path} cannot be written: {misfit}")
        write_atomically(path, text)

    @classmethod
    def read(cls, path: Path) -> "Comparison":
        """Reads the file.

        Raises:
            UserError: it is damaged, or of another format.
        """
        document = read_json(path, "comparison")
        if not isinstance(document, dict) or (document.get("format"), document.get("version")) != (FORMAT, VERSION):
            raise UserError(f"{path} is no comparison of this program's format {FORMAT} {VERSION}")
        if missing := sorted(_FIELDS.keys() - document.keys()):
            raise UserError(f"{path} lacks {', '.join(missing)}")
        if misfit := find_misfit(document, _FIELDS):
            raise UserError(f"{path} cannot be: {misfit}")
        scores = {label: {int(s): targets for s, targets in runs.items()} for label, runs in document["scores"].items()}
        return cls(document["settings"], scores)


def estimate(values: Sequence[float]) -> Mean:
    """Estimates a mean by Student's t.

    Args:
        values: At least one.
    """
    count = len(values)
    if count < 2:
        return Mean(float(values[0]), float("nan"), count)
    reach = stats.t.ppf(1 - LEVEL / 2, count - 1) * np.std(values, ddof=1) / np.sqrt(count)
    return Mean(float(np.mean(values)), float(reach), count)


def estimate_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Mean | None:
    """Estimates by how much a network's mean is above the reference's, over the seeds that both have.

    Args:
        values: Scores by seed.
        reference: The same of the other network.

    Returns:
        None without a common seed.
    """
    common = sorted(values.keys() & reference.keys())
    return estimate([values[seed] - reference[seed] for seed in common]) if common else None


def estimate_unpaired_difference(values: Sequence[float], reference: Sequence[float]) -> Mean | None:
    """Estimates by how much one mean is above another of other seeds, by Welch's t.

    Returns:
        None with fewer than two values on a side; the count is of both sides.
    """
    if min(len(values), len(reference)) < 2:
        return None
    errors = np.array([np.var(side, ddof=1) / len(side) for side in (values, reference)])
    degrees = np.array([len(values), len(reference)]) - 1
    reach = 0.0
    if errors.any():  # scipy's test warns where one side does not vary
        freedom = errors.sum() ** 2 / (errors**2 / degrees).sum()
        reach = float(stats.t.ppf(1 - LEVEL / 2, freedom) * np.sqrt(errors.sum()))
    return Mean(float(np.mean(values) - np.mean(reference)), reach, len(values) + len(reference))


def compare(scores: Scores, target: str) -> dict[str, tuple[Mean | None, Mean | None]]:
    """Compares networks on a target.

    Returns:
        Each network's mean and its difference to the first network's, None where there is none. After several drawn
        networks with the same seeds, of which the first is none, also their mean's.
    """
    by_seed = {label: {s: v[target] for s, v in runs.items() if target in v} for label, runs in scores.items()}
    first, reference = next(iter(by_seed.items()))
    found = {
        label: (estimate(list(runs.values())) if runs else None, estimate_difference(runs, reference))
        for label, runs in by_seed.items()
    }
    drawn = {label: runs for label, runs in by_seed.items() if label.startswith(RANDOM)}
    seeds = {frozenset(runs) for runs in drawn.values()}
    if len(drawn) > 1 and len(seeds) == 1 and any(seeds) and first not in drawn:
        means = {seed: float(np.mean([runs[seed] for runs in drawn.values()])) for seed in sorted(*seeds)}
        gaps = [found[label][1] for label in drawn]
        found[RANDOM_MEAN] = (
            _widen(estimate(list(means.values())), [found[label][0] for label in drawn]),
            _widen(estimate_difference(means, reference), gaps),
        )
    return found


def _widen(over_seeds: Mean | None, of_networks: Sequence[Mean | None]) -> Mean | None:
    """Adds to a mean's half-width over the seeds the one over drawn networks, as root of the sum of squares."""
    means = [interval.mean for interval in of_networks if interval is not None]
    if over_seeds is None or not means:
        return None
    half_width = float(np.hypot(over_seeds.half_width, estimate(means).half_width))
    return over_seeds._replace(half_width=half_width)


def list_targets(scores: Scores) -> list[str]:
    """Lists what the networks were tested on, in the order of the first trainings."""
    return list(dict.fromkeys(target for runs in scores.values() for values in runs.values() for target in values))


def list_comparison(scores: Scores, target: str) -> list[tuple[str, str, str, str]]:
    """Lists a target's table: of each network its label, mean, difference to the first one's and number of seeds."""
    found = compare(scores, target)
    first = next(iter(found))
    return [
        (label, mean.format() if mean else "–", "" if label == first else _format_gap(mean, gap),
         str(mean.num if mean else 0))
        for label, (mean, gap) in found.items()
    ]  # fmt: skip


def _format_gap(mean: Mean | None, gap: Mean | None) -> str:
    """Writes a difference, with the number of its seeds where it is not that of the mean."""
    if mean is None or gap is None:
        return "–"
    seeds = "" if gap.num == mean.num else f", {gap.num} common {'seed' if gap.num == 1 else 'seeds'}"
    return gap.format("+.1%") + seeds


def _is_plain(value: Any) -> bool:
    """Whether it is text that stays in its cell of a table."""
    return is_text(value) and value.isprintable() and "|" not in value and value != RANDOM_MEAN


def _is_run(seed: str, targets: Any) -> bool:
    """Whether it is the seed of a training, and scores by target."""
    if not re.fullmatch("0|[1-9][0-9]{0,18}", seed) or not isinstance(targets, dict):
        return False
    return all(map(_is_plain, targets)) and all(type(v) in (float, int) and 0 <= v <= 1 for v in targets.values())


def _are_scores(value: Any) -> bool:
    """Whether it is of each network, by seed, each target's score; at least one score."""
    if not isinstance(value, dict) or not all(map(_is_plain, value)):
        return False
    if not all(isinstance(runs, dict) for runs in value.values()):
        return False
    trainings = [(seed, targets) for runs in value.values() for seed, targets in runs.items()]
    return all(_is_run(*training) for training in trainings) and any(targets for _, targets in trainings)


def _are_settings(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_plain(f"{key} {v}") for key, v in value.items())


_FIELDS: dict[str, Fits] = {
    "settings": (_are_settings, "settings by full key"),
    "scores": (_are_scores, "scores from 0 to 1 of each network, by seed and target"),
}
