"""What a step will need of a device's memory, counted on two images before the first batch, and how many then fit."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.memory import measure_free_memory
from engine.mixed_precision import AMP_DTYPES, MixedPrecision
from engine.safety import explain_faults
from engine.step import TrainStep
from utils.batch_norm import hold_statistics
from utils.distributed import Runtime
from utils.errors import UserError

SPARED = 0.15  # of what is free: gaps between tensors, and what libraries take for themselves
_TRIAL = 2  # images, the fewest that batch norms take
_LEAST = "candidates"  # the setting of train.recompute that needs the least memory
_ADVICE = "lower data.height and data.width, or model.width"


class Footprint(NamedTuple):
    """Bytes on one device: ``fixed`` for gradients and Adam's moments, ``per_image`` of those that pass at a time."""

    fixed: int
    per_image: int

    def of(self, num_images: int) -> int:
        """Returns the bytes that a step needs with ``num_images`` on the device at a time."""
        return self.fixed + self.per_image * num_images


class Forecast(NamedTuple):
    """What is known of a step's memory before the first batch.

    Attributes:
        device_batch: The images that pass a device at a time; 0: its whole share.
        text: What a step needs, what is free, and what would fit if that does not.
        fits: Whether it fits, as far as is known.
    """

    device_batch: int
    text: str
    fits: bool


def build_forecast(cfg: Any, runtime: Runtime, step: TrainStep, saved: int | None = None) -> Forecast:
    """Builds the forecast of a run, the same in every process; ``train.device_batch`` -1 is chosen here.

    Args:
        cfg: The config.
        runtime: Device and processes; every process must call this.
        step: Built, not yet run.
        saved: ``device_batch`` of the run that is continued, which -1 then means; None: a new run.

    Raises:
        UserError: -1, and nothing fits or what is free is not known.
    """

    def measure() -> Footprint:
        with explain_faults(runtime, _ADVICE):
            return measure_footprint(step, cfg.data.height, cfg.data.width)

    def measure_recomputed() -> Footprint:
        model: Any = step.model
        model.choose_recomputed(_LEAST)
        need = measure()
        model.choose_recomputed(cfg.train.recompute)
        return need

    found = runtime.gather(measure_free_memory(runtime))
    free = None if None in found else min(found)
    wanted = cfg.train.device_batch if saved is None or cfg.train.device_batch != -1 else saved
    share = -(-cfg.train.batch_size // (runtime.world_size * runtime.replicas))
    may_recompute = cfg.train.recompute != _LEAST and not cfg.train.compile
    return forecast(runtime.share(measure()), share, wanted, free, measure_recomputed if may_recompute else None)


def forecast(
    need: Footprint,
    share: int,
    device_batch: int,
    free: int | None,
    measure_recomputed: Callable[[], Footprint] | None = None,
) -> Forecast:
    """Compares what a step needs with what is free.

    Args:
        need: On one device.
        share: Images of a step on one device.
        device_batch: As set; -1: the largest divisor of ``share`` that fits, as 0 if that is all of it.
        free: Bytes, None where that is not known.
        measure_recomputed: Finds what a step would need under ``train.recompute candidates``, where it is not set.

    Raises:
        UserError: -1, and nothing fits or ``free`` is not known.
    """
    if free is None:
        if device_batch == -1:
            raise UserError("train.device_batch -1: how much memory is free cannot be found out here; set a number")
        return Forecast(device_batch, _say_need(need, device_batch or share), True)
    room = int(free * (1 - SPARED))
    if device_batch == -1 and (largest := _find_largest(need, share, room)):
        device_batch = 0 if largest == share else largest
    num_images = 2 if device_batch == -1 else device_batch or share
    text = f"{_say_need(need, num_images)}, {_in_gib(free)} are free"
    if need.of(num_images) <= room:
        return Forecast(device_batch, text, True)
    text += f", which may not be enough; {_find_fix(need, share, num_images, room, measure_recomputed)}"
    if device_batch == -1:
        raise UserError(f"train.device_batch -1: {text}")
    return Forecast(device_batch, text, False)


def _find_fix(
    need: Footprint, share: int, num_images: int, room: int, measure_recomputed: Callable[[], Footprint] | None
) -> str:
    """Says which settings would let a step fit."""
    fixes = []
    if fitting := _find_largest(need, share, room):
        fixes.append(f"train.device_batch {fitting} needs {_in_gib(need.of(fitting))}")
    if measure_recomputed is not None:
        less = measure_recomputed()
        if less.of(num_images) <= room:
            fixes.append(f"train.recompute {_LEAST} needs {_in_gib(less.of(num_images))}")
        elif (number := _find_largest(less, share, room)) > fitting:
            fixes.append(f"with train.recompute {_LEAST} train.device_batch {number} needs {_in_gib(less.of(number))}")
    return ", ".join(fixes) or _ADVICE


def _find_largest(need: Footprint, share: int, room: int) -> int:
    """Returns the most images at a time, a divisor of ``share``, that fit into ``room`` bytes; 0: not even two."""
    return max((n for n in range(2, share + 1) if share % n == 0 and need.of(n) <= room), default=0)


def _say_need(need: Footprint, num_images: int) -> str:
    return f"a step needs about {_in_gib(need.of(num_images))} of a device's memory for {num_images} images at a time"


def _in_gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.3g} GiB"


