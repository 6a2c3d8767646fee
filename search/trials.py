"""Trials: short trainings of real children, each an ordinary run of main.py in a folder of its own.

A trial is named by what it trains, so a folder of trials can be completed by whoever finds it: what is done is read,
what was stopped goes on from its checkpoint, what is missing is started.
"""

import json
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.history import FILE_NAME, read_history
from genotype import Genotype
from search.launcher import Launcher, Outcome
from utils.checks import Fits, are_texts, find_misfit, is_text, is_whole
from utils.errors import UserError
from utils.files import write_atomically
from utils.log import format_duration
from utils.read_file import read_json
from utils.run_folder import PLAN_NAME, TRAIN_LOG

logger = logging.getLogger(__name__)

MAIN = Path(__file__).parents[1] / "main.py"
_ROUNDING = 0.01  # scores that a finished run computes again on another machine differ by less
_SCORE = re.compile(r"(?!train/|nas/).*/(mAP|mINP|rank\d+)", re.DOTALL)  # the name of one in [0, 1]


def _is_amount(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e18


_METRICS: dict[str, Fits] = {
    "time_sec": (_is_amount, "seconds"),
    "image_passes": is_whole(0, 10**18),
    "versions": (are_texts, "versions by name"),
    "numerics": is_whole(1, 10**9),
    "machine": (is_text, "a name"),
    "targets": (
        lambda v: isinstance(v, dict) and all(isinstance(s, dict) and _is_amount(s.get("mAP")) for s in v.values()),
        "scores by target",
    ),
}  # of a finished training's metrics.json: what fits, and in words


@dataclass(frozen=True, order=True)
class Trial:
    """One training.

    Attributes:
        digits: The genotype, six digits 0–3.
        seed: Of weights, batches and augmentations.
        fold: Which cameras or source are held out.
    """

    digits: str
    seed: int
    fold: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.digits}-seed{self.seed}-fold{self.fold}"

    def command(self, recipe: Path, folder: Path, settings: Sequence[str] = ()) -> list[str]:
        """Returns the command line that trains it, or goes on with it, in its folder below ``folder``."""
        return [
            sys.executable, str(MAIN), "--config-file", str(recipe.resolve()), *settings,
            "model.genotype", self.digits, "train.seed", str(self.seed), "nas.fold", str(self.fold),
            "model.resume", "auto", "data.save_dir", str(folder.resolve() / self.name),
        ]  # fmt: skip


@dataclass(frozen=True)
class TrialResult:
    """What a finished trial has found.

    Attributes:
        trial: What was trained.
        scores: By number of epochs, then by name, such as ``{20: {"synthetic_b/mAP": 0.52, …}}``, in [0, 1].
        losses: Mean training loss of the epoch, by the same numbers of epochs.
        steps: Batches seen, by the same.
        metrics: What ``metrics.json`` holds.
    """

    trial: Trial
    scores: Mapping[int, Mapping[str, float]]
    losses: Mapping[int, float]
    steps: Mapping[int, int]
    metrics: Mapping[str, Any]


def read_trial(trial: Trial, folder: Path) -> TrialResult | None:
    """Reads a trial's result from its folder below ``folder``; None while it is not finished.

    Raises:
        UserError: the folder holds another network's results, or not all that a finished training leaves.
    """
    path = folder / trial.name / "metrics.json"
    if not path.is_file():
        return None
    metrics = read_json(path, "metrics")
    network = metrics.get("model") if isinstance(metrics, dict) else None
    if not isinstance(network, dict):
        raise UserError(f"{path} is damaged: it does not say which network it is of; move it away")
    blocks = Genotype.from_digits(trial.digits).blocks
    if network.get("genotype") != list(blocks) or metrics.get("seed") != trial.seed:
        raise UserError(f"{path} is not of genotype {trial.digits} and seed {trial.seed}; move it away")
    lines = [line for line in read_history(path.with_name(FILE_NAME)) if any(n.endswith("/mAP") for n in line)]
    if fault := _find_fault(lines, metrics):
        raise UserError(f"{path.parent} is damaged: {fault}; move it away, and it is trained anew")
    return TrialResult(
        trial,
        scores={int(line["epoch"]): _pick_scores(line) for line in lines},
        losses={int(line["epoch"]): line["train/loss"] for line in lines},
        steps={int(line["epoch"]): int(line["step"]) for line in lines},
        metrics=metrics,
    )


