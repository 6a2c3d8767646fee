"""Contenders whose steps run in turn, so that what disturbs the machine disturbs all alike; what the machine can do.

Shares of the machine's bounds are those of the work that a step's operations do one by one, counted while one step
runs: multiplications and additions of convolutions and matrix products; bytes that operations read and write. A large
product and a copy, measured in the same run, say how much of each the machine does in a second. Both are only nearly
the most that it can do, and operations on pieces that stay in a core's cache can be above the bandwidth: a share may
exceed 100 %. Float32 products are not rounded to TF32.

With --threads 1 on a CPU all seconds are those that the thread ran: other programs hardly change them. Several threads
on shared cores wait for each other, and a time then says little.
"""

import argparse
import contextlib
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.work import Work, count_work, measure_bandwidth, measure_flops, time_step
from utils.devices import open_device
from utils.errors import UserError
from utils.log import format_table

GIB = 2**30
WARM_UP = 2  # steps before those that are measured
_COLUMNS = ("", "images/s", "ratio", "peak GiB", "arithmetic", "bandwidth", "kernels")


@dataclass(frozen=True)
class Contender:
    """Something that takes a step again and again.

    Attributes:
        name: For the table.
        step: Takes one step.
        num_images: Of a step.
        dtype: Of its products.
        is_compiled: Its operations cannot be counted.
    """

    name: str
    step: Callable[[], object]
    num_images: int
    dtype: torch.dtype = torch.float32
    is_compiled: bool = False

    def time_step(self, device: torch.device) -> float:
        """Takes a step; returns its seconds."""
        return time_step(self.step, device)

    def count_work(self, device: torch.device) -> Work:
        """Counts what a step does."""
        return count_work(self.step, device, self.is_compiled)


@dataclass(frozen=True)
class ContenderApart(Contender):
    """A contender in a process of its own: other people's code keeps the memory allocator that it has elsewhere.

    Attributes:
        ask: Asks that process.
    """

    ask: Callable[[str], Any] = lambda question: None

    def time_step(self, device: torch.device) -> float:
        """Has the process take a step; returns its seconds."""
        seconds: float = self.ask("time_step")
        return seconds

    def count_work(self, device: torch.device) -> Work:
        """Has the process count what a step does."""
        work: Work = self.ask("count_work")
        return work


@dataclass(frozen=True)
class Result:
    """One contender's line.

    Attributes:
        name: The contender's.
        images_per_sec: From its median step.
        ratio: Of its images per second to the first contender's, from the fastest steps.
        median_ratio: The same from the median steps.
        work: Of a step.
        arithmetic_share: Of what the machine's best product does in the same time.
        bandwidth_share: Of what the machine's copy moves in the same time.
        first_sec: What the first step took, compilation and all.
    """

    name: str
    images_per_sec: float
    ratio: float
    median_ratio: float
    work: Work
    arithmetic_share: float
    bandwidth_share: float
    first_sec: float


def run_side_by_side(contenders: Sequence[Contender], num_turns: int, device: torch.device) -> list[Result]:
    """Runs the contenders' steps in turn; the first contender is what the others are compared with."""
    first_sec = []
    for contender in contenders:
        first_sec.append(contender.time_step(device))
        for _ in range(WARM_UP - 1):
            contender.time_step(device)
    times: list[list[float]] = [[] for _ in contenders]
    for _ in range(num_turns):
        for contender, own in zip(contenders, times, strict=True):
            own.append(contender.time_step(device))
    bandwidth = measure_bandwidth(device)
    rates = {dtype: measure_flops(device, dtype) for dtype in {c.dtype for c in contenders}}
    per_image = [[t / c.num_images for t in own] for c, own in zip(contenders, times, strict=True)]
    results = []
    for contender, own, first in zip(contenders, per_image, first_sec, strict=True):
        work, median = contender.count_work(device), statistics.median(own)
        sec = median * contender.num_images
        results.append(
            Result(
                name=contender.name,
                images_per_sec=1 / median,
                ratio=min(per_image[0]) / min(own),
                median_ratio=statistics.median(per_image[0]) / median,
                work=work,
                arithmetic_share=work.flops / sec / rates[contender.dtype],
                bandwidth_share=work.traffic / sec / bandwidth,
                first_sec=first,
            )
        )
    return results


