"""Random batches for networks of two layers."""

from types import SimpleNamespace

import torch


class Batches:
    """Five batches per epoch; a hook sees where the pass is."""

    samples = tuple(SimpleNamespace(path=f"{i}.jpg") for i in range(20))

    def __init__(self, hook=lambda epoch, number: None):
        self.hook = hook

    def __len__(self):
        return 5

    def batches(self, epoch, first_batch=0):
        for number in range(first_batch, 5):
            self.hook(epoch, number)
            generator = torch.Generator().manual_seed(100 * epoch + number)
            indices = torch.arange(4) + 4 * number
            images = torch.randn(4, 4, generator=generator)
            yield SimpleNamespace(images=images, pids=indices % 3, indices=indices)
