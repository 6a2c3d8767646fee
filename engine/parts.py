"""A step whose images pass a device in parts: what the parts' backward passes add up to is the whole batch's gradient.

One device then gives what several give under DataParallel with a part each: batch norms see one part at a time,
running statistics are the first part's, the loss is that of the whole batch.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from engine.losses import Loss
from utils.batch_norm import hold_statistics

Scale = Callable[[Tensor], Tensor]  # of the loss, for gradients in fp16


class Part(NamedTuple):
    """Some of a step's images.

    Attributes:
        images: (N, 3, H, W).
        labels: (N,) int64.
        sample: What the network takes beside the images, if anything: (replicas, …).
    """

    images: Tensor
    labels: Tensor
    sample: tuple[Tensor, ...]


def split(images: Tensor, labels: Tensor, sample: Tensor | None, num_parts: int) -> list[Part]:
    """Splits a step into equal parts whose backward passes may follow each other.

    Args:
        images: (num_parts · N, 3, H, W).
        labels: (num_parts · N,).
        sample: (num_parts · replicas, …); what it was computed from gets the gradient of all parts with the last one's.
        num_parts: At least 1.
    """
    samples: list[tuple[Tensor, ...]] = [()] * num_parts
    if sample is not None:
        rows = sample.chunk(num_parts)
        if num_parts > 1 and sample.requires_grad:
            leaf = sample.detach().requires_grad_()
            sample.register_hook(lambda gradient: gradient if leaf.grad is None else gradient + leaf.grad)
            rows = (*leaf.chunk(num_parts)[:-1], rows[-1])
        samples = [(row,) for row in rows]
    return [Part(*part) for part in zip(images.chunk(num_parts), labels.chunk(num_parts), samples, strict=True)]


def add_gradients(network: nn.Module, loss: Loss, parts: Sequence[Part], scale: Scale, compares_images: bool) -> Tensor:
    """Adds the gradient of the loss over all parts to the parameters' own.

    Args:
        network: As it is called; parallel processes exchange gradients once, with the last part.
        loss: A mean over images.
        parts: Equal in size.
        scale: Applied to the loss before its gradient is computed.
        compares_images: Whether the loss compares the network's outputs for different images with each other, and so
            takes those of all parts at once. The network then runs forward once more.

    Returns:
        (2,) float64: the loss, and the number of images whose largest logit is their label's.
    """
    if compares_images and len(parts) > 1:
        return _add_gradients_together(network, loss, parts, scale)
    found = []
    for number, part in enumerate(parts):
        with _as_part(network, number, len(parts)):
            output = network(part.images, *part.sample)
            value = loss(output, part.labels) / len(parts)
            scale(value).backward()
        logits = output[0] if isinstance(output, tuple) else output
        found.append(_summarise(value, logits, part.labels))
    return torch.stack(found).sum(dim=0)


def _add_gradients_together(network: nn.Module, loss: Loss, parts: Sequence[Part], scale: Scale) -> Tensor:
    """Computes the loss and its gradient for all outputs first, then each part's share of the parameters' gradients."""
    with torch.no_grad(), hold_statistics(network):
        outputs = [network(part.images, *part.sample) for part in parts]
    whole = [torch.cat(kind).requires_grad_() for kind in zip(*outputs, strict=True)]  # logits, features
    labels = torch.cat([part.labels for part in parts])
    value = loss(tuple(whole), labels)
    gradients = torch.autograd.grad(scale(value), whole)
    chunks = zip(*(gradient.chunk(len(parts)) for gradient in gradients), strict=True)
    for number, (part, chunk) in enumerate(zip(parts, chunks, strict=True)):
        with _as_part(network, number, len(parts)):
            torch.autograd.backward(network(part.images, *part.sample), chunk)
    return _summarise(value, whole[0], labels)


@contextlib.contextmanager
def _as_part(network: nn.Module, number: int, num_parts: int) -> Iterator[None]:
    """Inside of it the network runs forward and backward on one of a step's parts."""
    with contextlib.ExitStack() as stack:
        if number > 0:
            stack.enter_context(hold_statistics(network))
        no_sync: Any = getattr(network, "no_sync", None)  # of DistributedDataParallel, compiled or not
        if no_sync is not None and number + 1 < num_parts:
            stack.enter_context(no_sync())
        yield


def _summarise(value: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    num_correct = (logits.detach().argmax(dim=1) == labels).sum()
    return torch.stack([value.detach().double(), num_correct.double()])
