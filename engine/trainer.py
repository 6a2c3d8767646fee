"""The one training loop: search and child training both run here.

A ``Task`` holds what differs between the two. Everything random is either a pure function of seed, epoch and position
(batches, augmentations) or a saved generator (path noise), so a run that continues from a checkpoint, also from the
middle of an epoch, computes what the uninterrupted run would have.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.tensorboard import SummaryWriter

from engine.evaluator import Prepare, Scores, format_scores
from engine.interrupt import Interrupted, StopRequest
from engine.losses import Loss
from engine.optim import freeze_all_but, unfreeze
from engine.safety import check_gradients_reach, describe_out_of_memory, stop_at_bad_step
from utils.checkpoint import save_checkpoint, save_last
from utils.distributed import Runtime
from utils.log import format_duration
from utils.seed import capture_random_states, restore_random_states

logger = logging.getLogger(__name__)

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Task:
    """What a child's training does; a search overrides what is different there."""

    kind = "child"
    repeats = 1  # optimiser steps on each batch

    def forward(self, network: nn.Module, images: Tensor) -> Any:
        """Returns what the loss takes, from images (N, 3, H, W)."""
        return network(images)

    def start_epoch(self, epoch: int) -> None:
        """Is called before the first batch of an epoch, also after resuming in its middle."""

    def after_step(self) -> None:
        """Is called after each optimiser step."""

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Writes its part of the log; returns scalars for TensorBoard."""
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

    def batches(self, epoch: int, first_batch: int = 0) -> Any:
        """Yields the epoch's batches from ``first_batch`` on."""


@dataclass(frozen=True)
class TrainSettings:
    """Numbers that steer the loop.

    Attributes:
        max_epoch: Epochs in all.
        fixbase_epoch: First epochs in which only ``open_layers`` learn.
        open_layers: Names of the model's direct children.
        print_freq: Steps between two lines in the log.
        eval_freq: Epochs between two evaluations, −1 for only after the last.
        start_eval: First epoch that is evaluated, from 0.
        save_every_min: Minutes between two saves inside an epoch.
        keep_checkpoints: How many of the newest checkpoints stay.
        amp: ``off``, ``bf16`` or ``fp16``.
        clip_grad_norm: Largest total gradient norm, 0 for any.
    """

    max_epoch: int
    fixbase_epoch: int = 0
    open_layers: Sequence[str] = ("classifier",)
    print_freq: int = 20
    eval_freq: int = -1
    start_eval: int = 0
    save_every_min: float = 30.0
    keep_checkpoints: int = 2
    amp: str = "off"
    clip_grad_norm: float = 0.0


@dataclass
class Progress:
    """Where a run stands: all that is saved of the loop itself."""

    epoch: int = 0  # epochs finished
    batch: int = 0  # batches of the current epoch that are done
    loss_sum: float = 0.0  # over the steps of the current epoch
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


