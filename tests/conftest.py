"""What all tests share: one computing thread, quiet logs between tests, and a small drawn data set."""

import gc
import logging
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

import run as run_module
from engine import footprint
from main import main
from tests.fork_server import ForkServer
from utils.complexity import compute_complexity

torch.set_num_threads(1)
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # where the tests themselves run under nohup


def pytest_collection_finish():
    """Spares the half million objects of the libraries the garbage collection, which they would slow down."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture(autouse=True)
def _fresh_log():
    """Takes off the handlers that a run has put on the root logger."""
    yield
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if getattr(handler, "from_start_log", False):
            root.removeHandler(handler)
            handler.close()
    root.setLevel(logging.WARNING)


@pytest.fixture(autouse=True, scope="session")
def _count_once():
    """Lets runs count multiply-adds, and a step's memory, once for each network that many build: seconds each time."""

    def once(function, describe):
        known = {}

        def call(subject, *more):
            key = f"{describe(subject)} {more}"
            if key not in known:
                known[key] = function(subject, *more)
            return known[key]

        return call

    def describe_step(step):
        recomputing = [getattr(module, "recomputes", None) for module in step.model.modules()]
        weights = [(p.device, p.dtype, p.stride(), p.requires_grad) for p in step.model.parameters()]
        return f"{step.model} {recomputing} {weights} {type(step.task)} {step.amp}"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "compute_complexity", once(compute_complexity, str))
        patch.setattr(footprint, "measure_footprint", once(footprint.measure_footprint, describe_step))
        yield


def write_market_tree(root: Path, *, num_train: int = 6, num_test: int = 4, per_camera: int = 3, seed: int = 0) -> Path:
    """Writes a tiny Market-1501: people are two colours, each image has noise and a camera's brightness.

    Returns:
        ``root``.
    """
    rng = np.random.default_rng(seed)
    base = root / "market1501" / "Market-1501-v15.09.15"
    for split, first, count in (("bounding_box_train", 1, num_train), ("test", 101, num_test)):
        for pid in range(first, first + count):
            top, bottom = rng.integers(30, 226, (2, 3))
            for camera in (1, 2):
                for number in range(per_camera):
                    part = split if split != "test" else "query" if number == 0 else "bounding_box_test"
                    pixels = np.concatenate([np.tile(top, (24, 24, 1)), np.tile(bottom, (24, 24, 1))])
                    pixels = pixels + rng.normal(0, 12, pixels.shape) + 15 * camera
                    path = base / part / f"{pid:04d}_c{camera}s1_{number:06d}_00.jpg"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return root


@pytest.fixture(scope="session")
def market_root(tmp_path_factory):
    """A tiny data set in Market-1501's layout, not to be changed."""
    return write_market_tree(tmp_path_factory.mktemp("data"))


@pytest.fixture
def own_market_root(tmp_path):
    """The same, to be broken by a test."""
    return write_market_tree(tmp_path / "data")


# settings that make a run small: 36 training images, three batches per epoch
SMALL = [
    "model.width", "0.25", "data.height", "32", "data.width", "16", "data.workers", "0", "train.batch_size", "12",
    "train.max_epoch", "2", "test.batch_size", "16", "test.ranks", "[1, 5]", "data.transforms", "[]",
]  # fmt: skip


@pytest.fixture
def run_main(market_root, tmp_path):
    """Runs main with small settings on the tiny data set; returns the exit code."""

    def run(*words, root=market_root, save_dir=tmp_path / "run", name="osnet_child"):
        settings = ["model.name", name, "data.save_dir", str(save_dir), *SMALL]
        return main(["--root", str(root), *settings, *map(str, words)])

    return run


@pytest.fixture(scope="session")
def server():
    """Starts runs in processes of their own, without their half dozen seconds of imports."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def undrawn(monkeypatch):
    """Lets searches end without pictures and report, for tests that run several and look at none."""
    for name in ("save_figure", "write_report"):
        monkeypatch.setattr(f"search.ending.{name}", lambda *_: None)
