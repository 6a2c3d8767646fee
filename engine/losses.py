"""The losses: cross-entropy over identities, and batch-hard triplet."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.distributed import Runtime

Loss = Callable[[Any, Tensor], Tensor]  # of what the network gives in training, and labels (N,) int64


def compute_triplet_loss(features: Tensor, labels: Tensor, margin: float = 0.3) -> Tensor:
    """Computes the batch-hard triplet loss: the farthest image of one's own identity against the nearest other.

    Args:
        features: (N, D).
        labels: (N,) int64; images of at least two identities.
        margin: By how much the negative distance should exceed the positive.

    Returns:
        Scalar, the mean over the batch of max(0, d_positive − d_negative + margin), d Euclidean.

    Source: Hermans et al., "In Defense of the Triplet Loss" (arXiv 1703.07737), equation 5.
    """
    features = _lift(features)
    # not through |a|² + |b|² − 2ab: near images cancel there, in TF32 or under autocast beyond use
    distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    same = labels[:, None] == labels[None, :]
    positive = distances.masked_fill(~same, -torch.inf).amax(dim=1)
    negative = distances.masked_fill(same, torch.inf).amin(dim=1)
    return F.relu(positive - negative + margin).mean()


def softmax_loss(label_smooth: bool) -> Loss:
    """Makes the cross-entropy over logits (N×classes), with label smoothing 0.1 if asked."""
    smoothing = 0.1 if label_smooth else 0.0
    return lambda logits, labels: F.cross_entropy(_lift(logits), labels, label_smoothing=smoothing)


def triplet_loss(
    margin: float,
    weight_t: float,
    weight_x: float,
    label_smooth: bool,
    join: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> Loss:
    """Makes weight_t · triplet + weight_x · cross-entropy over (logits, features).

    Args:
        margin: Of the triplet loss.
        weight_t: Of the triplet loss.
        weight_x: Of the cross-entropy, whose mean is over this process's images alone: equal shares have a mean.
        label_smooth: Of the cross-entropy.
        join: ``Runtime.join``: the triplets of a batch are those of all processes' images, as if there were one
            process, and so are the loss and the gradient.
    """
    cross_entropy = softmax_loss(label_smooth)

    def loss(output: tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
        logits, features = output
        triplet = compute_triplet_loss(join(_lift(features)), join(labels), margin)
        # a weight of 0 still gives the classifier its (zero) gradient, which DistributedDataParallel waits for
        return weight_t * triplet + weight_x * cross_entropy(logits, labels)

    return loss


def build_loss(cfg: Any, runtime: Runtime) -> Loss:
    """Builds the loss that the ``loss`` settings name; all of the runtime's processes must compute it together."""
    if cfg.loss.name == "triplet":
        weights = (cfg.loss.triplet.weight_t, cfg.loss.triplet.weight_x)
        return triplet_loss(cfg.loss.triplet.margin, *weights, cfg.loss.softmax.label_smooth, runtime.join)
    return softmax_loss(cfg.loss.softmax.label_smooth)


def _lift(values: Tensor) -> Tensor:
    """Returns float32 in place of a 16-bit type."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