class Trainer:
    """Trains a model; see ``fit``.

    Args:
        model: The bare model: what is saved.
        network: The model as it is called (wrapped for parallelism, compiled).
        task: What is particular to search or child training.
        loss: Of what the task's forward pass gives, and labels.
        optimizer: Over the model's parameters.
        scheduler: Steps once an epoch.
        batches: Training batches.
        prepare: Makes images on the device from a batch.
        runtime: Device and processes.
        settings: Numbers that steer the loop.
        folder: The run's folder; checkpoints go to ``checkpoints/`` below it.
        identity: What the model is (plain values); saved, and compared on resuming.
        config: All settings, flat; saved with each checkpoint.
        evaluate: Scores the model, None for no targets.
        stop: Set when the run was asked to stop.
        writer: TensorBoard, None for none.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        network: nn.Module,
        task: Task,
        loss: Loss,
        optimizer: Optimizer,
        scheduler: LRScheduler,
        batches: TrainBatches,
        prepare: Prepare,
        runtime: Runtime,
        settings: TrainSettings,
        folder: Path,
        identity: Mapping[str, Any],
        config: Mapping[str, Any],
        evaluate: Callable[[], dict[str, Scores]] | None = None,
        stop: StopRequest | None = None,
        writer: SummaryWriter | None = None,
    ) -> None:
        self.model, self.network, self.task, self.loss = model, network, task, loss
        self.optimizer, self.scheduler = optimizer, scheduler
        self.batches, self.prepare, self.runtime, self.settings = batches, prepare, runtime, settings
        self.folder, self.identity, self.config = folder, dict(identity), dict(config)
        self.evaluate, self.stop, self.writer = evaluate, stop or StopRequest(), writer
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=settings.amp == "fp16")
        self.progress = Progress()
        self.watch = Stopwatch()
        self._last_save = time.monotonic()
        self._steps_checked = 0

    def fit(self) -> dict[str, Scores]:
        """Trains to the last epoch and returns the scores of the final evaluation ({} without one).

        Raises:
            Interrupted: a stop was asked for; everything is saved.
            UserError: the disk is full, a batch gives a loss that is not finite, or the memory is too small.
        """
        scores: dict[str, Scores] = {}
        first_epoch, started = self.progress.epoch, time.monotonic()
        for epoch in range(self.progress.epoch, self.settings.max_epoch):
            self._train_epoch(epoch)
            self.scheduler.step()
            scores = self._score(epoch)
            self._finish_epoch(epoch, scores)
            done = epoch + 1 - first_epoch
            left = (time.monotonic() - started) / done * (self.settings.max_epoch - epoch - 1)
            logger.info("epoch %d/%d done, %s left", epoch + 1, self.settings.max_epoch, format_duration(left))
        return scores

    def _train_epoch(self, epoch: int) -> None:
        fixed = epoch < self.settings.fixbase_epoch
        freeze_all_but(self.model, self.settings.open_layers) if fixed else unfreeze(self.model)
        self.task.start_epoch(epoch)
        self.watch = Stopwatch()
        first = self.progress.batch
        with contextlib.closing(self.batches.batches(epoch, first)) as batches:
            for index, batch in enumerate(batches, start=first):
                self.watch.lap("data")
                for _ in range(self.task.repeats):
                    self._step(batch)
                self.progress.batch = index + 1
                if (index + 1) % self.settings.print_freq == 0 or index + 1 == len(self.batches):
                    self._log_step(epoch, index + 1 - first)
                self._save_when_due()

    def _step(self, batch: Any) -> None:
        """One optimiser step on one batch."""
        labels = batch.pids.to(self.runtime.device, non_blocking=True)
        try:
            with self._autocast():
                output = self.task.forward(self.network, self.prepare(batch))
                loss = self.loss(output, labels)
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()
        except torch.OutOfMemoryError as error:
            raise describe_out_of_memory(self.runtime.device, len(labels)) from error
        value = float(loss.detach())
        self.watch.lap("forward, backward")
        self._check_and_clip(value, batch)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.task.after_step()
        self._count(output, labels, value)
        self.watch.lap("optimiser")

    def _check_and_clip(self, loss: float, batch: Any) -> None:
        """Stops at values that are not finite, clips gradients, checks in a run's first steps that they reach all."""
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        finite = math.isfinite(loss) and (self.scaler.is_enabled() or math.isfinite(float(norm)))
        if self.runtime.any(not finite):
            files = [self.batches.samples[i].path for i in batch.indices.tolist()]
            stop_at_bad_step(self.folder, self.runtime, loss, float(norm), files, self.state())
        if self.settings.clip_grad_norm > 0:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.settings.clip_grad_norm, norm)
        if self._steps_checked < 2:
            check_gradients_reach(self.model)
            self._steps_checked += 1

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = AMP_DTYPES.get(self.settings.amp)
        return torch.autocast(self.runtime.device.type, dtype) if dtype else contextlib.nullcontext()

    def _count(self, output: Any, labels: Tensor, loss: float) -> None:
        logits = output[0] if isinstance(output, tuple) else output
        self.progress.loss_sum += loss
        self.progress.num_correct += int((logits.detach().argmax(dim=1) == labels).sum())
        self.progress.num_seen += len(labels)
        self.progress.num_steps += 1

    def _log_step(self, epoch: int, steps_timed: int) -> None:
        progress, total = self.progress, self.watch.total()
        per_batch = total / steps_timed
        images = progress.num_seen / progress.num_steps * self.task.repeats * self.runtime.world_size / per_batch
        shares = " ".join(f"{name} {seconds / total:.0%}" for name, seconds in self.watch.seconds.items())
        memory = ""
        if self.runtime.device.type == "cuda":
            memory = f"  peak memory {torch.cuda.max_memory_allocated(self.runtime.device) / 2**30:.1f} GiB"
        logger.info(
            "epoch %d/%d batch %d/%d  loss %.4f  accuracy %.1f%%  lr %.3g  %.0f images/s (%s)%s  epoch ends in %s",
            epoch + 1, self.settings.max_epoch, progress.batch, len(self.batches),
            progress.loss_sum / progress.num_steps, 100 * progress.num_correct / progress.num_seen,
            self.optimizer.param_groups[-1]["lr"], images, shares, memory,
            format_duration(per_batch * (len(self.batches) - progress.batch)),
        )  # fmt: skip

    def _score(self, epoch: int) -> dict[str, Scores]:
        """Evaluates after this epoch if that is due."""
        done, last = epoch + 1, epoch + 1 == self.settings.max_epoch
        due = self.settings.eval_freq > 0 and done >= self.settings.start_eval and done % self.settings.eval_freq == 0
        if self.evaluate is None or not (due or last):
            return {}
        scores = self.evaluate()
        logger.info("after epoch %d:\n%s", done, format_scores(scores))
        return scores

    def _finish_epoch(self, epoch: int, scores: dict[str, Scores]) -> None:
        """Books the epoch, saves, and keeps the weights if they are the best."""
        progress = self.progress
        scalars = {
            "train/loss": progress.loss_sum / progress.num_steps,
            "train/accuracy": progress.num_correct / progress.num_seen,
            "train/lr": self.optimizer.param_groups[-1]["lr"],
            **self.task.end_epoch(epoch),
            **{f"{name}/{key}": value for name, s in scores.items() for key, value in s.as_dict().items()},
        }
        if self.writer:
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, epoch + 1)
            self.writer.flush()
        mean_mAP = sum(s.mAP for s in scores.values()) / len(scores) if scores else -1.0
        is_best = mean_mAP > progress.best
        self.progress = Progress(epoch=epoch + 1, best=max(progress.best, mean_mAP))
        self._save()
        if is_best and self.runtime.is_main:
            save_checkpoint(self.folder / "checkpoints" / "best.pt", self.state())

    def _save_when_due(self) -> None:
        """Saves inside an epoch when time or a stop signal asks for it, in all processes at the same batch."""
        late = time.monotonic() - self._last_save > 60 * self.settings.save_every_min
        if self.runtime.any(late):
            self._save()
        if self.runtime.any(self.stop.received is not None):
            self._save()
            exit_codes = self.runtime.gather(self.stop.exit_code)
            message = f"stopped; continue with: model.resume {self.folder / 'checkpoints' / 'last.pt'}"
            raise Interrupted(message, max(exit_codes))

    def _save(self) -> None:
        if self.runtime.is_main:
            save_last(self.folder / "checkpoints", self.state(), self.settings.keep_checkpoints)
        self._last_save = time.monotonic()
        self.runtime.barrier()

    def state(self) -> dict[str, Any]:
        """Returns all that continuing exactly needs, as tensors and plain values."""
        return {
            "kind": self.task.kind,
            "identity": self.identity,
            "config": self.config,
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "task": self.task.state_dict(),
            "random": capture_random_states(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores ``state()`` of a run with the same model and settings."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.task.load_state_dict(state["task"])
        self.progress = Progress(**state["progress"])
        restore_random_states(state["random"])
