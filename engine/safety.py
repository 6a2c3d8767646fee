"""What stops a run that cannot end well: values that are not finite, parameters without a gradient, full memory."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from engine.memory import describe_memory
from utils.checkpoint import save_checkpoint
from utils.distributed import Runtime
from utils.errors import UserError
from utils.faults import is_full_memory, is_out_of_shared_memory, is_out_of_threads

logger = logging.getLogger(__name__)


class NotFiniteError(Exception):
    """A step whose loss or gradient is not finite, in this or another process; weights are those before the step.

    Attributes:
        loss: Of this process.
        grad_norm: Total norm of the gradients.
    """

    def __init__(self, loss: float, grad_norm: float) -> None:
        super().__init__(f"loss {loss}, gradient norm {grad_norm}")
        self.loss, self.grad_norm = loss, grad_norm


def report_bad_step(
    error: NotFiniteError, folder: Path, runtime: Runtime, files: list[str], state: dict[str, Any]
) -> NoReturn:
    """Saves the bad step to ``not_finite.pt``, with the names of the batch's files under ``batch_files``, then raises.

    The state is the one before the optimiser's step, except for running statistics, which have seen the batch.

    Args:
        error: What was found.
        folder: The run's folder.
        runtime: Every process must come here.
        files: The images of this process's part of the batch.
        state: The trainer's.

    Raises:
        UserError: always.
    """
    path = folder / "checkpoints" / "not_finite.pt"
    losses, files_by_rank = zip(*runtime.gather((error.loss, files)), strict=True)
    if runtime.is_main:
        save_checkpoint(path, {**state, "batch_files": [file for part in files_by_rank for file in part]})
    runtime.barrier()
    shown = next((value for value in losses if not math.isfinite(value)), error.loss)
    progress = state["progress"]
    raise UserError(
        f"loss {shown} or gradient norm {error.grad_norm} is not finite in epoch {progress['epoch'] + 1}, batch "
        f"{progress['batch'] + 1}; state and batch are in {path}; try a lower train.lr, train.clip_grad_norm, or "
        "train.amp bf16 or off"
    ) from error


class GradientCheck:
    """Checks in a run's first steps that a gradient reaches each parameter that should learn.

    Args:
        num_steps: How many steps are checked.
        quiet: Another process, with the same gradients, writes to the log.
    """

    def __init__(self, num_steps: int, quiet: bool = False) -> None:
        self.num_steps, self.quiet, self.num_done = num_steps, quiet, 0
        self._zero: set[str] = set()

    def look(self, model: nn.Module, must_learn: Callable[[str], bool] = lambda name: True) -> None:
        """Is called after each backward pass; names in the log the parts whose gradient was 0 in all steps.

        A zero is no error by itself: the triplet loss may be 0 or leave the classifier out, a small gate's ReLU may
        be off, a path weight may underflow. So it takes a part of several layers, such as a candidate, to be named.

        Args:
            model: With gradients.
            must_learn: Whether a parameter has to have one, by name (see ``Task.must_learn``).

        Raises:
            RuntimeError: names the parameters without a gradient, which is a defect of the network or its task.
        """
        if self.num_done == self.num_steps:
            return
        learning = {name: p.grad for name, p in model.named_parameters() if p.requires_grad and must_learn(name)}
        without = [name for name, gradient in learning.items() if gradient is None]
        if without:
            raise RuntimeError(f"no gradient reaches {len(without)} parameters: {', '.join(without[:5])}")
        zero = {name for name, gradient in learning.items() if gradient is not None and not gradient.any()}
        self._zero = zero if self.num_done == 0 else self._zero & zero
        self.num_done += 1
        if self.num_done == self.num_steps and not self.quiet and (dead := _find_parts(model, self._zero)):
            logger.warning("the gradient was 0 throughout the first %d steps in %s", self.num_steps, ", ".join(dead))


def _find_parts(model: nn.Module, names: Set[str]) -> list[str]:
    """Finds the outermost parts of several layers whose learning parameters all are among ``names``."""
    found: list[str] = []
    for part, module in model.named_modules():  # the outer before the inner
        own = {f"{part}.{n}".lstrip(".") for n, p in module.named_parameters() if p.requires_grad}
        num_layers = len({name.rpartition(".")[0] for name in own})
        if num_layers > 1 and own <= names and not any(f"{part}.".startswith(f"{outer}.") for outer in found):
            if not part:
                return ["the whole network"]
            found.append(part)
    return found


def update_scale(scaler: torch.amp.GradScaler, runtime: Runtime) -> None:
    """Adapts fp16's scale of the loss, and says so where gradients overflowed: that step was left out."""
    if not scaler.is_enabled():
        return
    before = scaler.get_scale()
    scaler.update()
    if scaler.get_scale() < before and runtime.is_main:
        logger.warning("gradients overflowed in fp16: this step is left out, the loss now scaled by %g, not %g",
                       scaler.get_scale(), before)  # fmt: skip


@contextlib.contextmanager
def explain_faults(runtime: Runtime, advice: str) -> Iterator[None]:
    """Turns the machine's faults inside of the block into one line: a full memory, with ``advice``, or a lost worker.

    Raises:
        UserError: a GPU's or the machine's memory was not enough, there was no thread, a process that loads images
            was killed, or a file or folder could not be used that nobody has looked at before.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if is_out_of_shared_memory(error):
            raise UserError(
                f"{str(error).splitlines()[0]}: processes that load images need room in shared memory (/dev/shm) and "
                "open files; make room, raise the limits (ulimit -n), or set data.workers 0"
            ) from error
        if is_full_memory(error):
            raise UserError(f"the memory is too small, at most {describe_memory(runtime)} so far; {advice}") from error
        if is_out_of_threads(error):
            raise UserError(
                "the system gives this run no further thread; raise its limits (ulimit -u, ulimit -v), or lower "
                "data.workers"
            ) from error
        if "DataLoader worker" in str(error):
            raise UserError(
                "a process that loads images was killed, most often for want of memory; lower data.workers or "
                "train.batch_size, then continue with model.resume auto"
            ) from error
        if isinstance(error, OSError) and error.filename is not None:
            raise UserError(f"cannot use {error.filename}: {error.strerror or error}") from error
        raise
