"""The one training loop: search and child training both run here, by the step of ``engine.step``.

Everything random is either a pure function of seed, epoch and position (batches, augmentations) or a saved generator
(path noise), so a run that continues from a checkpoint, also from the middle of an epoch, computes what the
uninterrupted run would have.
"""

import contextlib
import itertools
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from engine.history import History
from engine.interrupt import StopRequest
from engine.memory import advise_batch_size, describe_memory
from engine.optim import continue_schedule
from engine.parameters import ARCHITECTURE, WEIGHTS
from engine.safety import NotFiniteError, explain_faults, report_bad_step
from engine.scores import Scores, format_scores
from engine.step import TrainStep
from engine.task import Progress, Stopwatch, TrainBatches, TrainSettings
from utils.checkpoint import save_checkpoint, save_last
from utils.checkpoint_schema import check_fits_run
from utils.distributed import Runtime
from utils.errors import UserError
from utils.log import format_duration
from utils.log import progress as show_progress
from utils.seed import capture_random_states, restore_random_states

logger = logging.getLogger(__name__)


class Trainer:
    """Trains a model; see ``fit``.

    Args:
        step: What happens with one batch; holds the model and its optimisers.
        schedulers: By the optimisers' names; each steps once per epoch.
        batches: Training batches.
        alpha_batches: Held-out batches that teach the alphas, one after each training batch; None: the same teach both.
        runtime: Device and processes.
        settings: Numbers that steer the loop.
        folder: The run's folder; checkpoints go to ``checkpoints/`` below it.
        identity: What the model is (plain values); saved, and compared on resuming.
        config: All settings, flat; saved with each checkpoint.
        images: Stands for the training images; saved, and compared on resuming.
        stop: Tells whether the run was asked to stop.
        evaluate: Scores the model; None where there is nothing to score before the training's end.
        scored_state: Weights that were scored last, by name, where those are not the model's own.
    """

    def __init__(
        self,
        *,
        step: TrainStep,
        schedulers: Mapping[str, LRScheduler],
        batches: TrainBatches,
        alpha_batches: TrainBatches | None = None,
        runtime: Runtime,
        settings: TrainSettings,
        folder: Path,
        identity: Mapping[str, Any],
        config: Mapping[str, Any],
        images: str,
        stop: StopRequest,
        evaluate: Callable[[], dict[str, Scores]] | None = None,
        scored_state: Callable[[], Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.step, self.task, self.schedulers = step, step.task, dict(schedulers)
        self.batches, self.alpha_batches = batches, alpha_batches
        self.runtime, self.settings = runtime, settings
        self.folder, self.identity, self.config, self.images = folder, dict(identity), dict(config), images
        self.stop, self.evaluate, self.scored_state = stop, evaluate, scored_state
        self.progress = Progress()
        self.watch = Stopwatch()
        self.history: History | None = None
        self._last_save = time.monotonic()
        self._started, self._seconds_before = time.monotonic(), 0.0

    @property
    def seconds(self) -> float:
        """How long the run has taken so far, over all starts, from this object's making on."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def image_passes(self) -> int:
        """How many images have passed forward and backward so far, over all processes; repeats count."""
        per_batch = self.settings.batch_size * self.task.repeats
        return self._count_steps() * per_batch * (1 if self.alpha_batches is None else 2)

    def fit(self) -> dict[str, Scores]:
        """Trains to the last epoch and returns the scores of the final evaluation ({} without one).

        Raises:
            Interrupted: a stop was asked for; everything is saved.
            UserError: the disk is full, an image is broken, a batch gives a loss that is not finite, the memory is
                too small, or a process that loads images was killed.
        """
        scores: dict[str, Scores] = {}
        first_epoch, started = self.progress.epoch, time.monotonic()
        with self.stop.held(), self._open_history() as self.history:
            for epoch in range(self.progress.epoch, self.settings.max_epoch):
                self._train_epoch(epoch)
                scores = self._score(epoch)
                self._finish_epoch(epoch, scores)
                done = epoch + 1 - first_epoch
                left = (time.monotonic() - started) / done * (self.settings.max_epoch - epoch - 1)
                logger.info("epoch %d/%d done, %s left", epoch + 1, self.settings.max_epoch, format_duration(left))
        return scores

    def _open_history(self) -> contextlib.AbstractContextManager[History | None]:
        """Opens the file of the run's numbers, in the one process that writes."""
        if not self.runtime.is_main:
            return contextlib.nullcontext()
        return History(self.folder, self.progress.epoch, self._count_steps())

    def _count_steps(self) -> int:
        """Counts the batches that are done, over all epochs."""
        return self.progress.epoch * len(self.batches) + self.progress.batch

    def _train_epoch(self, epoch: int) -> None:
        self.step.open_layers(self.settings.open_layers if epoch < self.settings.fixbase_epoch else None)
        self.task.start_epoch(epoch)
        self.watch = Stopwatch()
        first = self.progress.batch
        with (
            contextlib.closing(self.batches.batches(epoch, first)) as batches,  # type: ignore[type-var]
            contextlib.closing(self._iterate_alpha_batches()) as alpha_batches,  # type: ignore[type-var]
        ):
            indices = range(first, len(self.batches))
            for index in show_progress(indices, len(indices), f"epoch {epoch + 1}", in_log=False):
                self._learn(self._next_batch(batches))
                if self.alpha_batches is not None:
                    self._learn(self._next_batch(alpha_batches), ARCHITECTURE)
                self.progress.batch = index + 1
                if (index + 1) % self.settings.print_freq == 0 or index + 1 == len(self.batches):
                    self._log_step(epoch, index + 1 - first)

    def _iterate_alpha_batches(self) -> Iterator[Any]:
        """Yields held-out batches from where the run is, epoch after epoch of them; nothing where there are none."""
        if self.alpha_batches is None:
            return
        epoch, first = divmod(self._count_steps(), len(self.alpha_batches))
        for number in itertools.count(epoch):
            with contextlib.closing(self.alpha_batches.batches(number, first)) as batches:  # type: ignore[type-var]
                yield from batches
            first = 0

    def _learn(self, batch: Any, learning: str = WEIGHTS) -> None:
        """Takes the steps on one batch; adds up what training batches gave.

        Raises:
            UserError: a loss or gradient that is not finite, or too little memory.
        """
        advice = advise_batch_size(self.runtime, len(batch.pids), self.step.amp, self.step.device_batch)
        for _ in range(self.task.repeats):
            try:
                with explain_faults(self.runtime, advice):
                    loss, num_correct, num_images = self.step.run(batch, self.watch, learning)
            except NotFiniteError as error:
                source = self.batches if learning == WEIGHTS or self.alpha_batches is None else self.alpha_batches
                files = [str(source.samples[i].path) for i in batch.indices.tolist()]
                report_bad_step(error, self.folder, self.runtime, files, self.state())
            if learning != WEIGHTS:
                continue
            self.progress.loss_sum += loss
            self.progress.num_correct += num_correct
            self.progress.num_seen += num_images
            self.progress.num_steps += 1

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

    def _log_step(self, epoch: int, batches_timed: int) -> None:
        """Logs loss and accuracy of this process's share of the images, and the speed of all: each counts once."""
        progress, total, learning = self.progress, self.watch.total(), self._summarise()
        per_batch = total / batches_timed
        images = progress.num_seen / progress.num_steps * self.runtime.world_size / per_batch
        shares = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in self.watch.seconds.items())
        logger.info(
            "epoch %d/%d batch %d/%d  loss %.4f  accuracy %.1f%%  lr %.3g  %.0f images/s (%s)  %s  epoch ends in %s, "
            "training in %s",
            epoch + 1, self.settings.max_epoch, progress.batch, len(self.batches), learning["train/loss"],
            100 * learning["train/accuracy"], learning["train/lr"], images, shares, describe_memory(self.runtime),
            format_duration(per_batch * (len(self.batches) - progress.batch)),
            format_duration(per_batch * (self.settings.max_epoch * len(self.batches) - self._count_steps())),
        )  # fmt: skip
        if self.history is not None:
            self.history.write_step(learning, self._count_steps())

    def _summarise(self) -> dict[str, float]:
        """Returns the epoch's loss and accuracy so far, of this process's share of the images, and its rate."""
        return {
            "train/loss": self.progress.loss_sum / self.progress.num_steps,
            "train/accuracy": self.progress.num_correct / self.progress.num_seen,
            "train/lr": self._learning_rate,
        }

    @property
    def _learning_rate(self) -> float:
        """The weights' learning rate; of layers with rates of their own the last group's."""
        return float(next(iter(self.step.optimizers.values())).param_groups[-1]["lr"])

    def _score(self, epoch: int) -> dict[str, Scores]:
        """Evaluates after this epoch if that is due, the epoch's work saved before; a stop signal then acts at once."""
        done, last = epoch + 1, epoch + 1 == self.settings.max_epoch
        due = self.settings.eval_freq > 0 and done >= self.settings.start_eval and done % self.settings.eval_freq == 0
        if self.evaluate is None or not (due or last or done in self.settings.eval_epochs):
            return {}
        self._pause()
        self._save()
        with self.stop.released(), explain_faults(self.runtime, "lower test.batch_size"):
            scores = self.evaluate()
        if not last:  # the run's report shows those
            logger.info("after epoch %d, %s:\n%s", done, self.task.scored, format_scores(scores))
        return scores

    def _finish_epoch(self, epoch: int, scores: dict[str, Scores]) -> None:
        """Books the epoch with all its numbers, keeps the weights if they are the best, and saves."""
        numbers = {
            **self._summarise(),
            **self.task.end_epoch(epoch),
            **{f"{name}/{key}": value for name, s in scores.items() for key, value in s.as_dict().items()},
        }
        if self.history is not None:  # before last.pt: what a kill after this line repeats is written anew
            self.history.write_epoch(numbers, epoch + 1, self._count_steps())
        with warnings.catch_warnings():  # a run that continues after an epoch's last batch steps no optimiser before
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            for scheduler in self.schedulers.values():
                scheduler.step()
        judges = [scores[self.settings.best_by]] if self.settings.best_by in scores else list(scores.values())
        mean_mAP = sum(s.mAP for s in judges) / len(judges) if judges else -1.0
        is_best = mean_mAP > self.progress.best
        self.progress = Progress(epoch=epoch + 1, best=max(self.progress.best, mean_mAP))
        if is_best and self.runtime.is_main:  # before last.pt: a kill between the two repeats the epoch's evaluation
            save_checkpoint(self.folder / "checkpoints" / "best.pt", self._best_state())
        self._save()

    def _save(self) -> None:
        if self.runtime.is_main:
            save_last(self.folder / "checkpoints", self.state(), self.settings.keep_checkpoints)
        self.runtime.barrier()
        self._last_save = time.monotonic()
        self.watch.lap("saving")

    def _best_state(self) -> dict[str, Any]:
        """Returns what ``best.pt`` keeps: all of it, or where others' weights were scored those weights alone."""
        if self.scored_state is None:
            return self.state()
        described = {key: value for key, value in self.state().items() if key in ("kind", "identity", "config")}
        return {**described, "model": dict(self.scored_state())}

    def state(self) -> dict[str, Any]:
        """Returns all that continuing exactly needs, as tensors and plain values."""
        return {
            "kind": self.task.kind,
            "identity": self.identity,
            "config": self.config,
            "images": self.images,
            "seconds": self.seconds,
            "progress": asdict(self.progress),
            "schedulers": {name: scheduler.state_dict() for name, scheduler in self.schedulers.items()},
            "random": capture_random_states(),
            **self.step.state_dict(),
        }

    def check_state(self, state: Mapping[str, Any], origin: str) -> None:
        """Checks that ``load_state`` can restore a checkpoint of sound form; ``origin`` names it in messages.

        Raises:
            UserError: names the first part that does not fit this run.
        """
        average = {} if self.step.average is None else {"average": self.step.average}
        check_fits_run(
            state,
            origin,
            kind=self.task.kind,
            modules={"model": self.step.model, **average},
            optimizers=self.step.optimizers,
            task=self.task.state_dict(),
            num_batches=len(self.batches) if state["images"] == self.images else None,
        )

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores ``state()`` of a run with the same model and settings; on other images its epoch starts anew."""
        self.step.load_state_dict(state)
        for name, scheduler in self.schedulers.items():
            continue_schedule(scheduler, state["schedulers"][name])
        self.progress = Progress(**state["progress"])
        self._seconds_before = float(state.get("seconds", 0.0))
        if state["images"] != self.images:
            self.progress = Progress(epoch=self.progress.epoch, best=self.progress.best)
            logger.warning("the training images are not those of the saved run; epoch %d starts anew with them",
                           self.progress.epoch + 1)  # fmt: skip
        restore_random_states(state["random"])
