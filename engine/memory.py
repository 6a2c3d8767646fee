"""How much memory a run needs, and what to do where that was too much."""

import resource
from pathlib import Path

import torch

from utils.distributed import Runtime
from utils.errors import UserError

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


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


def measure_free_memory(runtime: Runtime) -> int | None:
    """Returns the bytes that this process can still take on each of its devices, None where that is not known.

    On a GPU what nobody has, or PyTorch keeps for this process; otherwise a process's part of what is available of the
    machine's memory, and under its control group's limit.
    """
    if runtime.device.type == "cuda":
        kept = (torch.cuda.memory_reserved(d) - torch.cuda.memory_allocated(d) for d in runtime.devices)
        return min(torch.cuda.mem_get_info(d)[0] + k for d, k in zip(runtime.devices, kept, strict=True))
    fields = dict(line.split(":") for line in _read_lines(PROC / "meminfo"))
    if "MemAvailable" not in fields:
        return None
    free = int(fields["MemAvailable"].split()[0]) * 1024
    for line in _read_lines(PROC / "self" / "cgroup"):  # version 2 has one: 0::/path
        group = CGROUPS / line.rpartition(":")[2].lstrip("/")
        limit, used = (_read_lines(group / f"memory.{name}") for name in ("max", "current"))
        cached = dict(row.split() for row in _read_lines(group / "memory.stat")).get("inactive_file", "0")
        if limit and used and limit[0] != "max":
            free = min(free, int(limit[0]) - int(used[0]) + int(cached))
    return max(free, 0) // runtime.local_world_size


def check_inference(runtime: Runtime, num_images: int, height: int, width: int, multiplier: float) -> None:
    """Checks that the network's largest maps fit the memory, where a system would rather end the process than say no.

    Args:
        runtime: Device and processes.
        num_images: That pass at a time.
        height: Of an image, px.
        width: Of an image, px.
        multiplier: Channel multiplier.

    Raises:
        UserError: they do not fit.
    """
    free = measure_free_memory(runtime)
    # images, and the stem's 64 channels at a quarter of their pixels, before and after a layer
    needed = 4 * num_images * height * width * round(3 + 2 * 16 * multiplier)
    if free is not None and needed > free:
        raise UserError(
            f"the memory is too small for {num_images:,} image(s) of {height}×{width} at a time: "
            f"{needed / 2**30:,.1f} GiB needed, {free / 2**30:,.1f} free; ask for smaller images or fewer at a time"
        )


def advise_batch_size(runtime: Runtime, num_images: int, amp: str, device_batch: int = 0) -> str:
    """Says what to do where the memory is too small for a step.

    Args:
        runtime: Device and processes.
        num_images: Of this process in the step.
        amp: The setting ``train.amp``.
        device_batch: How many of them passed a device at a time; 0: all of its share.
    """
    at_a_time = device_batch or -(-num_images // runtime.replicas)
    other = ", or train.amp bf16" if amp == "off" else ""
    return (
        f"a step had {at_a_time} images on a device at a time; set train.device_batch to fewer, or lower "
        f"train.batch_size, now {num_images * runtime.world_size}{other}"
    )


def _read_lines(path: Path) -> list[str]:
    """Returns a file's lines, none where it cannot be read."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _measure_own_peak(runtime: Runtime) -> tuple[int, int | None]:
    """Returns this process's peak in bytes and the size of what it fills, None for the machine's memory."""
    if runtime.device.type != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, None
    peak, fullest = max((torch.cuda.max_memory_allocated(device), device.index) for device in runtime.devices)
    return peak, torch.cuda.get_device_properties(fullest).total_memory
