"""Instance normalisation that keeps channels-last maps in channels-last and is quick there.

PyTorch's own ways are a group norm of one channel per group and a batch norm over a reshaped map. Both copy to the
contiguous layout on a GPU, and the first is several times slower than this on a CPU.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from utils.layout import as_rows, is_channels_last

CHUNK = 2**18  # numbers worked on at a time on a CPU, so that they stay in a core's cache


def instance_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Brings each channel of each image to mean 0 and variance 1 over its pixels, then scales and shifts it.

    Statistics are computed in float32 at least.

    Args:
        x: N×C×H×W, floating, contiguous or in channels-last.
        weight: Scale (C,); None: 1, and no shift.
        bias: Shift (C,).
        eps: Added to the variance.

    Returns:
        N×C×H×W in the layout and type of ``x``; differentiable once where ``x`` is in channels-last.

    Source: Ulyanov et al., "Instance Normalization" (arXiv 1607.08022).
    """
    if not is_channels_last(x) or torch.compiler.is_compiling():  # a compiler fuses it, an exporter knows it
        return F.group_norm(x, x.shape[1], weight, bias, eps).to(x.dtype)
    return _InstanceNorm.apply(x, weight, bias, eps)


class _InstanceNorm(torch.autograd.Function):
    """Of x in channels-last. Keeps the normalised map and the reciprocal deviations for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        normalised, rstd = torch.empty_like(x), _empty_statistics(x)
        result = normalised if weight is None else torch.empty_like(x)
        for part, y, r, out in _iterate_chunks(as_rows(x), as_rows(normalised), rstd, as_rows(result)):
            centred = _get_room(y, r)
            torch.sub(part, part.mean(1, keepdim=True, dtype=r.dtype), out=centred)
            torch.mean(centred * centred, 1, keepdim=True, out=r).add_(eps).rsqrt_()
            centred.mul_(r)
            if centred is not y:
                y.copy_(centred)
            if weight is not None and bias is not None:
                torch.addcmul(bias.to(y), y, weight.to(y), out=out)
        ctx.save_for_backward(normalised, rstd, weight)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        """With y = (x − mean) · rstd: ∂x = rstd · weight · (∂ − mean(∂) − y · mean(∂ · y))."""
        normalised, rstd, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        result = torch.empty_like(normalised)
        means, products = _empty_statistics(gradient), _empty_statistics(gradient)
        maps = (as_rows(x) for x in (gradient, normalised))
        for g, y, r, out, mean, product in _iterate_chunks(*maps, rstd, as_rows(result), means, products):
            scratch = _get_room(out, r)
            torch.mean(g, 1, keepdim=True, dtype=r.dtype, out=mean)
            torch.mul(g, y, out=scratch)
            torch.mean(scratch, 1, keepdim=True, out=product)
            torch.mul(y, product, out=scratch)
            torch.sub(g, scratch, out=scratch)
            scratch.sub_(mean).mul_(r if weight is None else r * weight)
            if scratch is not out:
                out.copy_(scratch)
        if weight is None:
            return result, None, None, None
        pixels = gradient.shape[2] * gradient.shape[3]
        return result, (products.sum((0, 1)) * pixels).to(weight), (means.sum((0, 1)) * pixels).to(weight), None


def _empty_statistics(x: Tensor) -> Tensor:
    """Makes room for one number per image and channel, (N, 1, C)."""
    return x.new_empty(x.shape[0], 1, x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))


def _get_room(out: Tensor, like: Tensor) -> Tensor:
    """Returns ``out`` where it is as precise as ``like``, else as much room of that type."""
    return out if out.dtype == like.dtype else torch.empty_like(out, dtype=like.dtype)


def _iterate_chunks(*tensors: Tensor) -> Any:
    """Yields the same few images of each tensor, of whose first (N, L, C) a chunk fits a core's cache; all on a GPU."""
    first = tensors[0]
    per_chunk = len(first) if first.is_cuda else max(1, CHUNK // max(1, first.shape[1] * first.shape[2]))
    return zip(*(tensor.split(per_chunk) for tensor in tensors), strict=True)