def _find_fault(lines: Sequence[Mapping[str, float]], metrics: Mapping[str, Any]) -> str:
    """Says why what a finished trial has left cannot be used; empty where it can."""
    if misfit := find_misfit(metrics, _METRICS):
        return f"in metrics.json {misfit}"
    if missing := _METRICS.keys() - metrics.keys() - {"numerics", "machine"}:  # which earlier runs lack
        return f"metrics.json lacks {', '.join(sorted(missing))}"
    if not any(key.startswith("peak_") and _is_amount(value) for key, value in metrics.items()):
        return "metrics.json lacks the largest memory"
    for line in lines:
        scores = [value for name, value in line.items() if _SCORE.fullmatch(name)]
        if not all(type(value) in (int, float) and 0 <= value <= 1 for value in scores):
            return f"{FILE_NAME} has a score that is none at epoch {line['epoch']}"
        if type(line.get("step")) is not int or not _is_amount(line.get("train/loss")):
            return f"{FILE_NAME} lacks the step or the loss of epoch {line['epoch']}"
    epochs = [line["epoch"] for line in lines]
    if not epochs or epochs != sorted(set(epochs)) or epochs[0] < 1:
        return f"{FILE_NAME} lacks the scores, or its epochs do not rise"
    last = [(lines[-1].get(f"{name}/mAP", math.nan), scores["mAP"]) for name, scores in metrics["targets"].items()]
    if not all(abs(one - other) < _ROUNDING for one, other in last):
        return f"the last scores in {FILE_NAME} are not those in metrics.json"
    return ""


def check_plan(folder: Path, plan: Mapping[str, Mapping[str, Any]], choice: str, free: Collection[str] = ()) -> None:
    """Checks that trainings below a folder are those of a plan; where nothing says of which, that is no fault.

    Args:
        folder: That the trainings are in or below.
        plan: What they have in common, plain values by part and name.
        choice: The setting or flag that chooses the folder, for the message.
        free: Names of values that may differ.

    Raises:
        UserError: they are not; the message shows where.
    """
    path = folder / PLAN_NAME
    if not path.is_file():
        return
    own, then = json.loads(json.dumps(plan)), read_json(path, "plan")
    if not isinstance(then, dict) or not all(isinstance(then.get(part), dict) for part in own):
        raise UserError(f"{path} is damaged: it holds no plan; choose another {choice}")
    changed = [
        f"{part}.{key}: {then[part].get(key)!r} then, {own[part].get(key)!r} now"
        for part in own
        for key in sorted(own[part].keys() | then[part].keys())
        if key not in free and then[part].get(key) != own[part].get(key)
    ]
    if changed:
        raise UserError(f"{folder} holds trainings of another plan ({'; '.join(changed)}); choose another {choice}, "
                        "or set it back")  # fmt: skip


def write_plan(folder: Path, plan: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes what trainings below a folder have in common, which comes before the first of them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PLAN_NAME, json.dumps(plan, indent=2) + "\n")


def read_trials(trials: Iterable[Trial], folder: Path) -> list[TrialResult]:
    """Reads the results of all that are finished, in the order given."""
    return [result for trial in trials if (result := read_trial(trial, folder)) is not None]


def complete_trials(
    trials: Sequence[Trial],
    folder: Path,
    make_command: Callable[[Trial, Path], list[str]],
    launch: Launcher,
    what: str,
    on_result: Callable[[list[TrialResult]], object] = lambda results: None,
) -> list[TrialResult]:
    """Trains what is not finished; a training that fails is named in the log and left out.

    Args:
        trials: What should be there.
        folder: Where it should be.
        make_command: Returns a training's command line.
        launch: Runs command lines.
        what: What the trials are, for the log.
        on_result: Is called with all results whenever there is a new one.

    Returns:
        Results of all that are finished, in the order of ``trials``.
    """
    done = {result.trial.name: result for result in read_trials(trials, folder)}
    by_name = {trial.name: trial for trial in trials}
    commands = {name: make_command(trial, folder) for name, trial in by_name.items() if name not in done}
    logger.info("%s: %d trainings, %d finished, %d begun; each has its log, %s", what, len(by_name), len(done),
                sum((folder / name).is_dir() for name in commands), folder / "*" / TRAIN_LOG)  # fmt: skip
    started, num_failed = time.monotonic(), 0
    for number, outcome in enumerate(launch(commands), 1):
        num_failed += outcome.exit_code != 0
        left = len(commands) - number
        remaining = format_duration((time.monotonic() - started) / number * left)
        logger.info("%s; %d of %d finished, %d failed, %d left: %s", describe_outcome(outcome),
                    len(by_name) - left - num_failed, len(by_name), num_failed, left, remaining)  # fmt: skip
        result = read_trial(by_name[outcome.name], folder) if outcome.exit_code == 0 else None
        if result is not None:
            done[outcome.name] = result
            on_result(list(done.values()))
    return [done[name] for name in by_name if name in done]


def describe_outcome(outcome: Outcome) -> str:
    """Says how a training ended."""
    if outcome.exit_code == 0:
        return f"{outcome.name} is trained"
    return f"{outcome.name} failed with exit code {outcome.exit_code} ({outcome.message or 'no message'})"


def _pick_scores(line: Mapping[str, float]) -> dict[str, float]:
    """Picks the scores on targets out of an epoch's numbers."""
    return {name: value for name, value in line.items() if "/" in name and name.split("/")[0] not in ("train", "nas")}
