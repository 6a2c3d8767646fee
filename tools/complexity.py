"""Shows what a child network costs, part by part: parameters, multiply-adds, measured time.

    python -m tools.complexity --genotype osnet --width 0.25
    python -m tools.complexity --genotype log/osnet_nas/genotype.json --device cuda --batch-size 64

Parameters and multiply-adds are of one image, the classifier left out. Multiply-adds are counted as OSNet's papers do.
Parameters are what a checkpoint holds; the papers' count, in which the gate that a block's four streams share counts
four times, stands below the table. The time is the median of repeated forward passes of a whole batch. Pooling counts
for the part before it.
"""

import argparse
import sys
from collections.abc import Sequence

import torch

from build import build_network
from default_config import load_config
from engine.memory import check_inference
from osnet_child import ChildNet
from trained_child import check_input_size
from utils.complexity import (
    Complexity,
    Latency,
    compute_complexity,
    compute_part_complexities,
    count_parameters_at_each_use,
    measure_latency,
)
from utils.devices import open_device
from utils.distributed import Runtime
from utils.errors import UserError
from utils.log import format_table
from utils.tool import tool

_PAPER_NAMES = {"conv1": "conv1 (stem)", "fc": "fc (head)"}


def build_child_of(
    genotype: str, stem_norm: str | None = None, multiplier: float | None = None
) -> tuple[ChildNet, float]:
    """Builds the child that the settings ``model.genotype``, ``model.stem_norm`` and ``model.width`` name.

    Returns:
        The child, and its channel multiplier.

    Raises:
        UserError: a value that the settings refuse, or a broken genotype file.
    """
    given = {"model.genotype": genotype, "model.stem_norm": stem_norm, "model.width": multiplier}
    settings = {key: value for key, value in given.items() if value is not None}
    network = build_network(load_config(overrides={"model.name": "osnet_child", **settings}), num_classes=1)
    assert isinstance(network.model, ChildNet)
    return network.model, network.identity["width"]


def format_costs(total: Complexity, parts: dict[str, Complexity], latency: Latency) -> str:
    """Sets the table: one row per part, shares in percent of the multiply-adds and of the parts' times."""
    all_parts_sec = sum(latency.parts.values())
    rows = [
        (
            _PAPER_NAMES.get(name, name),
            f"{part.num_parameters:,}",
            f"{part.num_madds / 1e6:,.2f}",
            f"{part.num_madds / total.num_madds:.1%}",
            f"{latency.parts[name] * 1e3:.3f}",
            f"{latency.parts[name] / all_parts_sec:.1%}",
        )
        for name, part in parts.items()
    ]
    whole = (f"{total.num_parameters:,}", f"{total.num_madds / 1e6:,.2f}", "100.0%", f"{latency.total * 1e3:.3f}")
    header = ("part", "parameters", "multiply-adds M", "share", "time ms", "share")
    return format_table(header, [*rows, ("total", *whole, "100.0%")])


@tool("complexity")
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0, or 2 after a user error."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.complexity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--genotype", default="", metavar="NAME", help="osnet, osnet_ibn, osnet_ain, osnet_x0_25 or a genotype.json "
        "(default: GENOTYPE of osnet_child.py)"
    )  # fmt: skip
    parser.add_argument("--stem-norm", help="instance (default) or batch; published names know theirs")
    parser.add_argument("--width", type=float, help="channel multiplier (default 1.0)")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(256, 128), metavar=("H", "W"), help="input in pixels (default 256 128)"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="images per pass (default 1)")
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="passes to take the median of (default 20)")
    given = parser.parse_args(arguments)
    if given.batch_size < 1 or given.runs < 1:
        raise UserError("--batch-size and --runs must be at least 1")
    check_input_size(*given.size)
    device = open_device(given.device)
    model, multiplier = build_child_of(given.genotype, given.stem_norm, given.width)
    height, width = given.size
    check_inference(Runtime(device), given.batch_size, height, width, multiplier)
    images = torch.randn(given.batch_size, 3, *given.size, generator=torch.Generator().manual_seed(0))
    total, parts = compute_complexity(model, *given.size), compute_part_complexities(model, *given.size)
    model.to(device).to(memory_format=torch.channels_last)
    images = images.to(device, memory_format=torch.channels_last)
    latency = measure_latency(model, images, given.runs)
    print(f"x{multiplier:g}, {model.stem_norm} stem norm, input {given.size[0]}×{given.size[1]}\n{model.genotype}\n")
    print(format_costs(total, parts, latency), end="\n\n")
    print(f"parameters as published, shared gates counted at each use: {count_parameters_at_each_use(model, images):,}")
    print(f"time: median of {given.runs} passes over {given.batch_size} image(s), {device}, "
          f"{torch.get_num_threads()} CPU thread(s)")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
