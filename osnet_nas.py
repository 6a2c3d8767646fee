"""The super-network: OSNet whose six blocks each mix all four candidates.

A search draws path weights from the architecture parameters (``search.paths``), runs the super-network with them, and
in the end keeps each block's most probable candidate (``SuperNet.derive``). Drawing, mixing and derivation are separate
on purpose: the network itself is a pure function of images and path weights. There are two kinds of mixed blocks: four
separate candidates, as in the paper, or one trunk that four tails of norms share.

Source: arXiv 1910.06827, section on differentiable architecture search.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genotype import BLOCK_PATHS, CANDIDATE_NAMES, NUM_BLOCKS, NUM_CANDIDATES, STAGES, Genotype
from osnet_blocks import CANDIDATES, InstanceNorm, OSBlock, OSNetBase
from search.paths import sample_path_weights
from utils.errors import UserError
from utils.recompute import recompute
from utils.weighted_maps import weighted_sum

__all__ = ["MixedBlock", "SharedMixedBlock", "SuperNet", "build_supernet", "sample_path_weights"]

PLACEMENTS = tuple(CANDIDATES.values())
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


class _Mixture(nn.Module):
    """What both kinds of mixed blocks do with their candidates' outputs.

    Attributes:
        recomputes: Whether the backward pass computes each candidate again instead of keeping what it needs of it.
    """

    recomputes = False

    def forward(self, x: Tensor, choice: Tensor | int) -> Tensor:
        """Maps N×C_in×H×W to N×C_out×H×W; see ``mix``."""
        return self.mix_again(x, choice) if self.recomputes else self.mix(x, choice)

    def mix(self, x: Tensor, choice: Tensor | int) -> Tensor:
        """Maps N×C_in×H×W to N×C_out×H×W.

        Args:
            x: Feature maps.
            choice: The block's path weights (4,), for the sum of all outputs weighted by them; or the one candidate to
                run, 0–3.
        """
        if isinstance(choice, int):
            return self.forward_path(x, choice)
        return weighted_sum(choice, self.iterate_outputs(x))

    def mix_again(self, x: Tensor, choice: Tensor | int) -> Tensor:
        """Computes the same as ``mix``, and all of it again in the backward pass."""
        return recompute([self], self.mix, x, choice)

    def forward_path(self, x: Tensor, candidate: int) -> Tensor:
        """Computes the output of one candidate, 0–3, and no more than that takes."""
        raise NotImplementedError

    def iterate_outputs(self, x: Tensor) -> Iterator[Tensor]:
        """Yields the outputs of all candidates, each computed when it is asked for, what they share once."""
        raise NotImplementedError

    def child_state(self, candidate: int) -> dict[str, Tensor]:
        """Returns the weights of a candidate, 0–3, as the state dict of a child's block."""
        raise NotImplementedError

    def uses(self, parameter: str, candidate: int) -> bool:
        """Whether a candidate, 0–3, computes with the block's parameter of this name."""
        raise NotImplementedError


class MixedBlock(_Mixture):
    """All four candidates side by side, as in the paper."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(
            OSBlock(in_channels, out_channels, placement, affine=False) for placement in PLACEMENTS
        )

    def mix_again(self, x: Tensor, choice: Tensor | int) -> Tensor:
        """Computes the same as ``mix``; the backward pass computes one candidate after the other again."""
        if isinstance(choice, int):
            return recompute([self.candidates[choice]], self.candidates[choice], x)

        def weigh(weight: Tensor, candidate: nn.Module, x: Tensor) -> Tensor:
            return weighted_sum(weight[None], [candidate(x)])

        return sum(recompute([c], weigh, w, c, x) for w, c in zip(choice, self.candidates, strict=True))

    def forward_path(self, x: Tensor, candidate: int) -> Tensor:
        """Runs one candidate."""
        return self.candidates[candidate](x)

    def iterate_outputs(self, x: Tensor) -> Iterator[Tensor]:
        """Runs one candidate after the other."""
        return (candidate(x) for candidate in self.candidates)

    def child_state(self, candidate: int) -> dict[str, Tensor]:
        """Returns the candidate's own weights."""
        return _unit_scale_state(self.candidates[candidate])

    def uses(self, parameter: str, candidate: int) -> bool:
        """A candidate uses its own parameters."""
        return parameter.startswith(f"candidates.{candidate}.")


class SharedMixedBlock(_Mixture):
    """One trunk with four tails of norms: equal to four separate candidates with tied weights.

    A batch norm sees the same maps in every candidate that has it, so there is one of each; instance norms have neither
    weights nor statistics here.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.shared = OSBlock(in_channels, out_channels, CANDIDATES["OSBlock"], affine=False)
        self.instance_norm = InstanceNorm(out_channels, affine=False)

    def forward_path(self, x: Tensor, candidate: int) -> Tensor:
        """Runs the trunk and one tail."""
        inside, outside = PLACEMENTS[candidate]
        return self._finish(self._add(self.shared.branch(x), self.shared.downsample(x), inside), outside)

    def iterate_outputs(self, x: Tensor) -> Iterator[Tensor]:
        """Runs the trunk, then one tail after the other."""
        branch, identity = self.shared.branch(x), self.shared.downsample(x)
        sums = {inside: self._add(branch, identity, inside) for inside in (False, True)}
        return (self._finish(sums[inside], outside) for inside, outside in PLACEMENTS)

    def child_state(self, candidate: int) -> dict[str, Tensor]:
        """Returns the trunk's weights, with the statistics and the norms that the candidate has."""
        state, placement = _unit_scale_state(self.shared), PLACEMENTS[candidate]
        scale, shift = state["norm_inside.weight"], state["norm_inside.bias"]
        if placement.inside:
            state = {name: tensor for name, tensor in state.items() if not name.startswith("norm_inside.")}
            state |= {"norm_inside.weight": scale, "norm_inside.bias": shift}
        if placement.outside:
            state |= {"norm_outside.weight": scale.clone(), "norm_outside.bias": shift.clone()}
        return state

    def uses(self, parameter: str, candidate: int) -> bool:
        """All candidates use all parameters."""
        return True

    def _add(self, branch: Tensor, identity: Tensor, inside: bool) -> Tensor:
        """Adds the branch, after its last norm, to the identity."""
        norm = self.instance_norm if inside else self.shared.norm_inside
        return norm(branch) + identity

    def _finish(self, x: Tensor, outside: bool) -> Tensor:
        return F.relu(self.instance_norm(x) if outside else x)


