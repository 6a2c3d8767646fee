"""A network's batch norms, and how they leave their running statistics alone."""

import contextlib
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def find_batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """Lists a network's batch norms."""
    return [m for m in network.modules() if isinstance(m, _BatchNorm)]


@contextlib.contextmanager
def hold_statistics(network: nn.Module) -> Iterator[None]:
    """Inside of it the network's batch norms compute as ever, but update no running statistics and count no batch."""
    norms = [norm for norm in find_batch_norms(network) if norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
