"""What stops a run that cannot end well: values that are not finite, parameters without a gradient, full memory."""

import logging
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from utils.checkpoint import save_checkpoint
from utils.distributed import Runtime
from utils.errors import UserError

logger = logging.getLogger(__name__)


def stop_at_bad_step(
    folder: Path, runtime: Runtime, loss: float, grad_norm: float, files: list[str], state: dict[str, Any]
) -> NoReturn:
    """Saves the state before the bad step with the names of the batch's files, then raises.

    Raises:
        UserError: always.
    """
    path = folder / "checkpoints" / "not_finite.pt"
    all_files = [file for files_of_rank in runtime.gather(files) for file in files_of_rank]
    if runtime.is_main:
        save_checkpoint(path, {**state, "batch_files": all_files})
    runtime.barrier()
    progress = state["progress"]
    raise UserError(
        f"loss {loss} or gradient norm {grad_norm} is not finite in epoch {progress['epoch'] + 1}, batch "
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


def describe_out_of_memory(device: torch.device, batch_size: int) -> UserError:
    """Makes the line for a GPU whose memory was not enough."""
    peak, total = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
    return UserError(
        f"GPU memory is too small: {batch_size} images a process needed more than {peak / 2**30:.1f} GiB of "
        f"{total / 2**30:.1f} GiB; lower train.batch_size, or set train.amp bf16, or use more GPUs"
    )
