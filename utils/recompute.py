"""Recomputation: what the backward pass needs of a part is computed again there, so that memory need not keep it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from utils.batch_norm import find_batch_norms


def recompute(parts: Sequence[nn.Module], function: Callable[..., Any], *args: Any) -> Any:
    """Returns ``function(*args)``, of which only ``args`` are kept for the backward pass.

    Losses, gradients and running statistics are those of a plain call, to the last bit where the device computes the
    same twice.

    Args:
        parts: The modules that ``function`` runs; their batch norms count each batch once.
        function: Draws no random numbers.
        args: What it takes.
    """
    if not torch.is_grad_enabled():
        return function(*args)

    def contexts() -> tuple[Any, Any]:
        return contextlib.nullcontext(), _shield_statistics(parts)

    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


@contextlib.contextmanager
def _shield_statistics(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Lets batch norms update copies of their statistics: without any they would save other tensors than before."""
    norms = [norm for part in parts for norm in find_batch_norms(part)]
    kept = [norm._buffers for norm in norms]
    for norm in norms:
        norm._buffers = {name: None if b is None else b.clone() for name, b in norm._buffers.items()}
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers = buffers
