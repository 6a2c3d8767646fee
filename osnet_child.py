"""The child network: OSNet with the blocks of one genotype.

After a search, paste the line that it printed over the GENOTYPE line below, or leave it and give the search's
``genotype.json`` as ``model.genotype``.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from genotype import Genotype
from osnet_blocks import CANDIDATES, ConvNormReLU, LightConv, OSBlock, OSNetBase
from utils.layout import is_channels_last

# OSNet-AIN as published (arXiv 1910.06827)
GENOTYPE = Genotype(conv2=("OSBlockINv1", "OSBlockINv1"), conv3=("OSBlock", "OSBlockINv1"), conv4=("OSBlockINv1", "OSBlock"))  # fmt: skip


class ChildNet(OSNetBase):
    """A network with one OSBlock per block, as its genotype says; see ``build_child``."""

    def __init__(self, num_classes: int, genotype: Genotype, *, width: float, stem_norm: str, loss: str) -> None:
        placements = [CANDIDATES[name] for name in genotype.check().blocks]
        super().__init__(
            lambda i, c_in, c_out: OSBlock(c_in, c_out, placements[i]),
            num_classes,
            width=width,
            stem_norm=stem_norm,
            affine=True,
            loss=loss,
        )
        self.genotype = genotype
        self.stem_norm = stem_norm
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Maps images (N×3×H×W) to logits (N×classes) in training and features (N×512, ≥ 0) in evaluation."""
        return self.output(self.embed(images, [()] * 6))


def build_child(
    num_classes: int,
    genotype: Genotype = GENOTYPE,
    width: float = 1.0,
    stem_norm: str = "instance",
    loss: str = "softmax",
) -> ChildNet:
    """Builds a freshly initialised child network.

    Args:
        num_classes: Training identities, at least 1.
        genotype: The six candidates.
        width: Channel multiplier: 1.0, 0.75, 0.5 or 0.25.
        stem_norm: ``instance``, or ``batch`` as in plain OSNet.
        loss: ``softmax``: the network gives logits in training; ``triplet``: logits and features.

    Raises:
        UserError: an argument outside its range.

    Source: arXiv 1910.06827; convolutions start Kaiming-normal (fan out), norms at 1 and 0, linear layers N(0, 0.01).
    """
    return ChildNet(num_classes, genotype, width=width, stem_norm=stem_norm, loss=loss)


def fold_batch_norms(child: ChildNet) -> ChildNet:
    """Returns a copy for evaluation whose batch norms are part of the convolutions and the linear layer before them.

    The products are made in float64 and rounded once. Instance norms depend on the image and stay.

    Args:
        child: A copy of it in evaluation mode is what is returned, in the same layout and type, without gradients.
    """
    layout = torch.channels_last if is_channels_last(child.conv1.conv.weight) else torch.contiguous_format
    folded = copy.deepcopy(child).eval().requires_grad_(False).double()
    for module in folded.modules():
        if isinstance(module, ConvNormReLU):
            _fold(module, "conv", "norm")
        elif isinstance(module, LightConv):
            _fold(module, "depthwise", "norm")
        elif isinstance(module, OSBlock):
            _fold(module, "expand", "norm_inside")
            if isinstance(module.downsample, nn.Sequential):
                _fold(module.downsample, "0", "1")
    _fold(folded.fc, "0", "1")
    return folded.to(child.conv1.conv.weight.dtype).to(memory_format=layout)


def _fold(parent: nn.Module, layer: str, norm: str) -> None:
    """Folds ``norm`` into ``layer`` where it is a batch norm."""
    before, after = getattr(parent, layer), getattr(parent, norm)
    if isinstance(after, _BatchNorm):
        fuse = fuse_linear_bn_eval if isinstance(before, nn.Linear) else fuse_conv_bn_eval
        setattr(parent, layer, fuse(before, after))
        setattr(parent, norm, nn.Identity())


def _initialise(module: nn.Module) -> None:
    """Sets convolutions and linear layers; norms are made with scale 1 and shift 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
        nn.init.zeros_(module.bias)
