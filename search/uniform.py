"""One-shot training: every step lets one path learn, drawn uniformly; which paths are good is found out afterwards.

Source: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling" (arXiv 1904.00420).
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from engine.task import Task
from utils.distributed import Runtime


class HasPaths(Protocol):
    """A super-network as the training sees it."""

    def uses(self, parameter: str, path: Sequence[int]) -> bool:
        """Whether a path computes with the parameter of this name."""


class UniformSearch(Task):
    """Draws one candidate per block for each step; weights alone learn.

    Args:
        supernet: Runs paths of whole numbers, and says which parameters one uses.
        num_blocks: Length of a path.
        num_candidates: From which each block's is drawn.
        repeats: Steps with fresh paths on each batch (``nas.mc_iter``).
        seed: Of the paths.
        runtime: Device and processes.
        sample_scope: ``global``: all replicas run the same path; ``replica``: each its own.
    """

    kind = "search"
    scored = "found network, BN statistics recalibrated, not retrained"
    reaches_all = False

    def __init__(
        self,
        supernet: HasPaths,
        *,
        num_blocks: int,
        num_candidates: int,
        repeats: int,
        seed: int,
        runtime: Runtime,
        sample_scope: str,
    ) -> None:
        self.supernet, self.repeats = supernet, repeats
        self.num_blocks, self.num_candidates = num_blocks, num_candidates
        self.runtime, self.sample_scope = runtime, sample_scope
        self.generator = Generator().manual_seed(seed)
        self._paths: list[list[int]] = []  # that the last step ran in this process

    def draw(self, num_parts: int = 1) -> Tensor:
        """Draws this step's paths, (replicas, L) int64, one for each replica of this process.

        Every process draws the paths of all replicas from the same generator and keeps its own, so that they do not
        depend on how replicas are spread over processes, nor on whether a device stands for several of them.

        Args:
            num_parts: How many replicas each device of this process stands for, one after the other.
        """
        replicas = self.runtime.replicas * num_parts
        if self.sample_scope == "global":
            path = torch.randint(self.num_candidates, (1, self.num_blocks), generator=self.generator)
            paths = path.expand(replicas, -1)
        else:
            size = (self.runtime.world_size * replicas, self.num_blocks)
            first = self.runtime.rank * replicas
            paths = torch.randint(self.num_candidates, size, generator=self.generator)[first : first + replicas]
        self._paths = paths.tolist()
        return paths

    def must_learn(self, name: str) -> bool:
        """A gradient must reach what the last step's paths use."""
        return any(self.supernet.uses(name, path) for path in self._paths)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of what paths are drawn from."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the generator."""
        self.generator.set_state(state["generator"])
