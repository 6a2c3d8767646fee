"""What a network costs: parameters and multiply-adds, counted as published."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Complexity:
    """Cost of one image through a network.

    Attributes:
        num_parameters: Without the classifier, which is not used at test time.
        num_madds: Multiply-adds of convolutions and linear layers, as OSNet's papers count them.
    """

    num_parameters: int
    num_madds: int

    def __str__(self) -> str:
        return f"{self.num_parameters:,} parameters without the classifier, {self.num_madds / 1e6:,.1f} M multiply-adds"


def count_parameters(model: nn.Module) -> int:
    """Counts all parameters but those of the layer ``classifier``."""
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith("classifier."))


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
