"""What each switch of the training loop changes: speed, peak memory and the losses of the first steps.

    python -m benchmarks.training model.width 0.25 data.height 128 data.width 64     # two CPU cores, some minutes
    python -m benchmarks.training train.batch_size 64                                # a GPU

Trains on random images held in memory, through the same trainer as main.py; any setting can follow as KEY VALUE. Every
row runs in fresh processes, one in each turn, the rows in alternation; "ratio" is the median over the turns of a row's
images per second to those of the first row in the same turn. A step's time is the median over the second half of its
steps. "Peak" is torch.cuda.max_memory_allocated, or on a CPU the process's highest resident memory minus what was
resident before the network was built. "Loss off by" is the largest relative difference of a step's loss to the first
row's, over all steps: same weights, same images, same path noise; channels_last, which is only another order of sums,
shows how much of it is rounding that grows from step to step.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.evaluation import GIB, read_status
from build import build_network, build_scorer, build_step, build_trainer
from datasets.base import Sample
from datasets.batch_stream import Batch
from datasets.build import Data
from datasets.loaders import Preparer, TrainLoader
from default_config import load_config, parse_pairs
from engine.interrupt import StopRequest
from utils.distributed import choose_runtime
from utils.errors import UserError
from utils.log import format_table
from utils.seed import seed_everything
from utils.tool import tool

NUM_PIDS = 100
PLAIN = "float32"
SWITCHES: dict[str, list[str]] = {
    PLAIN: [],
    "channels_last": ["train.channels_last", "True"],
    "amp bf16": ["train.amp", "bf16"],
    "amp bf16, channels_last": ["train.amp", "bf16", "train.channels_last", "True"],
    "compile": ["train.compile", "True"],
}
ON_GPU: dict[str, list[str]] = {
    "tf32": ["train.tf32", "True"],
    "amp fp16, channels_last": ["train.amp", "fp16", "train.channels_last", "True"],
    "amp bf16, channels_last, compile": ["train.amp", "bf16", "train.channels_last", "True", "train.compile", "True"],
}
ALL_GPUS = "all GPUs (DataParallel)"


class RandomBatches:
    """The same random images in every process, and the moments at which the trainer asked for each batch."""

    def __init__(self, num_steps: int, batch_size: int, height: int, width: int) -> None:
        self.samples = [Sample("random image", 0, 0)] * batch_size
        self.num_steps, self.shape = num_steps, (batch_size, 3, height, width)
        self.moments: list[float] = []

    def __len__(self) -> int:
        return self.num_steps

    def batches(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yields batches; each identity has its own mean colour, so that there is something to learn."""
        generator = torch.Generator().manual_seed(epoch)
        colours = torch.randint(60, 196, (NUM_PIDS, 3, 1, 1), generator=generator)
        for _ in range(self.num_steps):
            pids = torch.randint(NUM_PIDS, self.shape[:1], generator=generator)
            images = colours[pids] + torch.randint(-60, 60, self.shape, generator=generator)
            batch = Batch(images.to(torch.uint8), pids, torch.zeros_like(pids), torch.arange(len(pids)))
            self.moments.append(time.perf_counter())
            yield batch
        self.moments.append(time.perf_counter())


