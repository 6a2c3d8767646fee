"""The super-network: OSNet whose six blocks each mix all four candidates.

A search draws path weights from the architecture parameters (``search.paths``), runs the super-network with them, and
in the end keeps each block's most probable candidate (``SuperNet.derive``). Drawing, mixing and derivation are separate
on purpose: the network itself is a pure function of images and path weights. A mixed block of another kind is another
class with the same ``forward`` and ``child_state``.

Source: arXiv 1910.06827, section on differentiable architecture search.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from genotype import BLOCK_NAMES, BLOCK_PATHS, CANDIDATE_NAMES, STAGES, Genotype
from osnet_blocks import CANDIDATES, InstanceNorm, OSBlock, OSNetBase
from search.paths import sample_path_weights

__all__ = ["MixedBlock", "SuperNet", "build_supernet", "sample_path_weights"]

NUM_BLOCKS = len(BLOCK_NAMES)
NUM_CANDIDATES = len(CANDIDATE_NAMES)
BlockFactory = Callable[[int, int], nn.Module]  # of the channels that come in and go out: a mixed block


def _unit_scale_state(module: nn.Module) -> dict[str, Tensor]:
    """Returns the state of a part whose norms have no scale and shift as one whose norms have them, at 1 and 0."""
    state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    reference = next(module.parameters())
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm | InstanceNorm):
            channels = part.num_channels if isinstance(part, InstanceNorm) else part.num_features
            prefix = f"{name}." if name else ""
            state[f"{prefix}weight"] = reference.new_ones(channels)
            state[f"{prefix}bias"] = reference.new_zeros(channels)
    return state


class MixedBlock(nn.Module):
    """All four candidates side by side; the output is their sum weighted by the path weights."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(
            OSBlock(in_channels, out_channels, placement, affine=False) for placement in CANDIDATES.values()
        )

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Maps N×C_in×H×W and the block's path weights (4,) to N×C_out×H×W."""
        return sum(w * candidate(x) for w, candidate in zip(weights, self.candidates, strict=True))

    def child_state(self, candidate: int) -> dict[str, Tensor]:
        """Returns the weights of a candidate, 0–3, as the state dict of a child's block."""
        return _unit_scale_state(self.candidates[candidate])


class SuperNet(OSNetBase):
    """The super-network; see ``build_supernet``.

    Attributes:
        alphas: Architecture parameters, (6, 4) float32, start at 1. Not used by ``forward``: they act through the
            path weights that are drawn from them.
    """

    def __init__(self, num_classes: int, *, width: float, loss: str, make_block: BlockFactory = MixedBlock) -> None:
        super().__init__(
            lambda _, c_in, c_out: make_block(c_in, c_out),
            num_classes,
            width=width,
            stem_norm="instance",
            affine=False,
            loss=loss,
        )
        self.alphas = nn.Parameter(torch.ones(NUM_BLOCKS, NUM_CANDIDATES))

    def forward(self, images: Tensor, path_weights: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Runs the network with the given mixture in each block.

        Args:
            images: N×3×H×W.
            path_weights: (6, 4), or (1, 6, 4) as DataParallel hands a replica its row of (replicas, 6, 4).

        Returns:
            Logits (N×classes) in training, features (N×512, ≥ 0) in evaluation.
        """
        rows = path_weights.reshape(NUM_BLOCKS, NUM_CANDIDATES)
        return self.output(self.embed(images, [(row,) for row in rows]))

    def derive(self, found: Mapping[str, Any] | None = None) -> Genotype:
        """Returns the genotype of the most probable candidates; of equals the first in the candidate table."""
        best = self.alphas.detach().argmax(dim=-1)
        return Genotype.from_blocks([CANDIDATE_NAMES[int(k)] for k in best], found)

    def child_state(self, genotype: Genotype) -> dict[str, Tensor]:
        """Returns the weights of one path as a child's state dict, its norms' scale and shift at 1 and 0.

        A child with this state and the super-network with the path's one-hot weights compute the same function.
        """
        parts = {name: _unit_scale_state(part) for name, part in self.named_children() if name not in STAGES}
        for name, block, candidate in zip(BLOCK_PATHS, self.blocks, genotype.indices, strict=True):
            parts[name] = cast(MixedBlock, block).child_state(candidate)
        return {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}


def build_supernet(num_classes: int, width: float = 1.0, loss: str = "softmax") -> SuperNet:
    """Builds a super-network with PyTorch's default initialisation, norms without scale and shift, an IN stem.

    Args:
        num_classes: Training identities, at least 1.
        width: Channel multiplier: 1.0, 0.75, 0.5 or 0.25.
        loss: ``softmax``: the network gives logits in training; ``triplet``: logits and features.

    Raises:
        UserError: an argument outside its range.
    """
    return SuperNet(num_classes, width=width, loss=loss)
