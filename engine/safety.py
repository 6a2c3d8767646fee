"""What stops a run that cannot end well: values that are not finite, parameters without a gradient, full memory."""

import contextlib
import math
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from utils.checkpoint import save_checkpoint
from utils.distributed import Runtime
from utils.errors import UserError


def stop_at_bad_step(
    folder: Path, runtime: Runtime, loss: float, grad_norm: float, files: list[str], state: dict[str, Any]
) -> NoReturn:
    """Saves the bad step to ``not_finite.pt``, with the names of the batch's files under ``batch_files``, then raises.

    The state is the one before the optimiser's step, except for running statistics, which have seen the batch.

    Args:
        folder: The run's folder.
        runtime: Every process must come here.
        loss: Of this process.
        grad_norm: Total norm of the gradients.
        files: The images of this process's part of the batch.
        state: The trainer's.

    Raises:
        UserError: always.
    """
    path = folder / "checkpoints" / "not_finite.pt"
    losses, files_by_rank = zip(*runtime.gather((loss, files)), strict=True)
    if runtime.is_main:
        save_checkpoint(path, {**state, "batch_files": [file for part in files_by_rank for file in part]})
    runtime.barrier()
    shown = next((value for value in losses if not math.isfinite(value)), loss)
    progress = state["progress"]
    raise UserError(
        f"loss {shown} or gradient norm {grad_norm} is not finite in epoch {progress['epoch'] + 1}, batch "
        f"{progress['batch'] + 1}; state and batch are in {path}; try a lower train.lr, train.clip_grad_norm, or "
        "train.amp bf16 or off"
    )


def check_gradients_reach(model: nn.Module) -> None:
    """Checks after a backward pass that each parameter that should learn has a gradient.

    Raises:
        RuntimeError: names the parameters without one, which is a defect of the network or its task.
    """
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if without:
        raise RuntimeError(f"no gradient reaches {len(without)} parameters: {', '.join(without[:5])}")


@contextlib.contextmanager
def explain_faults(device: torch.device, advice: str) -> Iterator[None]:
    """Turns the machine's faults inside of the block into one line: a full memory, with ``advice``, or a lost worker.

    Raises:
        UserError: a GPU's or the machine's memory was not enough, or a process that loads images was killed.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
            raise UserError(f"the memory is too small, at most {describe_memory(device)} so far; {advice}") from error
        if "DataLoader worker" in text:
            raise UserError(
                "a process that loads images was killed, most often for want of memory; lower data.workers or "
                "train.batch_size, then continue with model.resume auto"
            ) from error
        raise


def describe_memory(device: torch.device) -> str:
    """Says what this process needed at most so far: of the GPU's memory, or of the machine's."""
    if device.type == "cuda":
        peak, total = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
        return f"{peak / 2**30:.1f} of {total / 2**30:.1f} GiB GPU memory"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB memory"
