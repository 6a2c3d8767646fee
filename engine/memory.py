"""How much memory a run needs, and what would fit where that was too much."""

import math
import re
import resource

import torch

from utils.distributed import Runtime

_REQUEST = re.compile(r"Tried to allocate ([\d.]+) ([KMG])iB")
_FULL = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")  # in plain RuntimeErrors
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def is_full_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's or the machine's memory was not enough."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in _FULL)


def describe_memory(runtime: Runtime) -> str:
    """Says what this process needed at most so far: of the memory of its fullest GPU, or of the machine's."""
    if runtime.device.type != "cuda":
        return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB memory"
    peak, device = max((torch.cuda.max_memory_allocated(d), d.index) for d in list_devices(runtime))
    total = torch.cuda.get_device_properties(device).total_memory
    return f"{peak / 2**30:.1f} of {total / 2**30:.1f} GiB GPU memory"


def list_devices(runtime: Runtime) -> list[torch.device]:
    """Lists the devices that this process computes on; DataParallel takes the first GPUs."""
    if runtime.replicas == 1:
        return [runtime.device]
    return [torch.device(runtime.device.type, index) for index in range(runtime.replicas)]


def advise_batch_size(runtime: Runtime, num_images: int, amp: str, ran_before: bool, error: BaseException) -> str:
    """Names the batch of a step that the memory was too small for, and the settings that should fit.

    Memory is taken to be linear in the images above what stays between steps. The peak of a step that failed is less
    than it needs, so where none of this size ever ran, half of the images is the most that is advised.

    Args:
        runtime: Device and processes.
        num_images: Of this process in the step.
        amp: The setting ``train.amp``.
        ran_before: Whether such a step was once done.
        error: What ended the step; what the step held must be free by now.
    """
    batch_size, num_devices = num_images * runtime.world_size, runtime.world_size * runtime.replicas
    told = f"a step had {math.ceil(num_images / runtime.replicas)} images per device"
    other = ", or set train.amp bf16" if amp == "off" else ""
    if runtime.device.type != "cuda":
        return f"{told}; lower train.batch_size, now {batch_size}{other}"
    share = min(_share_that_fits(device, _find_request(error)) for device in list_devices(runtime))
    most = batch_size - num_devices if ran_before else batch_size // 2
    fits = min(int(share * batch_size), most) // num_devices * num_devices
    if fits < 2 * num_devices:  # batch norms need two on each
        return f"{told}; lower data.height and data.width or model.width{other}"
    return f"{told}; lower train.batch_size from {batch_size} to {fits}{other}"


def _share_that_fits(device: torch.device, request: int) -> float:
    """Estimates the share of a batch that fits, from what it needed before it asked for ``request`` bytes more."""
    rest = torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return (free - rest) / max(torch.cuda.max_memory_allocated(device) + request - rest, 1)


def _find_request(error: BaseException) -> int:
    match = _REQUEST.search(str(error))
    return int(float(match[1]) * _UNITS[match[2]]) if match else 0
