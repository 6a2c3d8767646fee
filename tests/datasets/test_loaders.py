"""Loaders: the same batches whatever the workers, processes and caches; broken files; normalisation."""

import fcntl
import gc
import logging
import multiprocessing
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as tvf

from datasets import cache as cache_module
from datasets.base import Sample
from datasets.cache import ImageCache, open_cache
from datasets.decode import decode_image, resize
from datasets.loaders import Batch, EvalLoader, Preparer, TrainLoader
from datasets.samplers import RandomIdentitySampler, RandomSampler
from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD, TRANSFORMS, Pipeline
from utils.errors import UserError

HEIGHT, WIDTH, IMAGES_PER_PID = 32, 16, 4
NUM_IMAGES = 26
CPU = torch.device("cpu")


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """26 pictures of 7 people, the last with 2."""
    made = []
    for i in range(NUM_IMAGES):
        path = tmp_path / "images" / f"{i:02}.jpg"
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


# the same whatever the machine


@pytest.mark.parametrize("late", [False, True])
def test_batches_do_not_depend_on_the_number_of_workers(samples: list[Sample], late: bool) -> None:
    epochs = {}
    for workers in (0, 1, 2):
        loader = make_loader(samples, workers, augment_on_device=late)
        epochs[workers] = [batch for epoch in (0, 1) for batch in loader.batches(epoch)]

    assert len(epochs[0]) == 2 * (NUM_IMAGES // 6)
    assert_equal(epochs[0], epochs[1])
    assert_equal(epochs[0], epochs[2])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_be_started_in_the_middle(samples: list[Sample], workers: int) -> None:
    loader = make_loader(samples, workers)
    whole = list(loader.batches(3))

    broken_off = loader.batches(7)
    next(broken_off)

    assert_equal(list(loader.batches(3, first_batch=2)), whole[2:])


def test_an_earlier_pass_cannot_go_on_beside_a_later_one(samples: list[Sample]) -> None:
    loader = make_loader(samples)
    earlier = loader.batches(0)
    next(earlier)
    next(loader.batches(1))

    with pytest.raises(RuntimeError, match="earlier pass"):
        next(earlier)


def test_processes_share_a_batch(samples: list[Sample]) -> None:
    names = [name for name in TRANSFORMS if name != "random_patch"]  # which takes donors from its own part
    options: dict = {"pipeline": Pipeline(names, HEIGHT, WIDTH, seed=5)}
    whole = list(make_loader(samples, **options).batches(2))
    parts = [list(make_loader(samples, rank=rank, world_size=3, **options).batches(2)) for rank in range(3)]

    joined = [Batch(*(torch.cat(fields) for fields in zip(*[b[:4] for b in batches], strict=True)))
              for batches in zip(*parts, strict=True)]  # fmt: skip

    assert_equal(joined, whole)


def test_an_identitys_images_stay_in_one_process(samples: list[Sample]) -> None:
    sampler = RandomIdentitySampler(samples, seed=0, batch_size=8, num_instances=2)
    loader = TrainLoader(samples, sampler, batch_size=8, height=HEIGHT, width=WIDTH, rank=1, world_size=2)

    for batch in loader.batches(0):
        assert torch.equal(batch.pids[0::2], batch.pids[1::2])


def test_batches_carry_the_labels_of_their_images(samples: list[Sample]) -> None:
    seen = []
    for batch in make_loader(samples, 1, pipeline=None).batches(0):
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (6, 3, HEIGHT, WIDTH)
        assert batch.params is None
        for image, pid, camid, index in zip(*batch[:4], strict=True):
            assert torch.equal(image, read_plain(samples[index]))
            assert samples[index][1:3] == (pid, camid)
            seen.append(int(index))

    assert len(set(seen)) == len(seen) == 24


def test_batches_keep_their_images_when_later_ones_arrive(samples: list[Sample]) -> None:
    batches = make_loader(samples, 1).batches(0)
    first = next(batches)
    copy = first.images.clone()
    list(batches)

    assert torch.equal(first.images, copy)


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_keeps_the_order(samples: list[Sample], workers: int) -> None:
    loader = EvalLoader(samples, batch_size=8, height=HEIGHT, width=WIDTH, workers=workers)

    for _ in range(2):
        batches = list(loader)
        assert [len(batch.pids) for batch in batches] == [8, 8, 8, 2]
        assert len(loader) == 4
        assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(NUM_IMAGES))
        assert torch.equal(batches[-1].images[1], read_plain(samples[-1]))


