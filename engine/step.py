"""One training step: forward, loss, backward, checks, clipping, optimisers. The loop around it is in ``trainer``."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from engine.evaluator import Prepare
from engine.losses import Loss
from engine.parameters import WEIGHTS, freeze_all_but, unfreeze
from engine.parts import add_gradients, split
from engine.safety import GradientCheck, NotFiniteError, update_scale
from engine.task import Stopwatch, Task
from utils.distributed import Runtime

SMALLEST_SCALE = 2.0**-10  # of the loss under fp16: gradients that overflow even so are not finite at all
STEPS_CHECKED = 2  # after layers began to learn, for gradients that reach them all


class StepResult(NamedTuple):
    """What a step found on this process's share of the batch."""

    loss: float
    num_correct: int
    num_images: int


class TrainStep:
    """Lets a model learn from one batch; see ``run``.

    Args:
        model: The bare model, on the device: what is saved.
        wrap: Makes the model as it is called (in mixed precision, parallel, compiled); again when other layers learn.
        task: What is particular to search or child training.
        loss: Of what the task's forward pass gives, and labels.
        optimizers: By the name of what they let learn; together over all parameters, each in one of them.
        prepare: Makes images on the device from a batch.
        runtime: Device and processes.
        amp: ``off``, ``bf16`` or ``fp16``.
        clip_grad_norm: Largest total gradient norm, 0 for any.
        ema_decay: Per step, of the weights' moving average; 0: no average is kept.
        device_batch: Images that pass a device at a time; 0: its whole share of the batch.
        compares_images: Whether the loss compares images with each other (see ``engine.parts.add_gradients``).

    Attributes:
        average: The model with the moving average of its weights, and the model's own batch-norm statistics.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        wrap: Callable[[], nn.Module],
        task: Task,
        loss: Loss,
        optimizers: Mapping[str, Optimizer],
        prepare: Prepare,
        runtime: Runtime,
        amp: str = "off",
        clip_grad_norm: float = 0.0,
        ema_decay: float = 0.0,
        device_batch: int = 0,
        compares_images: bool = False,
    ) -> None:
        self.model, self.wrap, self.task, self.loss = model, wrap, task, loss
        self.optimizers, self.prepare, self.runtime = dict(optimizers), prepare, runtime
        self.amp, self.clip_grad_norm = amp, clip_grad_norm
        self.device_batch, self.compares_images = device_batch, compares_images
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=amp == "fp16")
        self.average: AveragedModel | None = None
        if ema_decay > 0:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))
        self._network = model
        self._open: Sequence[str] | None = ()  # layers that learn, None: all; (): the model is not wrapped yet
        self._gradients: dict[str, GradientCheck] = {}

    def open_layers(self, names: Sequence[str] | None) -> None:
        """Lets only the model's direct children of these names learn; None: all of them."""
        unfreeze(self.model) if names is None else freeze_all_but(self.model, names)
        if names != self._open:
            self._network, self._open = self.wrap(), names
            self._gradients = {
                name: GradientCheck(STEPS_CHECKED, quiet=not self.runtime.is_main) for name in self.optimizers
            }

    def run(self, batch: Any, watch: Stopwatch, learning: str = WEIGHTS) -> StepResult:
        """Does one step on one batch.

        Args:
            batch: Images and labels.
            watch: Books where the time goes.
            learning: Name of the optimiser that steps; parameters of the others keep their values.

        Raises:
            NotFiniteError: the loss or a gradient is not finite, in any process; nothing was learnt.
            RuntimeError: a gradient misses a parameter that it must reach, which is a defect.
        """
        labels, images = batch.pids.to(self.runtime.device, non_blocking=True), self.prepare(batch)
        num_parts = len(labels) // (self.device_batch * self.runtime.replicas) if self.device_batch else 1
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        with self._holding_others(learning):
            parts = split(images, labels, self.task.draw(num_parts), num_parts)
            found = add_gradients(self._network, self.loss, parts, self.scaler.scale, self.compares_images)
        value, correct = found.tolist()  # one wait for the device
        watch.lap("forward, backward")
        self._check_and_clip(value, learning)
        self.scaler.step(self.optimizers[learning])
        update_scale(self.scaler, self.runtime)
        self.task.after_step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        watch.lap("optimiser")
        return StepResult(value, int(correct), len(labels))

    @contextlib.contextmanager
    def _holding_others(self, learning: str) -> Iterator[None]:
        """Inside of it parameters of other optimisers take no gradients: those would be computed for nothing."""
        others = self._others_parameters(learning)
        held = [p for p in self.model.parameters() if p.requires_grad and id(p) in others]
        for parameter in held:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in held:
                parameter.requires_grad_(True)

    def _others_parameters(self, learning: str) -> set[int]:
        """Returns the ids of the parameters that other optimisers let learn."""
        others = (optimizer for name, optimizer in self.optimizers.items() if name != learning)
        return {id(p) for optimizer in others for group in optimizer.param_groups for p in group["params"]}

    def _check_and_clip(self, loss: float, learning: str) -> None:
        """Stops at values that are not finite, clips gradients, checks in the first steps that they reach all.

        Under fp16 gradients may overflow: the scaler then leaves the step out and lowers its scale.
        """
        self.scaler.unscale_(self.optimizers[learning])
        norm = nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        may_overflow = self.scaler.is_enabled() and self.scaler.get_scale() > SMALLEST_SCALE
        finite = math.isfinite(loss) and (may_overflow or math.isfinite(float(norm)))
        if self.runtime.any([not finite])[0]:
            raise NotFiniteError(loss, float(norm))
        if self.clip_grad_norm > 0:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.clip_grad_norm, norm)
        if learning in self._gradients:
            others = self._others_parameters(learning)
            names = {name for name, p in self.model.named_parameters() if id(p) not in others}
            self._gradients[learning].look(self.model, lambda name: name in names and self.task.must_learn(name))

    def state_dict(self) -> dict[str, Any]:
        """Returns all that continuing exactly needs, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "task": self.task.state_dict(),
            **({} if self.average is None else {"average": self.average.state_dict()}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict()``, which may hold more."""
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.scaler.load_state_dict(state["scaler"])
        self.task.load_state_dict(state["task"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
