"""Mixed precision: a network's products in 16 bits, everything else in 32."""

from typing import Any

import torch
from torch import Tensor, nn

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class MixedPrecision(nn.Module):
    """Runs a network under autocast and gives its output in float32, so that the loss is computed there.

    Autocast is entered here, inside of what DataParallel copies: its threads know only whether the caller was under
    autocast, and would compute in float16 where bfloat16 was asked for.

    Args:
        network: What to run.
        dtype: Of the products.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, images: Tensor, *more: Any) -> Any:
        """Returns what the network gives for images (N, 3, H, W): a tensor or a tuple of tensors, float32."""
        with torch.autocast(images.device.type, self.dtype):
            output = self.network(images, *more)
        return tuple(part.float() for part in output) if isinstance(output, tuple) else output.float()
