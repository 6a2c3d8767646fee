"""Images per second of the training pipeline and of a plain Pillow and torchvision one, and the workers' memory.

    python -m benchmarks.data_pipeline [--root ROOT] [--images 4096] [--seconds 5] [--memory-epochs 5]
    python -m benchmarks.data_pipeline --listing

Both pipelines decode, resize to 256 × 128, flip, jitter and normalise the same files and hand batches of 64 float
images to the main process; every figure is the best of several short turns, taken in alternation, so that other load
on the machine hits all of them alike. ROOT holds Market-1501; without it JPEGs of its size (128 × 64) are drawn.
With --listing nothing of this runs: it prints the time to read the file list of MSMT17, the largest data set, from
as many lists and empty files as the real ones; the goal is under 3 s.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from datasets.base import ReadOptions, Sample, merge_sources
from datasets.cache import ImageCache, open_cache
from datasets.loaders import Preparer, TrainLoader
from datasets.market1501 import read_market1501
from datasets.msmt17 import read_msmt17
from datasets.samplers import RandomSampler
from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD, Pipeline
from utils.errors import UserError
from utils.log import format_table
from utils.tool import tool

HEIGHT, WIDTH, BATCH_SIZE, TURNS = 256, 128, 64, 5
TRANSFORMS = ("random_flip", "color_jitter")
MSMT17 = {  # by list: folder, identities, images
    "train": ("train", 1_041, 30_248),
    "val": ("train", 1_041, 2_373),
    "query": ("test", 3_060, 11_659),
    "gallery": ("test", 3_060, 82_161),
}
LISTING_TARGET_SEC = 3


class PlainDataset(Dataset[tuple[Tensor, int]]):
    """What most projects do: one Pillow image after the other through torchvision's transforms."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples
        self.transform = transforms.Compose(
            [
                transforms.Resize((HEIGHT, WIDTH)),
                transforms.RandomHorizontalFlip(),
                transforms.ColorJitter(brightness=0.2, contrast=0.15),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.samples[index].path) as image:
            return self.transform(image.convert("RGB")), self.samples[index].pid


def draw_images(folder: Path, count: int) -> list[Sample]:
    """Draws JPEGs of Market-1501's size, with detail so that they decode no faster than photographs."""
    samples = []
    for index in range(count):
        rng = np.random.default_rng(index)
        coarse = Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((64, 128), Image.Resampling.BICUBIC)).astype(int)
        noisy = (pixels + rng.integers(-20, 21, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{index:05}.jpg", quality=90)
        samples.append(Sample(str(folder / f"{index:05}.jpg"), index // 8, index % 6))
    return samples


def repeat_epochs(start: Callable[[int], Iterable[object]]) -> Iterator[object]:
    """Yields batches without end, epoch after epoch."""
    epoch = 0
    while True:
        yield from start(epoch)
        epoch += 1


def run_plain(samples: list[Sample], workers: int) -> Iterator[object]:
    """The plain pipeline."""
    loader = DataLoader(
        PlainDataset(samples), BATCH_SIZE, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True
    )
    return repeat_epochs(lambda epoch: loader)


def build_loader(samples: list[Sample], workers: int, cache: ImageCache | None, late: bool) -> TrainLoader:
    """This project's loader."""
    return TrainLoader(
        samples,
        RandomSampler(samples, seed=1),
        batch_size=BATCH_SIZE,
        height=HEIGHT,
        width=WIDTH,
        pipeline=Pipeline(TRANSFORMS, HEIGHT, WIDTH, seed=1),
        workers=workers,
        cache=cache,
        augment_on_device=late,
        pin_memory=late and torch.cuda.is_available(),
    )


def run_ours(samples: list[Sample], workers: int, cache: ImageCache | None, late: bool) -> Iterator[object]:
    """This project's pipeline; ``late`` leaves augmentation and normalisation to a GPU, or out where there is none."""
    loader = build_loader(samples, workers, cache, late)
    if late and not torch.cuda.is_available():
        return repeat_epochs(loader.batches)
    device = torch.device("cuda" if late else "cpu")
    prepare = Preparer(pipeline=Pipeline(TRANSFORMS, HEIGHT, WIDTH, seed=1))
    return (prepare(batch, device) for batch in repeat_epochs(loader.batches))  # type: ignore[arg-type]


def measure_turn(batches: Iterator[object], seconds: float) -> float:
    """Takes batches for a while after eight to warm up; returns images per second."""
    for _ in range(8):
        next(batches)
    started, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds:
        next(batches)
        count += BATCH_SIZE
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return count / passed


def compare(samples: list[Sample], cache: ImageCache, workers: int, seconds: float) -> None:
    """Prints images per second and ratios for one number of workers."""
    late = "augmented on the GPU" if torch.cuda.is_available() else "host part alone, as for a GPU"
    makers = {
        "plain": lambda: run_plain(samples, workers),
        "ours": lambda: run_ours(samples, workers, None, False),
        "ours, RAM cache": lambda: run_ours(samples, workers, cache, False),
        f"ours, {late}": lambda: run_ours(samples, workers, None, True),
        f"ours, RAM cache, {late}": lambda: run_ours(samples, workers, cache, True),
    }
    turns: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(TURNS):
        for name, make in makers.items():  # each turn has its own workers: idle ones of others would only wait
            turns[name].append(measure_turn(make(), seconds / TURNS))
    rows = []
    for name, rates in turns.items():
        ratios = [rate / plain for rate, plain in zip(rates, turns["plain"], strict=True)]
        rows.append((name, f"{max(rates):,.0f}", f"{max(rates) / max(turns['plain']):.1f}",
                     f"{statistics.median(ratios):.1f}"))  # fmt: skip
    print(format_table((f"{workers} worker(s)", "images/s", "ratio of bests", "median ratio"), rows), "\n")


def read_worker_memory() -> float:
    """Private memory of this process's workers, MB: what they do not share with it or with each other."""
    total = 0
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            rollup = Path(f"/proc/{child}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))
    return total / 1024


def watch_memory(samples: list[Sample], epochs: int) -> None:
    """Prints the memory of two workers after each epoch: a leak would grow."""
    loader = build_loader(samples, 2, None, late=False)
    sizes = []
    for epoch in range(epochs):
        for _ in loader.batches(epoch):
            pass
        sizes.append(read_worker_memory())
    print("private memory of 2 workers after each epoch, MB:", " ".join(f"{size:.1f}" for size in sizes))


def make_msmt17(root: Path) -> None:
    """Makes MSMT17's folders and lists, with as many people and images as the real one; the images are empty files."""
    base = root / "msmt17" / "MSMT17_V1"
    for part, (folder, num_people, num_images) in MSMT17.items():
        for pid in range(num_people):
            (base / folder / f"{pid:04}").mkdir(parents=True, exist_ok=True)
        lines = []
        for index in range(num_images):
            pid, number = index % num_people, index // num_people
            name = f"{pid:04}/{pid:04}_{number:03}_{1 + index % 15:02}_0303morning_{index:05}_{part}.jpg"
            (base / folder / name).touch()
            lines.append(f"{name} {pid}\n")
        (base / f"list_{part}.txt").write_text("".join(lines))


def measure_listing(root: Path) -> None:
    """Prints how long the reader of MSMT17 takes; the files are made first."""
    make_msmt17(root)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        splits = read_msmt17(root, ReadOptions())
        times.append(time.perf_counter() - started)
    count = sum(map(len, (splits.train, splits.extra_train, splits.query, splits.gallery)))
    best, meant = min(times), LISTING_TARGET_SEC
    print(f"{count:,} files of MSMT17 listed in {best:.2f} s (best of 3): {best / meant:.2f} of the {meant} s meant")


@tool("data_pipeline")
def main(words: Sequence[str] | None = None) -> int:
    """Reads the arguments; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder that holds market1501/; none: drawn images")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure")
    parser.add_argument("--memory-epochs", type=int, default=5)
    parser.add_argument("--listing", action="store_true", help="measure how long MSMT17's file list takes, alone")
    args = parser.parse_args(words)
    if args.images < BATCH_SIZE or args.memory_epochs < 0 or not 0 < args.seconds < 1e6:
        raise UserError(f"--images must be at least {BATCH_SIZE}, --memory-epochs at least 0, --seconds above 0")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if args.listing:
            measure_listing(Path(folder))
            return 0
        if args.root:
            samples = merge_sources([read_market1501(args.root, ReadOptions()).train])[: args.images]
        else:
            samples = draw_images(Path(folder), args.images)
        if len(samples) < BATCH_SIZE:
            raise UserError(f"{args.root} has {len(samples)} training images, a batch takes {BATCH_SIZE}")
        print(f"{len(samples)} images, {len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}\n")
        cache = open_cache("ram", [s.path for s in samples], HEIGHT, WIDTH, Path(folder))
        assert cache is not None
        for workers in (1, 2):
            compare(samples, cache, workers, args.seconds)
        watch_memory(samples, args.memory_epochs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
