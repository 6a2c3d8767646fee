"""What a network costs: parameters; multiply-adds, counted as published; time, measured; in all and by part.

OSNet's papers (arXiv 1905.00953, 1910.06827) count a block's gate once for each of the four streams that share it, so
their parameters are more than a checkpoint holds; ``count_parameters_at_each_use`` gives theirs.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

CLASSIFIER = "classifier"  # the layer that is not used at test time


@dataclass(frozen=True)
class Complexity:
    """Cost of one image through a network, or through a part of it.

    Attributes:
        num_parameters: Each counted once, without the classifier, which is not used at test time.
        num_madds: Multiply-adds of convolutions and linear layers, as OSNet's papers count them.
    """

    num_parameters: int
    num_madds: int

    def __str__(self) -> str:
        return f"{self.num_parameters:,} parameters without the classifier, {self.num_madds / 1e6:,.1f} M multiply-adds"


@dataclass(frozen=True)
class Latency:
    """Measured time of one forward pass over a batch, seconds; medians over the same passes.

    Attributes:
        total: Of the whole network.
        parts: Of each part, by name. Their sum differs from ``total`` a little, as medians do.
    """

    total: float
    parts: Mapping[str, float]


def count_parameters(model: nn.Module) -> int:
    """Counts all parameters but those of the layer ``classifier``."""
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith(f"{CLASSIFIER}."))


@torch.no_grad()
def count_parameters_at_each_use(model: nn.Module, images: Tensor) -> int:
    """Counts the parameters of every module as often as a forward pass in evaluation runs it, as published.

    Args:
        model: Maps ``images`` to features without its layer ``classifier``; left in the mode it was in.
        images: (N, 3, H, W), on the model's device; what they show does not matter.
    """
    count = 0

    def add(module: nn.Module, _: object) -> None:
        nonlocal count
        count += sum(p.numel() for p in module.parameters(recurse=False))

    hooks = [module.register_forward_pre_hook(add) for module in model.modules()]
    was_training = model.training
    try:
        model.eval()(images)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return count


@torch.no_grad()
def compute_complexity(model: nn.Module, height: int, width: int, extra: Sequence[Tensor] = ()) -> Complexity:
    """Runs one blank image through the model in evaluation and counts.

    Args:
        model: Maps images (1, 3, height, width), and ``extra``, to features; left in the mode it was in.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        extra: Further inputs, such as path weights.
    """
    was_training = model.training
    model.eval()
    image = next(model.parameters()).new_zeros(1, 3, height, width)
    with FlopCounterMode(display=False) as counter:
        model(image, *extra)
    model.train(was_training)
    return Complexity(count_parameters(model), counter.get_total_flops() // 2)


@torch.no_grad()
def compute_part_complexities(model: nn.Module, height: int, width: int) -> dict[str, Complexity]:
    """Counts as ``compute_complexity`` does, for each of the model's parts.

    A part is a direct child of the model, ``classifier`` left out; the parts must run one after the other, in the
    order in which the model lists them. What runs between two parts (pooling) counts for the one before.

    Args:
        model: Maps images to features; left in the mode it was in.
        height: Of the image, in pixels.
        width: Of the image, in pixels.

    Returns:
        By the part's name, in order. They add up to the whole network's.
    """
    image = next(model.parameters()).new_zeros(1, 3, height, width)
    with FlopCounterMode(display=False) as counter:
        flops = _read_at_parts(model, image, counter.get_total_flops)
    return {
        name: Complexity(count_parameters(model.get_submodule(name)), int(count) // 2) for name, count in flops.items()
    }


@torch.no_grad()
def measure_latency(model: nn.Module, images: Tensor, num_runs: int, num_warmup: int = 3) -> Latency:
    """Measures a forward pass in evaluation, and each part of it (see ``compute_part_complexities``).

    Args:
        model: On the device of ``images``; left in the mode it was in.
        images: (N, 3, H, W), normalised.
        num_runs: Passes to take the median of, at least 1.
        num_warmup: Passes before them, at least 1: the first ones reserve memory and choose algorithms.
    """

    def read_clock() -> float:
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        return time.perf_counter()

    runs = [_read_at_parts(model, images, read_clock) for _ in range(num_warmup + num_runs)][num_warmup:]
    parts = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return Latency(statistics.median(sum(run.values()) for run in runs), parts)


def _read_at_parts(model: nn.Module, images: Tensor, read: Callable[[], float]) -> dict[str, float]:
    """Runs the model in evaluation and returns by how much ``read()`` grew over each part.

    A part begins where its module is entered, or the first one of a list of modules, and ends where the next begins.
    """
    parts = {name: module for name, module in model.named_children() if name != CLASSIFIER}
    readings: list[float] = []
    hooks = [
        (module[0] if isinstance(module, nn.ModuleList) else module).register_forward_pre_hook(
            lambda *_: readings.append(read())
        )
        for module in parts.values()
    ]
    was_training = model.training
    try:
        model.eval()(images)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    readings.append(read())
    return {name: end - begin for name, begin, end in zip(parts, readings[:-1], readings[1:], strict=True)}
