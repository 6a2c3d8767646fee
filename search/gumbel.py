"""The paper's search: path weights drawn at a falling temperature, alphas learnt with the shared optimiser.

Source: arXiv 1910.06827, section on differentiable architecture search.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from engine.task import Task
from search.paths import GumbelSoftmax, compute_entropy
from utils.distributed import Runtime

logger = logging.getLogger(__name__)

STEPS_CHECKED = 2  # with a gradient, for alphas that it does not reach
CLEARLY_DRAWN = 1e-6  # a path weight this far from 0 and 1 has a gradient well above float32's smallest numbers


class HasAlphas(Protocol):
    """A super-network as the search sees it."""

    alphas: nn.Parameter


class GumbelSearch(Task):
    """Draws path weights for each step, follows the temperature schedule, keeps the alphas alive, reports them.

    Args:
        supernet: Holds the alphas, (L, K).
        relaxation: Draws path weights, computes probabilities, keeps the alphas where they have a gradient.
        temperature: λ by epoch.
        repeats: Steps with fresh noise on each batch (``nas.mc_iter``).
        seed: Of the path noise.
        runtime: Device and processes.
        sample_scope: ``global``: all replicas run the same sample; ``replica``: each its own.
        block_names: Names of the L blocks.
        candidate_names: Names of the K candidates.
        reaches_all: Whether each step gives weights and alphas gradients; not where held-out images teach the alphas.
    """

    kind = "search"
    scored = "derived network, BN statistics recalibrated, not retrained"

    def __init__(
        self,
        supernet: HasAlphas,
        *,
        relaxation: GumbelSoftmax,
        temperature: Callable[[int], float],
        repeats: int,
        seed: int,
        runtime: Runtime,
        sample_scope: str,
        block_names: Sequence[str],
        candidate_names: Sequence[str],
        reaches_all: bool = True,
    ) -> None:
        self.supernet, self.relaxation = supernet, relaxation
        self.temperature_of, self.repeats = temperature, repeats
        self.runtime, self.sample_scope = runtime, sample_scope
        self.block_names, self.candidate_names = block_names, candidate_names
        self.reaches_all = reaches_all
        self.generator = Generator().manual_seed(seed)
        self.temperature = temperature(0)
        self._reached: Tensor | None = None  # (L, K) bool: which alphas had a gradient in this epoch; None: no step
        self._missed: Tensor | None = None  # (L, K) bool: which had none in all steps checked so far
        self._steps_checked = 0
        self._drawn: Tensor | None = None  # (L, K) bool: which alphas' gradients the last weights let through

    def draw(self, num_parts: int = 1) -> Tensor:
        """Draws this step's path weights, (replicas, L, K), one row for each replica of this process.

        Every process draws the rows of all replicas from the same generator and keeps its own, so that the noise does
        not depend on how replicas are spread over processes, nor on whether a device stands for several of them.

        Args:
            num_parts: How many replicas each device of this process stands for, one after the other.
        """
        alphas, replicas = self.supernet.alphas, self.runtime.replicas * num_parts
        if self.sample_scope == "global":
            weights = self.relaxation.sample(alphas, self.temperature, self.generator).expand(replicas, *alphas.shape)
        else:
            rows = alphas.expand(self.runtime.world_size * replicas, *alphas.shape)
            first = self.runtime.rank * replicas
            weights = self.relaxation.sample(rows, self.temperature, self.generator)[first : first + replicas]
        if self._steps_checked < STEPS_CHECKED:
            self._drawn = ((weights > CLEARLY_DRAWN) & (weights < 1 - CLEARLY_DRAWN)).any(dim=0)
        return weights

    def start_epoch(self, epoch: int) -> None:
        """Sets the epoch's temperature."""
        self.temperature = self.temperature_of(epoch)
        self._reached = None

    @torch.no_grad()
    def after_step(self) -> None:
        """Keeps every alpha where it still has a gradient, and notes which had one.

        Raises:
            RuntimeError: names the alphas that no gradient reached in the first steps, which is a defect.
        """
        alphas = self.supernet.alphas
        if alphas.grad is not None:
            reached = alphas.grad != 0
            if self._steps_checked < STEPS_CHECKED and self._drawn is not None:
                self._check_reached(reached, self._drawn)
            self._reached = reached if self._reached is None else self._reached | reached
        self.relaxation.keep_alive(alphas)

    def _check_reached(self, reached: Tensor, drawn: Tensor) -> None:
        """Stops at alphas without a gradient in all steps checked, though weights were drawn that let one through.

        A step without any gradient at all, such as a triplet loss of 0 gives, says nothing.
        """
        if not reached.any():
            return
        missed = ~reached & drawn
        self._missed = missed if self._missed is None else self._missed & missed
        self._steps_checked += 1
        if self._steps_checked == STEPS_CHECKED and self._missed.any():
            names = [f"{self.block_names[i]} {self.candidate_names[k]}" for i, k in self._missed.nonzero().tolist()]
            raise RuntimeError(f"no gradient reaches {len(names)} alphas: {', '.join(names[:5])}")

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Logs alphas, probabilities, entropy and temperature; returns the numbers by name."""
        alphas = self.supernet.alphas.detach().cpu()
        self.runtime.check_equal(alphas, "architecture parameters")
        probabilities = self.relaxation.probabilities(alphas)
        entropy = compute_entropy(probabilities)
        lines = [f"temperature {self.temperature:.3g}, mean entropy {entropy.mean():.4f} nats"]
        numbers = {"nas/temperature": self.temperature, "nas/entropy": float(entropy.mean())}
        for i, block in enumerate(self.block_names):
            cells = [
                f"{name} {probabilities[i, k]:.3f} (α {alphas[i, k]:.3f})"
                for k, name in enumerate(self.candidate_names)
            ]
            lines.append(f"  {block}  {'  '.join(cells)}  entropy {entropy[i]:.3f}")
            numbers[f"nas/entropy/{block}"] = float(entropy[i])
            for k, name in enumerate(self.candidate_names):
                numbers[f"nas/alpha/{block}/{name}"] = float(alphas[i, k])
                numbers[f"nas/probability/{block}/{name}"] = float(probabilities[i, k])
        logger.info("%s", "\n".join(lines))
        if self.runtime.is_main:
            self._warn_of_dead(alphas)
        return numbers

    def _warn_of_dead(self, alphas: Tensor) -> None:
        """Names the candidates that are hardly drawn any more, and those that learnt nothing."""
        at_floor = self.relaxation.find_dead(alphas)
        unreached = torch.zeros_like(at_floor) if self._reached is None else ~self._reached.cpu()
        for dead, what in (
            (at_floor, f"is at the floor of {self.relaxation.floor:g}: it is hardly ever drawn"),
            (unreached, "got no gradient in this epoch: it did not learn"),
        ):
            for i, k in dead.nonzero().tolist():
                logger.warning("%s: the alpha of %s %s", self.block_names[i], self.candidate_names[k], what)

    def state_dict(self) -> dict[str, Any]:
        """Returns the noise generator's state."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the noise generator."""
        self.generator.set_state(state["generator"])
