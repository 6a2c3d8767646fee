"""26 small pictures of 7 people, and loaders of them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from datasets.base import Sample
from datasets.decode import decode_image, resize
from datasets.loaders import Batch, TrainLoader
from datasets.samplers import RandomSampler
from datasets.transforms import TRANSFORMS, Pipeline

HEIGHT, WIDTH, IMAGES_PER_PID = 32, 16, 4
NUM_IMAGES = 26


def write_samples(folder: Path) -> list[Sample]:
    """Writes the pictures, below ``images``; the last person has 2."""
    made = []
    for i in range(NUM_IMAGES):
        path = folder / "images" / f"{i:02}.jpg"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (8, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((20, 40), Image.Resampling.BICUBIC).save(path)
        made.append(Sample(str(path), i // IMAGES_PER_PID, i % 3))
    return made


def make_loader(samples: list[Sample], workers: int = 0, batch_size: int = 6, **options: object) -> TrainLoader:
    settings: dict = {"height": HEIGHT, "width": WIDTH, "pipeline": Pipeline(TRANSFORMS, HEIGHT, WIDTH, seed=5)}
    sampler = RandomSampler(samples, seed=5)
    return TrainLoader(samples, sampler, batch_size=batch_size, workers=workers, **(settings | options))


def assert_equal(some: list[Batch], others: list[Batch]) -> None:
    assert len(some) == len(others) > 0
    for a, b in zip(some, others, strict=True):
        for x, y in zip(a, b, strict=True):
            assert (x is None or y is None) == (x is y)
            assert x is None or y is None or torch.equal(x, y)


def read_plain(sample: Sample) -> torch.Tensor:
    return resize(decode_image(sample.path), HEIGHT, WIDTH)