@contextlib.contextmanager
def put_apart(build: Callable[[], Contender], device: torch.device) -> Iterator[Contender]:
    """Builds a contender in a process of its own on a CPU, in this one on a GPU.

    Args:
        build: Can be pickled.
        device: Where its steps run.
    """
    if device.type != "cpu":
        yield build()
        return
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(build, device, torch.get_num_threads(), there), daemon=True)
    process.start()
    there.close()

    def ask(question: str) -> Any:
        here.send(question)
        return here.recv()

    name, num_images = here.recv()
    yield ContenderApart(name, lambda: None, num_images, ask=ask)
    here.close()
    process.join()


def _serve(build: Callable[[], Contender], device: torch.device, num_threads: int, pipe: Connection) -> None:
    """Builds a contender and answers questions until nobody asks any more."""
    torch.set_num_threads(num_threads)
    contender = build()
    pipe.send((contender.name, contender.num_images))
    with contextlib.suppress(EOFError):
        while question := pipe.recv():
            pipe.send(getattr(contender, question)(device))


def format_results(results: Sequence[Result]) -> str:
    """Makes a table; a ratio is from the fastest steps, in brackets from the medians."""
    rows = [
        (
            result.name,
            f"{result.images_per_sec:,.1f}",
            f"{result.ratio:.2f} ({result.median_ratio:.2f})",
            _format_number(result.work.peak / GIB, ".2f"),
            _format_number(result.arithmetic_share, ".0%"),
            _format_number(result.bandwidth_share, ".0%"),
            f"{result.work.num_kernels:,}" if result.work.num_kernels else "–",
        )
        for result in results
    ]
    return format_table(_COLUMNS, rows)


def _format_number(value: float, form: str) -> str:
    return "–" if value != value else format(value, form)


def _drop_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _drop_nan(value) if isinstance(value, Mapping) else None if value != value else value
        for name, value in values.items()
    }


class Options(NamedTuple):
    """What the command line says.

    Attributes:
        device: Where everything runs.
        num_turns: Measured steps of each contender.
        compiles: Whether compiled networks run too.
        size: ``small``, ``paper`` or ``both``.
        json: File for the numbers; None: none.
    """

    device: torch.device
    num_turns: int
    compiles: bool = False
    size: str = "both"
    json: Path | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that all such benchmarks take."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=("small", "paper", "both"), default="both", help="of network and images")
    parser.add_argument("--turns", type=int, default=10, help="measured steps of each line (10)")
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        help="of the CPU (all cores); 1 where other programs run: then seconds are those that the thread ran",
    )
    parser.add_argument("--compile", action="store_true", help="compiled networks too, which takes minutes")
    parser.add_argument("--json", type=Path, help="file for the numbers")


def read_options(arguments: argparse.Namespace) -> Options:
    """Reads and applies those arguments.

    Raises:
        UserError: there is no such device, or a number is too small.
    """
    if arguments.turns < 1 or arguments.threads < 0:
        raise UserError(f"--turns {arguments.turns}, --threads {arguments.threads}: at least 1 turn and 0 threads")
    device = open_device(arguments.device)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return Options(device, arguments.turns, arguments.compile, arguments.size, arguments.json)


def report(builders: Mapping[str, Callable[[contextlib.ExitStack], Sequence[Contender]]], options: Options) -> None:
    """Measures one group of contenders after the other, prints a table of each and writes the file.

    Args:
        builders: By the group's name; a builder enters on the stack what is to be closed after the group.
        options: Of the command line.
    """
    where = "CPU" if options.device.type == "cpu" else torch.cuda.get_device_name(options.device)
    num_threads, bandwidth = torch.get_num_threads(), measure_bandwidth(options.device)
    rates = {str(t).removeprefix("torch."): measure_flops(options.device, t) for t in (torch.float32, torch.bfloat16)}
    shown = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in rates.items())
    print(f"{where}, {num_threads} threads, torch {torch.__version__}, {options.num_turns} turns; "
          f"{shown}, {bandwidth / 1e9:.0f} GB/s")  # fmt: skip
    found = {}
    for case, build in builders.items():
        print(f"  {case} …", file=sys.stderr)
        with contextlib.ExitStack() as stack:
            results = run_side_by_side(build(stack), options.num_turns, options.device)
        found[case] = [_drop_nan(asdict(result)) for result in results]
        print(f"\n{case}\n{format_results(results)}", flush=True)
    if options.json is not None:
        about = {"machine": where, "threads": num_threads, "torch": torch.__version__, "turns": options.num_turns}
        speeds = {"flops_per_sec": rates, "bytes_per_sec": bandwidth}
        options.json.write_text(json.dumps({**about, **speeds, "cases": found}, indent=1) + "\n")
