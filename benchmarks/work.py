"""What a step does, and what the machine can do: operations, bytes, kernels, seconds."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from engine.footprint import LiveBytes


@dataclass(frozen=True)
class Work:
    """What one step does.

    Attributes:
        flops: Multiplications and additions; NaN: not counted.
        traffic: Bytes that operations read and write; NaN: not counted.
        peak: The most bytes of tensors that live at a time beside those from before the step; NaN: not counted.
        num_kernels: On a GPU; 0 on a CPU.
    """

    flops: float
    traffic: float
    peak: float
    num_kernels: int


def count_work(step: Callable[[], object], device: torch.device, is_compiled: bool = False) -> Work:
    """Counts what a step does, by taking it a few times; a compiled one's operations are not seen."""
    nan = float("nan")
    flops, traffic, peak = nan, nan, nan
    if not is_compiled:
        with LiveBytes() as live:
            step()
        with Traffic() as moved, FlopCounterMode(display=False) as counter:  # which keeps tensors alive
            step()
        flops, traffic, peak = float(counter.get_total_flops()), float(moved.num_bytes), float(live.peak)
    if device.type != "cuda":
        return Work(flops, traffic, peak, 0)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        step()
        torch.cuda.synchronize()
    kernels = [event for event in profiled.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return Work(flops, traffic, float(torch.cuda.max_memory_allocated() - before), len(kernels))


class Traffic(TorchDispatchMode):
    """Inside of it the bytes are counted that operations read and write, each tensor's once for each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and counts what it touched; a view touches nothing."""
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func.namespace == "aten" and not func.name().startswith("aten::empty"):
            touched = {id(t): t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)}
            self.num_bytes += sum(t.nbytes for t in touched.values())
        return result


def measure_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Measures multiplications and additions per second: the best of a large matrix product and a 1×1 convolution."""
    size, num_images, channels = (8192, 64, 1024) if device.type == "cuda" else (2048, 16, 512)
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    maps = torch.randn(num_images, channels, 32, 32, device=device).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 1, 1, device=device).to(dtype, memory_format=torch.channels_last)
    with torch.no_grad():
        product = 2 * size**3 / _best_time(lambda: one @ other, device)
        return max(product, 2 * maps.numel() * channels / _best_time(lambda: F.conv2d(maps, weight), device))


def measure_bandwidth(device: torch.device) -> float:
    """Measures bytes read and written per second by a copy far larger than any cache."""
    source = torch.ones(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best_time(lambda: target.copy_(source), device)


def time_step(step: Callable[[], object], device: torch.device) -> float:
    """Returns the seconds of one step: on a GPU to its end, in one thread of a CPU those that the thread ran."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    is_alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if is_alone else time.perf_counter
    start = clock()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def _best_time(step: Callable[[], object], device: torch.device) -> float:
    return min(time_step(step, device) for _ in range(8))
