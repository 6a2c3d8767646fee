"""What a run's log says at its beginning, of the run and its work, and at its end: what to do next."""

import logging
import shlex
from collections.abc import Iterable, Mapping

from engine.evaluator import EvaluationTarget
from engine.metrics import RunFacts, list_versions
from engine.task import TrainSettings
from engine.trainer import Trainer

logger = logging.getLogger(__name__)


def log_lines(lines: Iterable[str]) -> None:
    """Sends lines to the log."""
    for line in lines:
        logger.info("%s", line)


def describe_run(facts: RunFacts) -> list[str]:
    """Says what was started, in lines."""
    versions = ", ".join(f"{name} {version}" for name, version in list_versions().items())
    return [
        shlex.join(["python", *facts.command]),
        f"seed {facts.seed}, {versions}; runs of experiment {facts.experiment} differ in their seed alone",
    ]


def describe_work(trainer: Trainer | None, targets: Mapping[str, EvaluationTarget]) -> str:
    """Says how much a run has to do; without ``trainer`` it only evaluates."""
    num_tested = sum(len(target.query.samples) + len(target.gallery.samples) for target in targets.values())
    if trainer is None:
        return f"to do: features of {num_tested:,} images, and to compare them"
    num_batches, settings = len(trainer.batches), trainer.settings
    steps = num_batches * settings.max_epoch * trainer.task.repeats
    return (
        f"to do: {steps:,} steps of {settings.batch_size} images (epochs: {settings.max_epoch:,}, batches of each: "
        f"{num_batches:,}), then features of {num_tested:,} images; the first {settings.print_freq} batches tell the "
        "time"
    )


def describe_first_epochs(settings: TrainSettings, weights: str) -> str:
    """Says what learns at first, on a network that started from a file of weights, or from random ones."""
    if not settings.fixbase_epoch:
        return "all layers learn from the first epoch on"
    layers, body = ", ".join(settings.open_layers), weights or "random weights, as no model.load_weights is given"
    return (
        f"only {layers} will learn in the first {settings.fixbase_epoch} epochs (train.fixbase_epoch), on {body}; all "
        "layers after that"
    )


def log_next_steps(steps: Mapping[str, str]) -> None:
    """Ends the log with command lines to go on with, by what they do."""
    if steps:
        logger.info("next:\n%s", "\n".join(f"  {what}: {command}" for what, command in steps.items()))
