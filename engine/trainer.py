"""The one training loop: search and child training both run here.

A ``Task`` holds what differs between the two. Everything random is either a pure function of seed, epoch and position
(batches, augmentations) or a saved generator (path noise), so a run that continues from a checkpoint, also from the
middle of an epoch, computes what the uninterrupted run would have.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from engine.evaluator import Prepare
from engine.interrupt import StopRequest
from engine.losses import Loss
from engine.memory import advise_batch_size, describe_memory
from engine.optim import freeze_all_but, unfreeze
from engine.safety import GradientCheck, explain_faults, stop_at_bad_step, update_scale
from engine.scores import Scores, format_scores
from engine.task import Progress, Stopwatch, Task, TrainBatches, TrainSettings
from utils.checkpoint import save_checkpoint, save_last
from utils.distributed import Runtime
from utils.errors import UserError
from utils.log import format_duration
from utils.log import progress as show_progress
from utils.scalars import Scalars
from utils.seed import capture_random_states, restore_random_states

logger = logging.getLogger(__name__)

SMALLEST_SCALE = 2.0**-10  # of the loss under fp16: gradients that overflow even so are not finite at all
STEPS_CHECKED = 2  # after layers began to learn, for gradients that reach them all


class Trainer:
    """Trains a model; see ``fit``.

    Args:
        model: The bare model, on the device: what is saved.
        wrap: Makes the model as it is called (in mixed precision, parallel, compiled); again when other layers learn.
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
        images: Stands for the training images; saved, and compared on resuming.
        stop: Tells whether the run was asked to stop.
        evaluate: Scores the model, None for no targets.
        writer: TensorBoard, None for none.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        wrap: Callable[[], nn.Module],
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
        images: str,
        stop: StopRequest,
        evaluate: Callable[[], dict[str, Scores]] | None = None,
        writer: Scalars | None = None,
    ) -> None:
        self.model, self.wrap, self.task, self.loss = model, wrap, task, loss
        self.optimizer, self.scheduler = optimizer, scheduler
        self.batches, self.prepare, self.runtime, self.settings = batches, prepare, runtime, settings
        self.folder, self.identity, self.config, self.images = folder, dict(identity), dict(config), images
        self.stop, self.evaluate, self.writer = stop, evaluate, writer
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=settings.amp == "fp16")
        self.progress = Progress()
        self.watch = Stopwatch()
        self.network = model
        self._fixed: bool | None = None  # None: ``network`` is not wrapped yet
        self.gradients = GradientCheck(STEPS_CHECKED, quiet=not runtime.is_main)
        self._last_save = time.monotonic()

    def fit(self) -> dict[str, Scores]:
        """Trains to the last epoch and returns the scores of the final evaluation ({} without one).

        Raises:
            Interrupted: a stop was asked for; everything is saved.
            UserError: the disk is full, an image is broken, a batch gives a loss that is not finite, the memory is
                too small, or a process that loads images was killed.
        """
        scores: dict[str, Scores] = {}
        first_epoch, started = self.progress.epoch, time.monotonic()
        with self.stop.held():
            for epoch in range(self.progress.epoch, self.settings.max_epoch):
                self._train_epoch(epoch)
                scores = self._score(epoch)
                self._finish_epoch(epoch, scores)
                done = epoch + 1 - first_epoch
                left = (time.monotonic() - started) / done * (self.settings.max_epoch - epoch - 1)
                logger.info("epoch %d/%d done, %s left", epoch + 1, self.settings.max_epoch, format_duration(left))
        return scores

    def _train_epoch(self, epoch: int) -> None:
        self._open_layers(epoch)
        self.task.start_epoch(epoch)
        self.watch = Stopwatch()
        first = self.progress.batch
        with contextlib.closing(self.batches.batches(epoch, first)) as batches:  # type: ignore[type-var]
            indices = range(first, len(self.batches))
            for index in show_progress(indices, len(indices), f"epoch {epoch + 1}", in_log=False):
                batch = self._next_batch(batches)
                advice = advise_batch_size(self.runtime, len(batch.pids), self.settings.amp)
                for _ in range(self.task.repeats):
                    with explain_faults(self.runtime, advice):
                        self._step(batch)
                self.progress.batch = index + 1
                if (index + 1) % self.settings.print_freq == 0 or index + 1 == len(self.batches):
                    self._log_step(epoch, index + 1 - first)
        if self.scheduler.last_epoch == epoch:  # else it has stepped already: saved at the epoch's end
            self.scheduler.step()

    def _open_layers(self, epoch: int) -> None:
        """Lets the layers learn that do in this epoch."""
        fixed = epoch < self.settings.fixbase_epoch
        freeze_all_but(self.model, self.settings.open_layers) if fixed else unfreeze(self.model)
        if fixed != self._fixed:
            self.network, self._fixed = self.wrap(), fixed
            self.gradients = GradientCheck(STEPS_CHECKED, quiet=not self.runtime.is_main)

    def _next_batch(self, batches: Iterator[Any]) -> Any:
        """Returns the next batch; all processes save and leave together where that fails in one."""
        batch, problem = None, None
        try:
            with explain_faults(self.runtime, "lower data.workers"):
                batch = next(batches)
        except UserError as error:
            problem = error
        self.watch.lap("data")
        self._pause(problem)
        return batch

    def _pause(self, problem: UserError | None = None) -> None:
        """Between two steps: saves when it is time; saves and leaves when a signal or a problem asks for it.

        Raises:
            Interrupted: a process was asked to stop.
            UserError: ``problem``, of this or of another process.
        """
        late = time.monotonic() - self._last_save > 60 * self.settings.save_every_min
        failed, late, stopped = self.runtime.any([problem is not None, late, self.stop.received is not None])
        if failed or late or stopped:
            self._save()
        if failed:
            told = [text for text in self.runtime.gather(str(problem or "")) if text]
            raise UserError(told[0]) from problem
        if stopped:
            raise self.stop.interrupted(max(self.runtime.gather(self.stop.exit_code)))

    def _step(self, batch: Any) -> None:
        """One optimiser step on one batch."""
        labels = batch.pids.to(self.runtime.device, non_blocking=True)
        output = self.task.forward(self.network, self.prepare(batch))
        loss = self.loss(output, labels)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        logits = output[0] if isinstance(output, tuple) else output
        num_correct = (logits.detach().argmax(dim=1) == labels).sum()
        value, correct = torch.stack([loss.detach().double(), num_correct.double()]).tolist()  # one wait for the device
        self.watch.lap("forward, backward")
        self._check_and_clip(value, batch)
        self.scaler.step(self.optimizer)
        update_scale(self.scaler, self.runtime)
        self.task.after_step()
        self.progress.loss_sum += value
        self.progress.num_correct += int(correct)
        self.progress.num_seen += len(labels)
        self.progress.num_steps += 1
        self.watch.lap("optimiser")

    def _check_and_clip(self, loss: float, batch: Any) -> None:
        """Stops at values that are not finite, clips gradients, checks in the first steps that they reach all.

        Under fp16 gradients may overflow: the scaler then leaves the step out and lowers its scale.
        """
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        may_overflow = self.scaler.is_enabled() and self.scaler.get_scale() > SMALLEST_SCALE
        finite = math.isfinite(loss) and (may_overflow or math.isfinite(float(norm)))
        if self.runtime.any([not finite])[0]:
            files = [str(self.batches.samples[i].path) for i in batch.indices.tolist()]
            stop_at_bad_step(self.folder, self.runtime, loss, float(norm), files, self.state())
        if self.settings.clip_grad_norm > 0:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.settings.clip_grad_norm, norm)
        self.gradients.look(self.model)

    def _log_step(self, epoch: int, batches_timed: int) -> None:
        """Logs loss and accuracy of this process's share of the images, and the speed of all: each counts once."""
        progress, total = self.progress, self.watch.total()
        per_batch = total / batches_timed
        images = progress.num_seen / progress.num_steps * self.runtime.world_size / per_batch
        shares = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in self.watch.seconds.items())
        logger.info(
            "epoch %d/%d batch %d/%d  loss %.4f  accuracy %.1f%%  lr %.3g  %.0f images/s (%s)  %s  epoch ends in %s",
            epoch + 1, self.settings.max_epoch, progress.batch, len(self.batches),
            progress.loss_sum / progress.num_steps, 100 * progress.num_correct / progress.num_seen,
            self.optimizer.param_groups[-1]["lr"], images, shares, describe_memory(self.runtime),
            format_duration(per_batch * (len(self.batches) - progress.batch)),
        )  # fmt: skip

    def _score(self, epoch: int) -> dict[str, Scores]:
        """Evaluates after this epoch if that is due, the epoch's work saved before; a stop signal then acts at once."""
        done, last = epoch + 1, epoch + 1 == self.settings.max_epoch
        due = self.settings.eval_freq > 0 and done >= self.settings.start_eval and done % self.settings.eval_freq == 0
        if self.evaluate is None or not (due or last):
            return {}
        self._pause()
        self._save()
        with self.stop.released(), explain_faults(self.runtime, "lower test.batch_size"):
            scores = self.evaluate()
        logger.info("after epoch %d, %s:\n%s", done, self.task.scored, format_scores(scores))
        return scores

    def _finish_epoch(self, epoch: int, scores: dict[str, Scores]) -> None:
        """Books the epoch, keeps the weights if they are the best, saves, and writes all numbers to TensorBoard."""
        scalars = self._collect_scalars(epoch, scores)
        mean_mAP = sum(s.mAP for s in scores.values()) / len(scores) if scores else -1.0
        is_best = mean_mAP > self.progress.best
        self.progress = Progress(epoch=epoch + 1, best=max(self.progress.best, mean_mAP))
        if is_best and self.runtime.is_main:  # before last.pt: a kill between the two repeats the epoch's evaluation
            save_checkpoint(self.folder / "checkpoints" / "best.pt", self.state())
        self._save()
        if self.writer is not None:
            self.writer.write(scalars, epoch + 1)

    def _collect_scalars(self, epoch: int, scores: dict[str, Scores]) -> dict[str, float]:
        """Logs what the task has to say; returns the epoch's numbers, loss and accuracy of this process's share."""
        return {
            "train/loss": self.progress.loss_sum / self.progress.num_steps,
            "train/accuracy": self.progress.num_correct / self.progress.num_seen,
            "train/lr": self.optimizer.param_groups[-1]["lr"],
            **self.task.end_epoch(epoch),
            **{f"{name}/{key}": value for name, s in scores.items() for key, value in s.as_dict().items()},
        }

    def _save(self) -> None:
        if self.runtime.is_main:
            save_last(self.folder / "checkpoints", self.state(), self.settings.keep_checkpoints)
        self.runtime.barrier()
        self._last_save = time.monotonic()
        self.watch.lap("saving")

    def state(self) -> dict[str, Any]:
        """Returns all that continuing exactly needs, as tensors and plain values."""
        return {
            "kind": self.task.kind,
            "identity": self.identity,
            "config": self.config,
            "images": self.images,
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "task": self.task.state_dict(),
            "random": capture_random_states(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores ``state()`` of a run with the same model and settings; on other images its epoch starts anew."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.task.load_state_dict(state["task"])
        self.progress = Progress(**state["progress"])
        if state["images"] != self.images:
            self.progress = Progress(epoch=self.progress.epoch, best=self.progress.best)
            logger.warning("the training images are not those of the saved run; epoch %d starts anew with them",
                           self.progress.epoch + 1)  # fmt: skip
        restore_random_states(state["random"])
