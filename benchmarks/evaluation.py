"""Ranking and re-ranking, in time and memory, side by side with Torchreid 0.2.5's Python versions.

    python -m benchmarks.evaluation            # everything; about ten minutes on two cores
    python -m benchmarks.evaluation --quick    # a tenth of the images; a minute, ratios are smaller there

Every row runs in a fresh process. Features are random, clustered by identity and shifted by camera, from a fixed seed,
so spread that Market-1501's size scores like a trained network. "Peak" is the process's highest resident memory during
the first call minus what was resident before it (features, libraries): VmHWM of /proc/self/status, reset through
/proc/self/clear_refs. Times are the best of three calls (one call where it takes over a minute, and for Torchreid).
"Products" are the distance products: where they count, they count on both sides.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers import load_torchreid
from utils.distance import TILE_QUERIES, compute_distmat
from utils.errors import UserError
from utils.ranking import evaluate_blocks, evaluate_distmat, evaluate_ranking
from utils.rerank import iterate_reranked, rerank
from utils.tool import tool

GIB = 2**30
REPEATS = 3
LONG_SEC = 60


@dataclass(frozen=True)
class Size:
    """Numbers of a data set's test."""

    num_query: int
    num_gallery: int
    num_cameras: int
    num_identities: int

    def tenth(self) -> "Size":
        """Returns a tenth of the images and identities."""
        return Size(self.num_query // 10, self.num_gallery // 10, self.num_cameras, self.num_identities // 10)


SIZES = {"market1501": Size(3_368, 15_913, 6, 751), "msmt17": Size(11_659, 82_161, 15, 3_060)}
NUM_DIMENSIONS = 512
NOISE = 1.75


class Problem:
    """Features and labels of a size; ``labels`` are in the order of the arguments of ``evaluate_ranking``."""

    def __init__(self, size: Size, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        identities = generator.standard_normal((size.num_identities, NUM_DIMENSIONS), dtype=np.float32)
        cameras = generator.standard_normal((size.num_cameras, NUM_DIMENSIONS), dtype=np.float32) / 2
        pids, camids, features = [], [], []
        for count in (size.num_query, size.num_gallery):
            pid = generator.integers(size.num_identities, size=count)
            camid = generator.integers(size.num_cameras, size=count)
            feature = generator.standard_normal((count, NUM_DIMENSIONS), dtype=np.float32)
            feature *= np.float32(NOISE)
            feature += identities[pid]
            feature += cameras[camid]
            pids.append(pid)
            camids.append(camid)
            features.append(torch.from_numpy(feature))
        self.query, self.gallery = features
        self.labels = (*pids, *camids)


def multiply(problem: Problem) -> None:
    """Computes the bare products of all queries and gallery images, block by block into the same memory."""
    block = torch.empty(TILE_QUERIES, len(problem.gallery))
    for queries in problem.query.split(TILE_QUERIES):
        torch.mm(queries, problem.gallery.T, out=block[: len(queries)])


def run_scores(problem: Problem) -> dict[str, float]:
    """Scores of a distance matrix that exists already."""
    distmat = compute_distmat(problem.query, problem.gallery)
    return measure(lambda: evaluate_distmat(distmat, *problem.labels))


def run_ranking(problem: Problem) -> dict[str, float]:
    """Features to scores, and the bare products before and after it."""
    multiply(problem)
    before = seconds(lambda: multiply(problem))
    result = measure(lambda: evaluate_ranking(problem.query, problem.gallery, *problem.labels))
    return {**result, "products": min(before, seconds(lambda: multiply(problem)))}


def run_rerank(problem: Problem) -> dict[str, float]:
    """Features to the whole re-ranked matrix."""
    return measure(lambda: rerank(problem.query, problem.gallery))


def run_rerank_streamed(problem: Problem) -> dict[str, float]:
    """Features to the scores of the re-ranked distances, which are never held as a whole."""
    return measure(lambda: evaluate_blocks(iterate_reranked(problem.query, problem.gallery), *problem.labels))


def run_torchreid_scores(problem: Problem) -> dict[str, float]:
    """Torchreid's scores of a distance matrix, and its time for the matrix."""
    compute = load_torchreid("metrics/distance.py").compute_distance_matrix
    evaluate = load_torchreid("metrics/rank.py").evaluate_rank
    products = min(seconds(lambda: compute(problem.query, problem.gallery)) for _ in range(REPEATS))
    distmat = compute(problem.query, problem.gallery).numpy()
    query_pids, gallery_pids, query_camids, gallery_camids = problem.labels
    labels = (query_pids, gallery_pids, query_camids, gallery_camids)
    return {**measure(lambda: evaluate(distmat, *labels, use_cython=False), repeats=1), "products": products}


def run_torchreid_rerank(problem: Problem) -> dict[str, float]:
    """Torchreid's re-ranking with the three distance matrices that it is given."""
    compute = load_torchreid("metrics/distance.py").compute_distance_matrix
    re_ranking = load_torchreid("utils/rerank.py").re_ranking
    query, gallery = problem.query, problem.gallery
    return measure(
        lambda: re_ranking(
            compute(query, gallery).numpy(), compute(query, query).numpy(), compute(gallery, gallery).numpy()
        ),
        repeats=1,
    )


RUNS: dict[str, Callable[[Problem], dict[str, float]]] = {
    "scores": run_scores,
    "ranking": run_ranking,
    "rerank": run_rerank,
    "rerank_streamed": run_rerank_streamed,
    "torchreid_scores": run_torchreid_scores,
    "torchreid_rerank": run_torchreid_rerank,
}


def seconds(call: Callable[[], object]) -> float:
    """Returns the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(call: Callable[[], object], repeats: int = REPEATS) -> dict[str, float]:
    """Returns the best time of some calls, and the peak memory of the first over what was resident."""
    Path("/proc/self/clear_refs").write_text("5")
    resident = read_status("VmRSS")
    best = seconds(call)
    peak = read_status("VmHWM") - resident
    for _ in range(repeats - 1 if best < LONG_SEC else 0):
        best = min(best, seconds(call))
    return {"seconds": best, "peak": peak}


def read_status(field: str) -> int:
    """Reads a memory field of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise UserError(f"/proc/self/status has no {field}; this benchmark measures memory on Linux only")


def run_in_child(run: str, dataset: str, quick: bool) -> dict[str, float]:
    """Runs one of ``RUNS`` in a fresh process and returns what it measured."""
    command = [sys.executable, "-m", "benchmarks.evaluation", "--run", run, "--dataset", dataset]
    print(f"  running {run} at {dataset}'s size …", file=sys.stderr)
    done = subprocess.run([*command, "--quick"] if quick else command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UserError(f"{run} at {dataset}'s size ended with code {done.returncode}; its message is above")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def print_row(what: str, ours: float, other: float, ratio: str, goal: str, peak: float, limit: str) -> None:
    """Prints a line of the table; peak in bytes."""
    print(f"{what:<46}{ours:>9.2f}{other:>10.2f}{ratio:>10}{goal:>9}{peak / GIB:>10.2f}{limit:>8}")


def print_table(quick: bool) -> None:
    """Measures everything and prints a line as soon as its numbers are there."""
    cores = torch.get_num_threads()
    print(f"{'a tenth of the images; ' if quick else ''}{NUM_DIMENSIONS} dimensions, {cores} threads")
    header = ("what", "ours s", "other s", "ratio", "goal", "peak GiB", "limit")
    print("{:<46}{:>9}{:>10}{:>10}{:>9}{:>10}{:>8}".format(*header))
    print_market(quick)
    print_msmt17(quick)


def print_market(quick: bool) -> None:
    """Measures at Market-1501's size, beside Torchreid."""
    scores, ranking, reranked, their_scores, their_reranked = (
        run_in_child(run, "market1501", quick)
        for run in ("scores", "ranking", "rerank", "torchreid_scores", "torchreid_rerank")
    )
    theirs = their_scores["seconds"]
    ratio = f"{theirs / scores['seconds']:.0f}×"
    print_row("Market: distances → scores / Torchreid", scores["seconds"], theirs, ratio, "≥ 100×", scores["peak"], "–")
    theirs += their_scores["products"]
    ratio = f"{theirs / ranking['seconds']:.0f}×"
    print_row("Market: features → scores / Torchreid", ranking["seconds"], theirs, ratio, "–", ranking["peak"], "–")
    ours, theirs = reranked["seconds"], their_reranked["seconds"]
    ratio = f"{theirs / ours:.1f}×"
    print_row("Market: features → re-ranked / Torchreid", ours, theirs, ratio, "≥ 8×", reranked["peak"], "1.5")
    print(f"{'   Torchreid’s own peak':<84}{their_reranked['peak'] / GIB:>10.2f}")


def print_msmt17(quick: bool) -> None:
    """Measures at MSMT17's size, beside the bare distance products."""
    ranking = run_in_child("ranking", "msmt17", quick)
    ours, products = ranking["seconds"], ranking["products"]
    ratio = f"1/{ours / products:.2f}"
    print_row("MSMT17: features → scores / bare products", ours, products, ratio, "≥ 1/3", ranking["peak"], "2")
    for what, run in (("matrix held", "rerank"), ("streamed into scores", "rerank_streamed")):
        reranked = run_in_child(run, "msmt17", quick)
        ratio = f"1/{reranked['seconds'] / products:.1f}"
        name = f"MSMT17: re-ranked, {what} / bare products"
        print_row(name, reranked["seconds"], products, ratio, "–", reranked["peak"], "6")


@tool("evaluation")
def main(words: Sequence[str] | None = None) -> int:
    """Reads the arguments; returns the exit code."""
    parser = argparse.ArgumentParser(description="Time and memory of ranking and re-ranking, beside Torchreid's.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    parser.add_argument("--run", choices=RUNS, help="measure only this, in this process, and print it as JSON")
    parser.add_argument("--dataset", choices=SIZES, default="market1501", help="whose size --run takes")
    arguments = parser.parse_args(words)
    size = SIZES[arguments.dataset]
    if arguments.run:
        print(json.dumps(RUNS[arguments.run](Problem(size.tenth() if arguments.quick else size))))
    else:
        print_table(arguments.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