def measure_footprint(step: TrainStep, height: int, width: int) -> Footprint:
    """Counts what a step needs beside the weights, by forward and backward passes of a few images.

    Nothing changes: no weight, no running statistics, no generator. A compiled network may need less.

    Args:
        step: Built, not yet run.
        height: Of the images, px.
        width: The same.
    """
    network = MixedPrecision(step.model, AMP_DTYPES[step.amp]) if step.amp in AMP_DTYPES else step.model
    state = step.task.state_dict()
    sample = step.task.draw()
    step.task.load_state_dict(state)
    more = () if sample is None else (sample[:1].detach(),)
    peak = _count_peak(network, step.runtime.device, (_TRIAL, 3, height, width), more)
    return Footprint(3 * sum(p.nbytes for p in step.model.parameters()), -(-peak // _TRIAL))


def _count_peak(network: nn.Module, device: torch.device, shape: tuple[int, ...], more: tuple[Tensor, ...]) -> int:
    """Returns the most bytes of tensors that live at a time in a forward and backward pass."""
    layout = torch.channels_last if _is_channels_last(network) else torch.contiguous_format
    dtype = next(network.parameters()).dtype
    more = tuple(tensor.requires_grad_(tensor.is_floating_point()) for tensor in more)
    with hold_statistics(network), LiveBytes([*network.parameters(), *network.buffers(), *more]) as live:
        output = network(torch.zeros(shape, device=device, dtype=dtype).contiguous(memory_format=layout), *more)
        torch.stack([part.sum() for part in tree_leaves(output)]).sum().backward()
    for p in network.parameters():
        p.grad = None
    return live.peak


def _is_channels_last(network: nn.Module) -> bool:
    """Whether convolutions keep their weights, and so their maps, in channels-last."""
    return any(
        p.ndim == 4 and p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous()
        for p in network.parameters()
    )


class LiveBytes(TorchDispatchMode):
    """Inside of it the memory of all new tensors is counted, each storage once.

    Args:
        others: Tensors from before, whose memory does not count.

    Attributes:
        now: Bytes that live.
        peak: The most that lived at a time.
    """

    def __init__(self, others: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet(tensor.untyped_storage() for tensor in others)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and counts what it made."""
        result = func(*args, **(kwargs or {}))
        for tensor in (result,) if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self._seen:
                self._seen.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._release, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _release(self, num_bytes: int) -> None:
        self.now -= num_bytes
