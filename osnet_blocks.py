"""The parts that the super-network and the child network are made of.

Sources: OSNet, "Omni-Scale Feature Learning for Person Re-Identification" (arXiv 1905.00953); OSNet-AIN, "Learning
Generalisable Omni-Scale Representations for Person Re-Identification" (arXiv 1910.06827). Images are N×3×H×W, RGB,
float, normalised with ImageNet's mean and standard deviation; feature maps are N×C×H×W. All layers keep the memory
layout that they are given, so a network in channels-last stays there.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genotype import STAGES
from utils.errors import UserError
from utils.instance_norm import instance_norm
from utils.recompute import recompute
from utils.weighted_maps import gated_sum

WIDTHS: dict[float, tuple[int, int, int, int]] = {  # channels of stem, conv2, conv3, conv4
    1.0: (64, 256, 384, 512),
    0.75: (48, 192, 288, 384),
    0.5: (32, 128, 192, 256),
    0.25: (16, 64, 96, 128),
}
FEATURE_DIM = 512


class NormPlacement(NamedTuple):
    """Where a block has instance normalisation (IN)."""

    inside: bool  # in the residual branch, in place of its last batch norm
    outside: bool  # after the residual sum, before the ReLU


CANDIDATES: dict[str, NormPlacement] = {
    "OSBlock": NormPlacement(inside=False, outside=False),
    "OSBlockINv1": NormPlacement(inside=True, outside=False),
    "OSBlockINv2": NormPlacement(inside=False, outside=True),
    "OSBlockINv3": NormPlacement(inside=True, outside=True),
}


class InstanceNorm(nn.Module):
    """Instance normalisation: each channel of each image to mean 0, variance 1 over its pixels; keeps the layout."""

    def __init__(self, num_channels: int, affine: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalises ``x`` (N×C×H×W)."""
        return instance_norm(x, self.weight, self.bias, self.eps)


def make_norm(kind: str, num_channels: int, affine: bool) -> nn.Module:
    """Makes a ``batch`` or ``instance`` norm over N×C×H×W maps.

    Raises:
        UserError: another kind.
    """
    if kind == "batch":
        return nn.BatchNorm2d(num_channels, affine=affine)
    if kind == "instance":
        return InstanceNorm(num_channels, affine=affine)
    raise UserError(f"norm {kind!r}: allowed are batch, instance")


def rectify(x: Tensor, norm: nn.Module) -> Tensor:
    """Computes ReLU(x), in the memory of ``x``, which is the output of ``norm``, where nothing else needs it."""
    return F.relu(x) if _keeps_output(norm) else F.relu_(x)


def add(x: Tensor, other: Tensor, norm: nn.Module) -> Tensor:
    """Computes x + other, in the memory of ``x``, which is the output of ``norm``, where nothing else needs it."""
    return x + other if _keeps_output(norm) else x.add_(other)


def _keeps_output(norm: nn.Module) -> bool:
    """Whether a norm's gradient is computed from its output."""
    return isinstance(norm, InstanceNorm) and norm.weight is None


class ConvNormReLU(nn.Module):
    """Convolution without bias → norm → ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        norm: str = "batch",
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = make_norm(norm, out_channels, affine)

    def forward(self, x: Tensor) -> Tensor:
        """Maps N×C_in×H×W to N×C_out×H'×W'."""
        return rectify(self.norm(self.conv(x)), self.norm)


class LightConv(nn.Module):
    """The paper's "Lite 3×3": 1×1 convolution, then depthwise 3×3, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, affine: bool) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.depthwise = nn.Conv2d(out_channels, out_channels, 3, padding=1, groups=out_channels, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Maps N×C_in×H×W to N×C_out×H×W."""
        return rectify(self.norm(self.depthwise(self.pointwise(x))), self.norm)


