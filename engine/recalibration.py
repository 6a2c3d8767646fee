"""Batch-norm statistics of a network that did not learn as it is: a path of a super-network, averaged weights."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from utils.batch_norm import find_batch_norms


@torch.no_grad()
def recalibrate_batch_norm(network: nn.Module, images: Iterable[Tensor]) -> int:
    """Sets every batch norm's running statistics to their mean over the given batches of training images.

    A path of a super-network has seen its running statistics mixed with those of all other paths; a score with them
    says nothing about the path.

    Args:
        network: Called in training mode, without learning; left in evaluation mode.
        images: Batches (N, 3, H, W) on the network's device.

    Returns:
        Number of batches.
    """
    norms = find_batch_norms(network)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
    network.train()
    num_batches = 0
    for batch in images:
        network(batch)
        num_batches += 1
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
    return num_batches
