"""The super-network: OSNet whose six blocks each mix all four candidates.

A search draws path weights from the architecture parameters (``sample_path_weights``), runs the super-network with
them, and in the end keeps each block's most probable candidate (``SuperNet.derive``). Drawing, mixing and derivation
are separate on purpose: the network itself is a pure function of images and path weights.

Source: arXiv 1910.06827, section on differentiable architecture search.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from genotype import BLOCK_NAMES, CANDIDATE_NAMES, Genotype
from osnet_blocks import CANDIDATES, InstanceNorm, OSBlock, OSNetBase

NUM_BLOCKS = len(BLOCK_NAMES)
NUM_CANDIDATES = len(CANDIDATE_NAMES)
_TINY = 1e-12


def sample_path_weights(
    alphas: Tensor,
    temperature: float,
    generator: Generator | None = None,
    uniform: Tensor | None = None,
) -> Tensor:
    """Draws relaxed one-hot weights over every block's candidates (Gumbel softmax).

    z = log(relu(α)) + g with Gumbel noise g = −log(−log u), u uniform in (0, 1); weights = softmax(z / λ).

    Args:
        alphas: Architecture parameters, (L, K); relu(alphas) is the unnormalised probability.
        temperature: λ > 0, unitless; near one-hot as it falls to 0.
        generator: Where the noise is drawn from (on the CPU, so that every device sees the same); default PyTorch's.
        uniform: The noise u itself, (L, K) in [0, 1), in place of a draw.

    Returns:
        (L, K), non-negative, rows sum to 1, differentiable in ``alphas``.

    Raises:
        ValueError: ``temperature`` is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if uniform is None:
        uniform = torch.rand(alphas.shape, generator=generator)
    uniform = uniform.to(alphas)
    gumbel = -torch.log(-torch.log(uniform + _TINY))
    return F.softmax((torch.log(F.relu(alphas) + _TINY) + gumbel) / temperature, dim=-1)


def argmax_path_weights(alphas: Tensor) -> Tensor:
    """Returns the one-hot path weights (L, K) of the most probable candidates: what evaluation runs with."""
    return F.one_hot(alphas.detach().argmax(dim=-1), alphas.shape[-1]).to(alphas)


def compute_probabilities(alphas: Tensor) -> Tensor:
    """Computes each candidate's probability, relu(α) over its sum in the block: (L, K), rows sum to 1."""
    weights = F.relu(alphas.detach()) + _TINY
    return weights / weights.sum(dim=-1, keepdim=True)


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


class SuperNet(OSNetBase):
    """The super-network; see ``build_supernet``.

    Attributes:
        alphas: Architecture parameters, (6, 4) float32, start at 1. Not used by ``forward``: they act through the
            path weights that are drawn from them.
    """

    def __init__(self, num_classes: int, *, width: float, loss: str) -> None:
        super().__init__(
            lambda _, c_in, c_out: MixedBlock(c_in, c_out),
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
        state: dict[str, Tensor] = {}
        for name, module in self.named_modules():
            target = _child_name(name, genotype)
            if target is None:
                continue
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            state |= {f"{target}.{key}": tensor.detach().clone() for key, tensor in own}
            channels = getattr(module, "num_channels", getattr(module, "num_features", None))
            if isinstance(module, nn.modules.batchnorm._BatchNorm | InstanceNorm) and channels is not None:
                state[f"{target}.weight"] = self.alphas.new_ones(channels)
                state[f"{target}.bias"] = self.alphas.new_zeros(channels)
        return state


def _child_name(name: str, genotype: Genotype) -> str | None:
    """Maps a super-network module's name to the child's, None for what the child lacks."""
    if not name:
        return None
    parts = name.split(".")
    if "candidates" not in parts:
        return name
    if len(parts) < 4:
        return None
    stage, block, _, candidate, *rest = parts
    chosen = getattr(genotype, stage)[int(block)]
    return ".".join([stage, block, *rest]) if CANDIDATE_NAMES[int(candidate)] == chosen else None


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
