"""How much memory a run needs, and what to do where that was too much."""

import resource

import torch

from utils.distributed import Runtime

_FULL = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")  # in plain RuntimeErrors


def is_full_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's or the machine's memory was not enough."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in _FULL)


def measure_peak_memory(runtime: Runtime) -> int:
    """Returns the most bytes that a device of any process has needed so far; every process must call this.

    On GPUs what was allocated on the fullest of them, otherwise the resident memory of the largest process.
    """
    return max(runtime.gather(_measure_own_peak(runtime)[0]))


def describe_memory(runtime: Runtime) -> str:
    """Says what this process has needed so far: of the memory of its fullest GPU, or of the machine's."""
    peak, total = _measure_own_peak(runtime)
    if total is None:
        return f"{peak / 2**30:.1f} GiB memory"
    return f"{peak / 2**30:.1f} of {total / 2**30:.1f} GiB GPU memory"


def advise_batch_size(runtime: Runtime, num_images: int, amp: str) -> str:
    """Says what to do where the memory is too small for a step.

    Args:
        runtime: Device and processes.
        num_images: Of this process in the step.
        amp: The setting ``train.amp``.
    """
    per_device = -(-num_images // runtime.replicas)
    other = ", or set train.amp bf16" if amp == "off" else ""
    return (
        f"a step had {per_device} images per device; lower train.batch_size, now {num_images * runtime.world_size}"
        f"{other}"
    )


def _measure_own_peak(runtime: Runtime) -> tuple[int, int | None]:
    """Returns this process's peak in bytes and the size of what it fills, None for the machine's memory."""
    if runtime.device.type != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, None
    peak, fullest = max((torch.cuda.max_memory_allocated(device), device.index) for device in runtime.devices)
    return peak, torch.cuda.get_device_properties(fullest).total_memory
