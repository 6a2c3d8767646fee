"""Training and inference of a child, beside Torchreid 0.2.5's OSNet-AIN of the same shape.

    python -m benchmarks.child                     # two CPU cores, some minutes; --device cuda on a GPU
    python -m benchmarks.child --json child.json   # the numbers in a file too

All in one process, one step of each in turn (see benchmarks/side_by_side.py); "ratio" is a line's images per second to
those of the first line, from the fastest steps, and in brackets from the medians. A training step is what main.py runs,
from images as bytes to AMSGrad; Torchreid's is what its engine runs, from normalised images on.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from functools import partial

import torch

from benchmarks.contenders import (
    NUM_PIDS,
    Case,
    build_contender,
    build_inference,
    build_peer,
    choose_cases,
    with_group_norm,
)
from benchmarks.peers import build_torchreid_child
from benchmarks.side_by_side import Contender, Options, add_options, put_apart, read_options, report
from datasets.loaders import Preparer
from osnet_child import build_child, fold_batch_norms
from utils.tool import tool

PEER = "Torchreid's OSNet-AIN"
AIN = ["model.genotype", "osnet_ain"]


def build_peer_training(case: Case, device: torch.device) -> Contender:
    """Builds Torchreid's training step."""
    return build_peer(PEER, build_torchreid_child(NUM_PIDS, case.width), case, device)


def build_peer_inference(case: Case, device: torch.device) -> Contender:
    """Builds Torchreid's forward pass."""
    model = build_torchreid_child(NUM_PIDS, case.width).to(device).eval()
    return build_inference(PEER, model, Preparer()(case.draw_batch(), device))


def build_training(case: Case, options: Options, stack: contextlib.ExitStack) -> list[Contender]:
    """Builds the training steps to compare."""
    device = options.device
    child = build_contender("child", "osnet_child", case, device, AIN)
    contenders = [
        stack.enter_context(put_apart(partial(build_peer_training, case, device), device)),
        child,
        with_group_norm(child),
        build_contender("child, bf16", "osnet_child", case, device, [*AIN, "train.amp", "bf16"]),
    ]
    if options.compiles:
        contenders.append(
            build_contender("child, compiled", "osnet_child", case, device, [*AIN, "train.compile", "True"])
        )
    return contenders


def build_inferences(case: Case, options: Options, stack: contextlib.ExitStack) -> list[Contender]:
    """Builds the forward passes to compare."""
    device = options.device
    images = Preparer(channels_last=True)(case.draw_batch(), device)
    child = build_child(NUM_PIDS, width=case.width).to(device).to(memory_format=torch.channels_last).eval()
    return [
        stack.enter_context(put_apart(partial(build_peer_inference, case, device), device)),
        build_inference("child, as it is evaluated", fold_batch_norms(child), images),
        build_inference("child, batch norms not folded", child, images),
    ]


@tool("child")
def main(words: Sequence[str] | None = None) -> int:
    """Reads the arguments; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    options = read_options(parser.parse_args(words))
    builders = {}
    for case in choose_cases(options.size):
        builders[f"training, {case}"] = partial(build_training, case, options)
        builders[f"inference, {case}"] = partial(build_inferences, case, options)
    report(builders, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
