"""A training step of the super-network in every form that the settings offer, beside the reference implementation's.

    python -m benchmarks.supernet_step --device cpu --reference DIR    # DIR: a checkout of KaiyangZhou/deep-person-reid
    python -m benchmarks.supernet_step --device cuda --reference DIR --json supernet.json

All in one process, one step of each in turn (see benchmarks/side_by_side.py); "ratio" is a line's images per second to
those of the first line, from the fastest steps, and in brackets from the medians. A step is what main.py runs, from
images as bytes to AMSGrad; the reference's is what its engine runs, from normalised images on. "Plain" computes the
same function as the reference; so do recomputation and bf16, but for rounding. A uniform path, a shared trunk and a
batch in parts (batch norms see a part at a time) are other functions.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.contenders import NUM_PIDS, PAPER, Case, build_contender, build_peer, choose_cases, with_group_norm
from benchmarks.peers import build_reference_supernet
from benchmarks.side_by_side import Contender, Options, add_options, put_apart, read_options, report
from utils.tool import tool

GPU_BATCH = 64
BF16 = ["train.amp", "bf16"]
SHARED = ["nas.candidates", "shared"]
UNIFORM = ["nas.method", "uniform", "nas.held_out", "cameras"]


def build_reference(folder: Path, case: Case, device: torch.device) -> Contender:
    """Builds the reference implementation's step."""
    return build_peer("reference implementation", build_reference_supernet(folder, NUM_PIDS, case.width), case, device)


def build_contenders(
    case: Case, reference: Path | None, options: Options, stack: contextlib.ExitStack
) -> list[Contender]:
    """Builds the steps to compare: the reference's, if it is there, and all of this project."""
    variants: dict[str, list[str]] = {
        "plain": [],
        "shared trunk": SHARED,
        "uniform path": UNIFORM,
        "plain, recompute candidates": ["train.recompute", "candidates"],
        "plain, recompute blocks": ["train.recompute", "blocks"],
        "plain, in four parts": ["train.device_batch", str(case.batch_size // 4)],
        "plain, bf16": BF16,
        "shared trunk, bf16": [*SHARED, *BF16],
        "uniform path, bf16": [*UNIFORM, *BF16],
    }
    if options.compiles:
        variants["plain, compiled"] = ["train.compile", "True"]
    contenders = [build_contender(name, "osnet_nas", case, options.device, v) for name, v in variants.items()]
    contenders.insert(1, with_group_norm(contenders[0]))
    if reference is not None:
        build = partial(build_reference, reference, case, options.device)
        contenders.insert(0, stack.enter_context(put_apart(build, options.device)))
    return contenders


@tool("supernet_step")
def main(words: Sequence[str] | None = None) -> int:
    """Reads the arguments; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, metavar="DIR", help="a checkout with projects/OSNet_AIN")
    add_options(parser)
    arguments = parser.parse_args(words)
    options = read_options(arguments)
    paper = PAPER._replace(batch_size=GPU_BATCH) if options.device.type == "cuda" else PAPER
    cases = choose_cases(options.size, paper)
    report({str(case): partial(build_contenders, case, arguments.reference, options) for case in cases}, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