def test_evaluation_takes_no_more_memory_than_its_images(samples: list[Sample]) -> None:
    loader = EvalLoader(samples, batch_size=10**12, height=HEIGHT, width=WIDTH)

    assert loader.batch_size == NUM_IMAGES
    assert [len(batch.pids) for batch in loader] == [NUM_IMAGES]
    assert len(EvalLoader([], batch_size=10**12, height=HEIGHT, width=WIDTH)) == 0


def test_evaluation_is_divided_between_processes(samples: list[Sample]) -> None:
    loaders = [EvalLoader(samples, batch_size=5, height=HEIGHT, width=WIDTH, rank=r, world_size=3) for r in range(3)]

    indices = [[int(i) for batch in loader for i in batch.indices] for loader in loaders]

    assert indices == [list(range(rank, NUM_IMAGES, 3)) for rank in range(3)]
    assert [len(loader) for loader in loaders] == [2, 2, 2]


def test_workers_ignore_stop_signals_of_others(samples: list[Sample]) -> None:
    gc.collect()  # the workers of other tests end
    loader = make_loader(samples, 1)
    batches = loader.batches(0)
    received = [next(batches)]
    (worker,) = multiprocessing.active_children()
    assert worker.pid
    os.kill(worker.pid, signal.SIGINT)
    os.system(f"kill -TERM {worker.pid}")  # from a process that is not its parent

    assert len(received + list(batches)) == len(loader)
    worker.terminate()
    worker.join(timeout=20)
    assert worker.exitcode == 0


# what goes into the network