class ChannelGate(nn.Module):
    """The aggregation gate: weighs a stream's channels by what the stream sees in the whole image."""

    def __init__(self, num_channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(num_channels, num_channels // reduction, 1)
        self.fc2 = nn.Conv2d(num_channels // reduction, num_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scales the channels of ``x`` (N×C×H×W) by factors in (0, 1)."""
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class OSBlock(nn.Module):
    """An omni-scale block: four streams with receptive fields 3, 5, 7, 9, gated, summed, added to the identity.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; a quarter of them inside the streams.
        placement: Where it has instance normalisation.
        affine: Whether its norms learn a scale and a shift (a child's do, a super-network's don't).
    """

    def __init__(self, in_channels: int, out_channels: int, placement: NormPlacement, *, affine: bool = True) -> None:
        super().__init__()
        mid = out_channels // 4
        self.placement = placement
        self.reduce = ConvNormReLU(in_channels, mid, affine=affine)
        self.streams = nn.ModuleList(
            nn.Sequential(*(LightConv(mid, mid, affine=affine) for _ in range(depth))) for depth in (1, 2, 3, 4)
        )
        self.gate = ChannelGate(mid)
        self.expand = nn.Conv2d(mid, out_channels, 1, bias=False)
        self.norm_inside = make_norm("instance" if placement.inside else "batch", out_channels, affine)
        self.downsample: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels, affine=affine)
            )
        self.norm_outside = InstanceNorm(out_channels, affine=affine) if placement.outside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps N×C_in×H×W to N×C_out×H×W."""
        residual = add(self.norm_inside(self.branch(x)), self.downsample(x), self.norm_inside)
        return rectify(self.norm_outside(residual), self.norm_outside)

    def branch(self, x: Tensor) -> Tensor:
        """Computes the residual branch up to its last norm, N×C_out×H×W: what all placements have in common."""
        y = self.reduce(x)
        scales = gated_sum(self.gate, (stream(y) for stream in self.streams))
        return self.expand(scales)


class Segment(NamedTuple):
    """A block and the transition that follows it."""

    block: nn.Module
    pool: nn.Module | None  # what mixes the channels before height and width are halved; None: no transition

    def __call__(self, x: Tensor, *choice: Tensor | int) -> Tensor:
        """Maps N×C_in×H×W to N×C_out×H×W, or half of H and W after a transition; ``choice`` goes to the block."""
        return self.leave(self.block(x, *choice))

    def leave(self, x: Tensor) -> Tensor:
        """Runs the transition, if there is one, on the block's output."""
        return x if self.pool is None else F.avg_pool2d(self.pool(x), 2)


class OSNetBase(nn.Module):
    """The network: stem → six segments (a block and the transition after it) → head → classifier.

    Args:
        make_block: Makes the block number i (0–5) from (i, in_channels, out_channels).
        num_classes: Training identities, at least 1.
        width: Channel multiplier, a key of ``WIDTHS``.
        stem_norm: ``instance``, or ``batch`` as in plain OSNet.
        affine: Whether norms learn a scale and a shift.
        loss: ``softmax``: logits come out in training. ``triplet``: logits and features.

    Raises:
        UserError: an unknown width, stem norm or loss.
    """

    def __init__(
        self,
        make_block: Callable[[int, int, int], nn.Module],
        num_classes: int,
        *,
        width: float,
        stem_norm: str,
        affine: bool,
        loss: str,
    ) -> None:
        super().__init__()
        if width not in WIDTHS:
            raise UserError(f"width {width}: allowed are {', '.join(map(str, WIDTHS))}")
        if loss not in ("softmax", "triplet"):
            raise UserError(f"loss {loss!r}: allowed are softmax, triplet")
        stem, *stages = WIDTHS[width]
        self.loss = loss
        self.recomputes = False  # whether the backward pass computes each segment again
        self.conv1 = ConvNormReLU(3, stem, kernel=7, stride=2, norm=stem_norm, affine=affine)
        self.conv2 = nn.ModuleList([make_block(0, stem, stages[0]), make_block(1, stages[0], stages[0])])
        self.pool2 = ConvNormReLU(stages[0], stages[0], affine=affine)
        self.conv3 = nn.ModuleList([make_block(2, stages[0], stages[1]), make_block(3, stages[1], stages[1])])
        self.pool3 = ConvNormReLU(stages[1], stages[1], affine=affine)
        self.conv4 = nn.ModuleList([make_block(4, stages[1], stages[2]), make_block(5, stages[2], stages[2])])
        self.conv5 = ConvNormReLU(stages[2], stages[2], affine=affine)
        self.fc = nn.Sequential(
            nn.Linear(stages[2], FEATURE_DIM), nn.BatchNorm1d(FEATURE_DIM, affine=affine), nn.ReLU()
        )
        self.classifier = nn.Linear(FEATURE_DIM, num_classes)

    @property
    def blocks(self) -> list[nn.Module]:
        """The six blocks in order."""
        return [block for stage in STAGES for block in getattr(self, stage)]

    @property
    def segments(self) -> list[Segment]:
        """The six segments in order: training runs them in a row, a ranking walks them as a tree."""
        after = {1: self.pool2, 3: self.pool3}
        return [Segment(block, after.get(i)) for i, block in enumerate(self.blocks)]

    def choose_recomputed(self, kind: str) -> None:
        """Sets what is computed again in the backward pass: ``none``, ``blocks``, or ``candidates``, which is the same.

        Losses, gradients and running statistics stay what they are.
        """
        self.recomputes = kind != "none"

    def stem(self, images: Tensor) -> Tensor:
        """Maps images (N×3×H×W, H and W at least 16) to the first segment's input, N×C×H/4×W/4."""
        return F.max_pool2d(self.conv1(images), 3, stride=2, padding=1)

    def head(self, x: Tensor) -> Tensor:
        """Maps the last segment's output (N×C×H'×W') to features (N×512)."""
        return self.fc(F.adaptive_avg_pool2d(self.conv5(x), 1).flatten(1))

    def embed(self, images: Tensor, choices: Iterable[Sequence[Tensor | int]]) -> Tensor:
        """Computes features (N×512) from images (N×3×H×W).

        Args:
            images: H and W at least 16.
            choices: For each of the six segments what its block takes beside the feature map.
        """
        x = self.stem(images)
        for segment, choice in zip(self.segments, choices, strict=True):
            parts = [part for part in segment if part is not None]
            x = recompute(parts, segment.__call__, x, *choice) if self.recomputes else segment(x, *choice)
        return self.head(x)

    def output(self, features: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Returns what a forward pass gives: features in evaluation; logits, or logits and features, in training."""
        if not self.training:
            return features
        logits = self.classifier(features)
        return logits if self.loss == "softmax" else (logits, features)
