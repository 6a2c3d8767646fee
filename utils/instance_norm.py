"""Instance normalisation that keeps channels-last maps in channels-last and is quick there.

PyTorch's own ways are a group norm of one channel per group and a batch norm over a reshaped map. Both copy to the
contiguous layout on a GPU, and the first is several times slower than this on a CPU.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from utils.layout import as_rows, images_per_chunk, is_channels_last


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
    if torch.is_grad_enabled():
        return _InstanceNorm.apply(x, weight, bias, eps)
    result = torch.empty_like(x)
    _normalise(x, weight, bias, eps, centred=result, result=result)
    return result


class _InstanceNorm(torch.autograd.Function):
    """Of x in channels-last. Keeps one map for the gradient: the normalised, or with a scale the centred one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        result = torch.empty_like(x)
        kept = result if weight is None else torch.empty_like(x)
        rstd = _normalise(x, weight, bias, eps, centred=kept, result=result)
        ctx.save_for_backward(kept, rstd, weight)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        """With y = (x − mean) · rstd: ∂x = rstd · weight · (∂ − mean(∂) − y · mean(∂ · y))."""
        kept, rstd, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        result = torch.empty_like(kept)
        means, products = _empty_statistics(gradient), _empty_statistics(gradient)
        maps = (as_rows(x) for x in (gradient, kept))
        for g, k, r, out, mean, product in _iterate_chunks(*maps, rstd, as_rows(result), means, products):
            scratch = _get_room(out, r)
            torch.mean(g, 1, keepdim=True, dtype=r.dtype, out=mean)
            torch.mul(g, k, out=scratch)
            torch.mean(scratch, 1, keepdim=True, out=product)
            if weight is not None:
                product.mul_(r)
            torch.mul(k, product if weight is None else product * r, out=scratch)
            torch.sub(g, scratch, out=scratch)
            scratch.sub_(mean).mul_(r if weight is None else r * weight)
            if scratch is not out:
                out.copy_(scratch)
        if weight is None:
            return result, None, None, None
        pixels = gradient.shape[2] * gradient.shape[3]
        return result, (products.sum((0, 1)) * pixels).to(weight), (means.sum((0, 1)) * pixels).to(weight), None


def _normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, *, centred: Tensor, result: Tensor
) -> Tensor:
    """Writes the normalised, scaled and shifted map into ``result``; returns the reciprocal deviations (N, 1, C).

    With a scale the centred map is left in ``centred``, where that is not ``result`` itself.
    """
    rstd = _empty_statistics(x)
    for part, c, r, out in _iterate_chunks(as_rows(x), as_rows(centred), rstd, as_rows(result)):
        room = _get_room(c, r)
        torch.sub(part, part.mean(1, keepdim=True, dtype=r.dtype), out=room)
        torch.mean(room * room, 1, keepdim=True, out=r).add_(eps).rsqrt_()
        if weight is None or bias is None:
            torch.mul(room, r, out=out)
            continue
        if room is not c:
            c.copy_(room)
        torch.addcmul(bias.to(r), room, r * weight, out=out)
    return rstd


def _empty_statistics(x: Tensor) -> Tensor:
    """Makes room for one number per image and channel, (N, 1, C)."""
    return x.new_empty(x.shape[0], 1, x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))


def _get_room(out: Tensor, like: Tensor) -> Tensor:
    """Returns ``out`` where it is as precise as ``like``, else as much room of that type."""
    return out if out.dtype == like.dtype else torch.empty_like(out, dtype=like.dtype)


def _iterate_chunks(*tensors: Tensor) -> Any:
    """Yields the same few images of each tensor, of whose first (N, L, C) a chunk fits the caches; all on a GPU."""
    step = images_per_chunk(tensors[0])
    return zip(*(tensor.split(step) for tensor in tensors), strict=True)