def train(settings: Sequence[str], num_steps: int) -> dict[str, Any]:
    """Trains for some steps in this process; returns images per second, peak memory in bytes and the losses."""
    defaults = {"model.name": "osnet_nas", "train.optim": "sgd", "train.lr": 0.01, "train.channels_last": False}
    overrides = {**defaults, **parse_pairs(settings)}
    with tempfile.TemporaryDirectory() as folder:
        cfg = load_config(
            [], {**overrides, "train.max_epoch": 1, "train.print_freq": num_steps, "data.save_dir": folder}
        )
        runtime = choose_runtime(cfg.use_gpu)
        seed_everything(cfg.train.seed)
        torch.set_float32_matmul_precision("high" if cfg.train.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = cfg.train.tf32
        before = read_status("VmRSS")
        batches = RandomBatches(num_steps, cfg.train.batch_size, cfg.data.height, cfg.data.width)
        data = Data(
            train=cast(TrainLoader, batches),
            targets={},
            preparer=Preparer(channels_last=cfg.train.channels_last),
            num_train_pids=NUM_PIDS,
            sources={},
        )
        (Path(folder) / "checkpoints").mkdir()
        network = build_network(cfg, NUM_PIDS)
        train_step = build_step(cfg, runtime, data, network)
        scorer = build_scorer(cfg, runtime, data, network, train_step)
        trainer = build_trainer(cfg, runtime, data, network, train_step, scorer, StopRequest(None), {})
        trainer.evaluate = None
        losses: list[float] = []
        trainer.step.loss = _record(trainer.step.loss, losses)
        trainer.fit()
    on_gpu = runtime.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else read_status("VmHWM") - before
    times = [after - before for before, after in zip(batches.moments, batches.moments[1:], strict=False)]
    step = statistics.median(times[num_steps // 2 :])
    return {"rate": cfg.train.batch_size / step, "peak": peak, "losses": losses}


def _record(loss: Callable[..., Tensor], losses: list[float]) -> Callable[..., Tensor]:
    """Returns the loss, which also writes its values down."""

    def recorded(*arguments: Any) -> Tensor:
        value = loss(*arguments)
        losses.append(float(value.detach()))
        return value

    return recorded


def run_in_child(switch: str, settings: Sequence[str], num_steps: int) -> dict[str, Any]:
    """Trains in a fresh process, on one GPU at most unless it is to use all."""
    command = [sys.executable, "-m", "benchmarks.training", "--steps", str(num_steps), "--one", *settings]
    environment = dict(os.environ)
    if switch != ALL_GPUS and torch.cuda.is_available():
        environment["CUDA_VISIBLE_DEVICES"] = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    print(f"  {switch} …", file=sys.stderr)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode:
        raise UserError(f"{switch} ended with code {done.returncode}; its message is above")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def choose_switches() -> dict[str, list[str]]:
    """Returns the rows that make sense on this machine."""
    rows = dict(SWITCHES)
    if torch.cuda.is_available():
        rows |= ON_GPU
        if torch.cuda.device_count() > 1:
            rows[ALL_GPUS] = []
    return rows


def print_table(settings: Sequence[str], num_steps: int, turns: int) -> None:
    """Measures all rows in alternation and prints the table."""
    rows = choose_switches()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in rows}
    for turn in range(turns):
        print(f"turn {turn + 1} of {turns}", file=sys.stderr)
        for name, switch in rows.items():
            found[name].append(run_in_child(name, [*settings, *switch], num_steps))
    table = []
    for name, results in found.items():
        ratios = [result["rate"] / plain["rate"] for result, plain in zip(results, found[PLAIN], strict=True)]
        losses = zip(results[0]["losses"], found[PLAIN][0]["losses"], strict=True)
        off = max(abs(loss - plain) / abs(plain) for loss, plain in losses)
        rate = statistics.median(result["rate"] for result in results)
        peak = statistics.median(result["peak"] for result in results) / GIB
        table.append((name, f"{rate:,.1f}", f"{statistics.median(ratios):.2f}", f"{peak:.2f}", f"{off:.2%}"))
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}, {num_steps} steps, {turns} turns; {' '.join(settings) or 'defaults'}")
    print(format_table(("switch", "images/s", "ratio", "peak GiB", "loss off by"), table))


@tool("training")
def main(words: Sequence[str] | None = None) -> int:
    """Reads the arguments; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--one", action="store_true", help="measure these settings, in this process, and print JSON")
    parser.add_argument("settings", nargs="*", metavar="KEY VALUE", help="any setting (config_keys.py)")
    arguments = parser.parse_intermixed_args(words)
    if arguments.one:
        print(json.dumps(train(arguments.settings, arguments.steps)))
    else:
        print_table(arguments.settings, arguments.steps, arguments.turns)
    return 0


if __name__ == "__main__":
    sys.exit(main())
