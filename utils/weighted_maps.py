"""Sums of feature maps, each weighted, in as few passes over memory as possible, forward and backward.

Written out, ``sum(w * x for w, x in …)`` reads and writes a whole map for every product and every sum, and its gradient
does so again for each. Here pieces that fit the caches go through all of it at once. Maps in another layout than
channels-last, and compilers, get the written-out sum.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from utils.layout import as_rows, chunk_size, images_per_chunk, is_channels_last


def weighted_sum(weights: Tensor, maps: Iterable[Tensor]) -> Tensor:
    """Computes Σ wₖ · xₖ, to the last bit as it is written.

    Args:
        weights: (K,), floating.
        maps: K maps N×C×H×W of one type.

    Returns:
        N×C×H×W; differentiable once where the maps are in channels-last.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return _add_up(w * x for w, x in zip(weights, maps, strict=True))
    maps = list(maps)
    if not _are_alike(maps):
        return _add_up(w * x for w, x in zip(weights, maps, strict=True))
    return _WeightedSum.apply(weights, *maps)


def gated_sum(gate: nn.Module, maps: Iterable[Tensor]) -> Tensor:
    """Computes Σ gate(xₖ), where gate(x) = x · sigmoid(fc2(relu(fc1(mean of x over its pixels)))).

    Args:
        gate: With the 1×1 convolutions ``fc1`` and ``fc2``, C to C/r and back to C channels.
        maps: Maps N×C×H×W of one type.

    Returns:
        N×C×H×W; differentiable once where the maps are in channels-last.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return _add_up(gate(x) for x in maps)
    maps = list(maps)
    if not _are_alike(maps):
        return _add_up(gate(x) for x in maps)
    layers: tuple[Any, Any] = gate.fc1, gate.fc2
    weights = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
    with torch.autocast(maps[0].device.type, enabled=False):
        return _GatedSum.apply(*weights, *maps)


class _WeightedSum(torch.autograd.Function):
    """Of weights (K,) and K maps N×C×H×W in channels-last."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, *maps: Tensor) -> Tensor:
        result = torch.empty_like(maps[0])
        for out, first, *others in _iterate_pieces(result, *maps):
            torch.mul(first, weights[0], out=out)
            for weight, x in zip(weights[1:], others, strict=True):
                out.add_(x * weight)
        ctx.save_for_backward(weights, *maps)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """∂wₖ = ⟨∂, xₖ⟩, ∂xₖ = wₖ · ∂."""
        weights, *maps = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        results = [torch.empty_like(x) for x in maps]
        products = []
        for g, *pieces in _iterate_pieces(gradient, *maps, *results):
            xs, outs = pieces[: len(maps)], pieces[len(maps) :]
            products.append(torch.stack([torch.dot(g.to(weights), x.to(weights)) for x in xs]))
            for weight, out in zip(weights, outs, strict=True):
                torch.mul(g, weight, out=out)
        return torch.stack(products).sum(0), *results


class _GatedSum(torch.autograd.Function):
    """Of the gate's weights and biases and S maps N×C×H×W in channels-last; all but products in the weights' type."""

    @staticmethod
    def forward(ctx: Any, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, *maps: Tensor) -> Tensor:
        rows = [as_rows(x) for x in maps]
        means = torch.stack([x.mean(1, dtype=weight1.dtype) for x in rows])  # (S, N, C)
        hidden = F.relu(F.linear(means, weight1.flatten(1), bias1))
        gates = torch.sigmoid(F.linear(hidden, weight2.flatten(1), bias2))
        result = torch.empty_like(maps[0])
        for images in _split_images(result):
            out = as_rows(result)[images]
            factors = gates[:, images, None].to(out)
            for number, (x, factor) in enumerate(zip(rows, factors, strict=True)):
                if number:
                    out.addcmul_(x[images], factor)
                else:
                    torch.mul(x[images], factor, out=out)
        ctx.save_for_backward(weight1, weight2, means, hidden, gates, *maps)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """∂x = ∂ · gate + (what comes back through the gate, the same for all pixels); weights' keep their strides."""
        weight1, weight2, means, hidden, gates, *maps = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        products = torch.empty_like(gates)
        for images in _split_images(gradient):
            g = as_rows(gradient)[images]
            scratch = torch.empty_like(g)
            for x, out in zip(map(as_rows, maps), products[:, images], strict=True):
                torch.sum(torch.mul(g, x[images], out=scratch), 1, dtype=out.dtype, out=out)
        of_sigmoid = (products * gates * (1 - gates)).flatten(0, 1)
        of_relu = (of_sigmoid @ weight2.flatten(1)) * (hidden.flatten(0, 1) > 0)
        of_maps = (of_relu @ weight1.flatten(1)).view_as(gates)[:, :, None] / gradient[0, 0].numel()
        results = [torch.empty_like(x) for x in maps]
        for images in _split_images(gradient):
            g = as_rows(gradient)[images]
            factors, shifts = gates[:, images, None].to(g), of_maps[:, images].to(g)
            for out, factor, shift in zip(results, factors, shifts, strict=True):
                torch.addcmul(shift, g, factor, out=as_rows(out)[images])
        of_weight1 = (of_relu.T @ means.flatten(0, 1)).as_strided(weight1.shape, weight1.stride())
        of_weight2 = (of_sigmoid.T @ hidden.flatten(0, 1)).as_strided(weight2.shape, weight2.stride())
        return of_weight1, of_relu.sum(0), of_weight2, of_sigmoid.sum(0), *results


def _add_up(maps: Iterator[Tensor]) -> Tensor:
    total = next(maps)
    for x in maps:
        total = total + x
    return total


def _are_alike(maps: Sequence[Tensor]) -> bool:
    return all(is_channels_last(x) for x in maps) and len({x.dtype for x in maps}) == 1


def _iterate_pieces(*maps: Tensor) -> Iterator[Sequence[Tensor]]:
    """Yields the same piece of each map in channels-last, flat; on a GPU all of it."""
    flat = [as_rows(x).flatten() for x in maps]
    return zip(*(x.split(chunk_size(flat[0])) for x in flat), strict=True)


def _split_images(x: Tensor) -> Iterator[slice]:
    """Yields a few images at a time, of whose maps a few fit the caches; all on a GPU."""
    step = images_per_chunk(x)
    return (slice(start, start + step) for start in range(0, len(x), step))
