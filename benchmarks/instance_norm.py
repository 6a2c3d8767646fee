"""What the instance norm of utils/instance_norm.py gives a training step, beside PyTorch's group norm in its place.

    python -m benchmarks.instance_norm                  # two CPU cores, some minutes; a GPU where there is one

Forward pass, loss and backward pass of a super-network and of a child (OSNet-AIN), in channels-last, on random images.
Both norms run in the same process with the same weights, one step of each in turn; "ratio" is group norm's time over
this one's, from the medians, and in brackets from the fastest steps. "Loss off by" is the relative difference of the
two losses.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import osnet_blocks
from osnet_child import build_child
from osnet_nas import build_supernet
from utils.instance_norm import instance_norm
from utils.log import format_table

NUM_PIDS = 100
Norm = Callable[[Tensor, Tensor | None, Tensor | None, float], Tensor]


class Case(NamedTuple):
    """One network on one size of images."""

    network: str
    width: float
    height_px: int
    width_px: int
    batch_size: int

    def __str__(self) -> str:
        return f"{self.network} x{self.width:g}, {self.height_px}×{self.width_px}, batch {self.batch_size}"


CASES = [
    Case("child", 0.25, 128, 64, 64),
    Case("super-network", 0.25, 128, 64, 64),
    Case("child", 1.0, 256, 128, 16),
    Case("super-network", 1.0, 256, 128, 16),
]


def group_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Does what ``instance_norm`` does through PyTorch's group norm."""
    return F.group_norm(x, x.shape[1], weight, bias, eps)


def build_step(case: Case, device: torch.device) -> Callable[[], float]:
    """Makes a network; returns a function that runs forward and backward pass and returns the loss."""
    torch.manual_seed(0)
    inputs = [torch.randn(case.batch_size, 3, case.height_px, case.width_px)]
    if case.network == "child":
        model: nn.Module = build_child(NUM_PIDS, width=case.width)
    else:
        model = build_supernet(NUM_PIDS, width=case.width)
        inputs.append(torch.rand(6, 4).softmax(1).requires_grad_())
    model.to(device).to(memory_format=torch.channels_last)
    inputs = [tensor.to(device) for tensor in inputs]
    inputs[0] = inputs[0].contiguous(memory_format=torch.channels_last)
    pids = torch.randint(NUM_PIDS, (case.batch_size,)).to(device)

    def step() -> float:
        model.zero_grad()
        loss = F.cross_entropy(model(*inputs), pids)
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return float(loss.detach())

    return step


def measure(case: Case, num_steps: int, device: torch.device) -> list[str]:
    """Runs both norms in alternation; returns the cells of the table's row."""
    step = build_step(case, device)
    norms: tuple[Norm, Norm] = group_norm, instance_norm
    times: tuple[list[float], list[float]] = [], []
    losses: list[float] = []
    for turn in range(num_steps + 1):
        for norm, durations in zip(norms, times, strict=True):
            with patch.object(osnet_blocks, "instance_norm", norm):
                start = time.perf_counter()
                loss = step()
                durations.append(time.perf_counter() - start)
            if not turn:  # warms up; its losses are compared
                durations.clear()
                losses.append(loss)
    before, after = map(statistics.median, times)
    return [
        str(case),
        str(torch.get_num_threads()),
        f"{case.batch_size / before:.1f}",
        f"{case.batch_size / after:.1f}",
        f"{before / after:.2f} ({min(times[0]) / min(times[1]):.2f})",
        f"{abs(losses[1] - losses[0]) / losses[0]:.0e}",
    ]


def main() -> int:
    """Reads the arguments; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5, help="of each norm, after one that warms up")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for num_threads in arguments.threads:
        torch.set_num_threads(num_threads)
        for case in CASES:
            print(f"  {case}, threads {num_threads} …", file=sys.stderr)
            rows.append(measure(case, arguments.steps, device))
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{where}, torch {torch.__version__}, {arguments.steps} steps of each norm, float32, channels-last")
    header = ("network", "threads", "images/s before", "after", "ratio", "loss off by")
    print(format_table(header, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