def test_late_augmentation_gives_the_same_pixels(samples: list[Sample]) -> None:
    pipeline = Pipeline(TRANSFORMS, HEIGHT, WIDTH, seed=5)
    prepare = Preparer(pipeline=pipeline)

    for early, late in zip(
        make_loader(samples).batches(0), make_loader(samples, augment_on_device=True).batches(0), strict=True
    ):
        assert early.params is None
        assert torch.equal(prepare(early, CPU), prepare(late, CPU))
        with pytest.raises(ValueError, match="no pipeline"):
            Preparer()(late, CPU)


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalisation_is_torchvisions(samples: list[Sample], channels_last: bool) -> None:
    (batch, *_) = make_loader(samples).batches(0)

    images = Preparer(channels_last=channels_last)(batch, CPU)

    expected = tvf.normalize(batch.images.double() / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    torch.testing.assert_close(images.double(), expected, rtol=1e-6, atol=1e-6)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert images.is_contiguous(memory_format=layout)


# settings that cannot work


def test_a_batch_larger_than_the_data_is_refused(samples: list[Sample]) -> None:
    with pytest.raises(UserError, match="batch_size 27 is larger than the 26 training images"):
        make_loader(samples, batch_size=27)


def test_a_batch_that_processes_cannot_share_is_refused(samples: list[Sample]) -> None:
    with pytest.raises(UserError, match="batch_size 6 cannot be shared equally by 4 processes"):
        make_loader(samples, world_size=4)


# broken files


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_stops_the_run_in_one_line(samples: list[Sample], workers: int) -> None:
    Path(samples[9].path).unlink()

    with pytest.raises(UserError, match=r"09\.jpg") as caught:
        list(make_loader(samples, workers).batches(0))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_replaced_by_the_identitys_next(
    samples: list[Sample], workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    for index in (7, 4):  # images 4 to 7 are one person's
        Path(samples[index].path).write_bytes(b"not an image")
    loader = make_loader(samples, workers, on_corrupt="skip", pipeline=None, batch_size=26)

    with caplog.at_level(logging.WARNING):
        batches = [batch for epoch in range(3) for batch in loader.batches(epoch)]

    for epoch, batch in enumerate(batches):
        asked = loader.sampler.indices(epoch)
        stand_ins = {7: 5, 4: 5}
        assert batch.indices.tolist() == [stand_ins.get(i, i) for i in asked.tolist()]
        assert batch.camids.tolist() == [samples[i].camid for i in batch.indices]
        place = asked.tolist().index(7)
        assert torch.equal(batch.images[place], read_plain(samples[5]))
    assert sorted(re.findall(r"\d\d\.jpg", caplog.text)) == ["04.jpg", "07.jpg"]


def test_an_identity_without_a_readable_image_stops_the_run(samples: list[Sample]) -> None:
    for index in (24, 25):
        Path(samples[index].path).unlink()

    with pytest.raises(UserError, match=r"none of the 2 images of identity 6 can be read .*24\.jpg"):
        list(make_loader(samples, on_corrupt="skip", batch_size=26).batches(0))


# the cache


@pytest.fixture
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in place of the machine's shared memory."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(cache_module, "_SHARED_MEMORY", folder)
    yield folder
    gc.collect()


def open_for(samples: list[Sample], kind: str, folder: Path, skip_broken: bool = False) -> ImageCache:
    opened = open_cache(kind, [s.path for s in samples], HEIGHT, WIDTH, folder, skip_broken)
    assert opened is not None
    return opened


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_goes_on_without_a_broken_image(
    samples: list[Sample], caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    Path(samples[9].path).write_bytes(b"")
    with pytest.raises(UserError, match=r"09\.jpg"):
        list(EvalLoader(samples, batch_size=8, height=HEIGHT, width=WIDTH, workers=workers))

    loader = EvalLoader(samples, batch_size=8, height=HEIGHT, width=WIDTH, workers=workers, on_corrupt="skip")
    for _ in range(2):
        batches = list(loader)
        pids = torch.cat([batch.pids for batch in batches])
        images = torch.cat([batch.images for batch in batches])
        assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(len(samples)))
        assert pids.tolist() == [-1 if i == 9 else s.pid for i, s in enumerate(samples)]
        assert not images[9].any()
        assert torch.equal(images[10], read_plain(samples[10]))
    assert caplog.text.count("09.jpg: no score counts it") == 1


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_changes_nothing(
    samples: list[Sample], tmp_path: Path, shared_memory: Path, kind: str, workers: int
) -> None:
    cache = open_for(samples, kind, tmp_path / "cache")
    expected = list(make_loader(samples).batches(1))
    shutil.rmtree(tmp_path / "images")

    assert_equal(list(make_loader(samples, workers, cache=cache).batches(1)), expected)


def test_no_cache() -> None:
    assert open_cache("none", [], HEIGHT, WIDTH, Path()) is None


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_a_cache_is_filled_once(
    samples: list[Sample], tmp_path: Path, shared_memory: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    first = open_for(samples, kind, tmp_path)
    monkeypatch.setattr(cache_module, "decode_image", None)

    second = open_for(samples, kind, tmp_path)

    assert torch.equal(first[3], second[3])


def test_filling_a_cache_is_left_at_once(
    samples: list[Sample], tmp_path: Path, shared_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def decode_slowly(path: str) -> torch.Tensor:
        decoded.append(path)
        time.sleep(0.001)
        return torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)

    def interrupted(items: Iterable[object], total: int, label: str) -> Iterator[object]:
        yield next(iter(items))
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_module, "decode_image", decode_slowly)
    monkeypatch.setattr(cache_module, "progress", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_for(samples * 1000, "ram", tmp_path)
    assert len(decoded) < len(samples) * 500
    assert not list(shared_memory.glob("*.part"))


def test_a_cache_is_filled_anew_when_a_file_or_the_size_changes(samples: list[Sample], tmp_path: Path) -> None:
    open_for(samples, "disk", tmp_path)
    os.utime(samples[3].path, ns=(1, 1))
    open_for(samples, "disk", tmp_path)
    open_for(samples[1:], "disk", tmp_path)
    open_cache("disk", [s.path for s in samples], HEIGHT + 1, WIDTH, tmp_path)

    assert len(list(tmp_path.glob("*.u8"))) == 4


def test_a_cache_in_memory_goes_with_its_last_user(samples: list[Sample], shared_memory: Path) -> None:
    first, second = (open_for(samples, "ram", Path()) for _ in range(2))
    del first
    gc.collect()
    assert len(list(shared_memory.glob("*.u8"))) == 1

    del second
    gc.collect()
    assert list(shared_memory.iterdir()) == []


def test_leftovers_of_killed_processes_are_removed_and_used_caches_are_not(
    samples: list[Sample], shared_memory: Path
) -> None:
    prefix = f"reid-images-{os.getuid()}-"
    for name in ("killed.u8", "killed.lock", "used.u8", "used.lock"):
        (shared_memory / (prefix + name)).touch()
    with (shared_memory / (prefix + "used.lock")).open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        cache = open_for(samples, "ram", Path())
        left = {path.name for path in shared_memory.glob(prefix + "*.u8")}

    assert len(cache) == NUM_IMAGES
    assert prefix + "used.u8" in left
    assert len(left) == 2


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_a_cache_that_does_not_fit_is_refused(
    samples: list[Sample], tmp_path: Path, shared_memory: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 0, 20_000))

    with pytest.raises(UserError, match=r"26 images need 0\.04 MB, .* has 0\.02 MB available"):
        open_for(samples, kind, tmp_path)

    assert not list(tmp_path.glob("*.u8"))


def test_a_broken_image_stops_the_filling(samples: list[Sample], tmp_path: Path) -> None:
    Path(samples[9].path).write_bytes(b"")

    with pytest.raises(UserError, match=r"09\.jpg"):
        open_for(samples, "disk", tmp_path)

    assert not [path for path in tmp_path.glob("reid-images*") if path.suffix != ".lock"]


def test_a_file_that_is_back_is_read_though_the_cache_lacks_it(samples: list[Sample], tmp_path: Path) -> None:
    content = Path(samples[9].path).read_bytes()
    expected = list(make_loader(samples).batches(0))
    Path(samples[9].path).unlink()
    cache = open_for(samples, "disk", tmp_path, skip_broken=True)
    Path(samples[9].path).write_bytes(content)

    assert_equal(list(make_loader(samples, cache=cache).batches(0)), expected)


@pytest.mark.parametrize("left", [0, 1000])
def test_a_cache_that_was_cut_off_is_filled_anew(samples: list[Sample], tmp_path: Path, left: int) -> None:
    expected = open_for(samples, "disk", tmp_path)[25].clone()
    [path] = tmp_path.glob("*.u8")
    os.truncate(path, left)

    assert torch.equal(open_for(samples, "disk", tmp_path)[25], expected)


def test_processes_that_open_a_cache_together_do_not_wait_for_each_other(
    samples: list[Sample], tmp_path: Path, shared_memory: Path
) -> None:
    """Each keeps the cache until all have it, as processes do that train together."""
    context = multiprocessing.get_context("fork")
    for _ in range(10):
        barrier = context.Barrier(4)
        processes = [context.Process(target=open_and_meet, args=(samples, tmp_path, barrier)) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 4


def open_and_meet(samples: list[Sample], folder: Path, barrier: threading.Barrier) -> None:
    barrier.wait(20)
    cache = open_for(samples, "ram", folder)
    barrier.wait(20)
    assert cache.is_readable(0)


def test_the_memory_of_the_own_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "job"
    group.mkdir()
    for name, text in {"memory.max": "5000000", "memory.current": "3000000",
                       "memory.stat": "anon 1\ninactive_file 500000\n"}.items():  # fmt: skip
        (group / name).write_text(text)
    monkeypatch.setattr(
        cache_module, "_find_memory_groups", lambda: [(group, ("memory.max", "memory.current")), (tmp_path, ("a", "b"))]
    )
    assert cache_module._available_memory() == 2_500_000


def test_a_cache_remembers_broken_images(samples: list[Sample], tmp_path: Path) -> None:
    Path(samples[9].path).unlink()
    cache = open_for(samples, "disk", tmp_path, skip_broken=True)

    expected = list(make_loader(samples, on_corrupt="skip").batches(0))
    assert_equal(list(make_loader(samples, on_corrupt="skip", cache=cache).batches(0)), expected)
    with pytest.raises(UserError, match=r"09\.jpg"):
        list(make_loader(samples, cache=cache, batch_size=26).batches(0))


def test_a_folder_that_cannot_be_written_is_told(samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UserError, match=r"data\.cache disk: cannot write to .*file"):
        open_for(samples, "disk", tmp_path / "file" / "cache")