MIXED_BLOCKS: dict[str, BlockFactory] = {"separate": MixedBlock, "shared": SharedMixedBlock}


class SuperNet(OSNetBase):
    """The super-network; see ``build_supernet``.

    Attributes:
        alphas: Architecture parameters, (6, 4) float32, start at 1. Not used by ``forward``: they act through the
            path weights that are drawn from them. A parameter, or a buffer where nothing learns them.
    """

    alphas: nn.Parameter  # as whoever learns them sees it

    def __init__(
        self, num_classes: int, *, width: float, loss: str, make_block: BlockFactory, learns_alphas: bool
    ) -> None:
        super().__init__(
            lambda _, c_in, c_out: make_block(c_in, c_out),
            num_classes,
            width=width,
            stem_norm="instance",
            affine=False,
            loss=loss,
        )
        alphas = torch.ones(NUM_BLOCKS, NUM_CANDIDATES)
        if learns_alphas:
            self.alphas = nn.Parameter(alphas)
        else:
            self.register_buffer("alphas", alphas)

    def forward(self, images: Tensor, paths: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Runs the network with the given mixture, or the given candidate alone, in each block.

        Args:
            images: N×3×H×W.
            paths: Path weights (6, 4), floating; or the six candidates to run, (6,) whole numbers 0–3, of which no
                other is computed. Also (1, 6, 4) or (1, 6), as DataParallel hands a replica its row.

        Returns:
            Logits (N×classes) in training, features (N×512, ≥ 0) in evaluation.
        """
        choices: Sequence[Tensor | int]
        if paths.is_floating_point():
            choices = list(paths.reshape(NUM_BLOCKS, NUM_CANDIDATES))
        else:
            choices = paths.reshape(NUM_BLOCKS).tolist()
        return self.output(self.embed(images, [(choice,) for choice in choices]))

    def uses(self, parameter: str, path: Sequence[int]) -> bool:
        """Whether a path, six candidates 0–3, computes with the parameter of this name."""
        for name, block, candidate in zip(BLOCK_PATHS, self.blocks, path, strict=True):
            if parameter.startswith(f"{name}."):
                return cast(_Mixture, block).uses(parameter.removeprefix(f"{name}."), candidate)
        return True

    def choose_recomputed(self, kind: str) -> None:
        """Sets what is computed again in the backward pass: ``none``, ``blocks`` or ``candidates``."""
        super().choose_recomputed("blocks" if kind == "blocks" else "none")
        for block in self.blocks:
            cast(_Mixture, block).recomputes = kind == "candidates"

    @torch.no_grad()
    def settle(self, genotype: Genotype) -> None:
        """Makes a genotype's candidates the only probable ones: what ``derive`` then returns."""
        self.alphas.copy_(F.one_hot(torch.tensor(genotype.indices), NUM_CANDIDATES))

    def derive(self) -> Genotype:
        """Returns the genotype of the most probable candidates; of equals the first in the candidate table."""
        best = self.alphas.detach().argmax(dim=-1)
        return Genotype.from_blocks([CANDIDATE_NAMES[int(k)] for k in best])

    def child_state(self, genotype: Genotype) -> dict[str, Tensor]:
        """Returns the weights of one path as a child's state dict, its norms' scale and shift at 1 and 0.

        A child with this state and the super-network with the path's one-hot weights compute the same function.
        """
        parts = {name: _unit_scale_state(part) for name, part in self.named_children() if name not in STAGES}
        for name, block, candidate in zip(BLOCK_PATHS, self.blocks, genotype.indices, strict=True):
            parts[name] = cast(_Mixture, block).child_state(candidate)
        return {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}


def build_supernet(
    num_classes: int,
    width: float = 1.0,
    loss: str = "softmax",
    candidates: str = "separate",
    *,
    learns_alphas: bool = True,
) -> SuperNet:
    """Builds a super-network with PyTorch's default initialisation, norms without scale and shift, an IN stem.

    Args:
        num_classes: Training identities, at least 1.
        width: Channel multiplier: 1.0, 0.75, 0.5 or 0.25.
        loss: ``softmax``: the network gives logits in training; ``triplet``: logits and features.
        candidates: ``separate``: four blocks in each mixed block, as in the paper; ``shared``: one trunk, four tails of
            norms.
        learns_alphas: Whether the architecture parameters are parameters.

    Raises:
        UserError: an argument outside its range.
    """
    if candidates not in MIXED_BLOCKS:
        raise UserError(f"candidates {candidates!r}: allowed are {', '.join(MIXED_BLOCKS)}")
    make_block = MIXED_BLOCKS[candidates]
    return SuperNet(num_classes, width=width, loss=loss, make_block=make_block, learns_alphas=learns_alphas)
