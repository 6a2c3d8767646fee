"""Mixed precision: which products run in 16 bits, in whichever thread, and what comes out."""

import threading

import pytest
import torch
from torch import nn

from engine.mixed_precision import MixedPrecision


class Probe(nn.Module):
    """A product; remembers the type it was computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.seen: list[torch.dtype] = []

    def forward(self, images: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        out = self.linear(images) * scale
        self.seen.append(out.dtype)
        return out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_threads_compute_in_the_type_asked_for(dtype):
    """As DataParallel's do, which know nothing of the caller's type."""
    probe = Probe()
    network = MixedPrecision(probe, dtype)
    outputs = []
    threads = [threading.Thread(target=lambda: outputs.append(network(torch.ones(4, 3)))) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    assert probe.seen == [dtype] * 2
    assert [output.dtype for output in outputs] == [torch.float32] * 2
    assert torch.allclose(outputs[0], probe.linear(torch.ones(4, 3)), rtol=0.02, atol=0.02)


def test_all_outputs_are_float32_and_more_arguments_pass():
    class Two(Probe):
        def forward(self, images, scale):
            out = super().forward(images, scale)
            return out, out + 1

    network = MixedPrecision(Two(), torch.bfloat16)
    logits, features = network(torch.ones(4, 3), 2.0)
    assert logits.dtype == features.dtype == torch.float32
    logits.sum().backward()
    assert network.network.linear.weight.grad.dtype == torch.float32
