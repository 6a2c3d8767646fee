"""What the trainer is handed: a task, batches and numbers; and how it keeps count of progress and time."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


class Task:
    """What a child's training does; a search overrides what is different there."""

    kind = "child"
    scored = "child network"  # whose scores an evaluation gives
    repeats = 1  # optimiser steps on each batch
    reaches_all = True  # whether each step gives every learning parameter a gradient

    def must_learn(self, name: str) -> bool:
        """Whether the step that was just run must have given the parameter of this name a gradient, if it learns."""
        return True

    def draw(self, num_parts: int = 1) -> Tensor | None:
        """Draws what a step's network takes beside the images, one row for each replica and part; None: nothing."""
        return None

    def start_epoch(self, epoch: int) -> None:
        """Is called before the first batch of an epoch, also after resuming in its middle."""

    def after_step(self) -> None:
        """Is called after each optimiser step."""

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Writes its part of the log; returns its numbers by name."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold beside the model."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores ``state_dict()``."""


class TrainBatches(Protocol):
    """Training batches, a pure function of epoch and position."""

    samples: Sequence[Any]  # with a ``path`` each

    def __len__(self) -> int: ...

    def batches(self, epoch: int, first_batch: int = 0) -> Iterator[Any]:
        """Yields the epoch's batches from ``first_batch`` on."""


@dataclass(frozen=True)
class TrainSettings:
    """Numbers that steer the loop.

    Attributes:
        max_epoch: Epochs in all.
        batch_size: Images per batch over all processes.
        fixbase_epoch: First epochs in which only ``open_layers`` learn.
        open_layers: Names of the model's direct children.
        print_freq: Steps between two lines in the log.
        eval_freq: Epochs between two evaluations, −1 for only after the last.
        start_eval: First epoch that is evaluated, from 0.
        eval_epochs: Epochs to evaluate after, whatever ``eval_freq`` and ``start_eval`` say.
        save_every_min: Minutes between two saves inside an epoch.
        keep_checkpoints: How many of the newest checkpoints stay.
        best_by: Target whose mAP says which weights are the best; "": the mean over all targets.
    """

    max_epoch: int
    batch_size: int
    fixbase_epoch: int = 0
    open_layers: Sequence[str] = ("classifier",)
    print_freq: int = 20
    eval_freq: int = -1
    start_eval: int = 0
    eval_epochs: Sequence[int] = ()
    save_every_min: float = 30.0
    keep_checkpoints: int = 2
    best_by: str = ""


@dataclass
class Progress:
    """Where a run stands: all that is saved of the loop itself."""

    epoch: int = 0  # epochs finished
    batch: int = 0  # batches of the current epoch that are done
    loss_sum: float = 0.0  # over the steps of the current epoch, of this process's share of the images
    num_correct: int = 0
    num_seen: int = 0
    num_steps: int = 0
    best: float = -1.0  # best mean mAP so far


class Stopwatch:
    """Adds up where the time goes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Books the time since the last lap on ``name``."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def total(self) -> float:
        """Seconds booked so far."""
        return sum(self.seconds.values())
