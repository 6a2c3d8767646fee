"""Loaders: the same batches whatever the workers, processes and caches; broken files; normalisation."""

import gc
import logging
import multiprocessing
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from torchvision.transforms import functional as tvf

from datasets.base import Sample
from datasets.loaders import Batch, EvalLoader, Preparer, TrainLoader
from datasets.samplers import RandomIdentitySampler
from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD, TRANSFORMS, Pipeline
from tests.datasets.small_images import HEIGHT, NUM_IMAGES, WIDTH, assert_equal, make_loader, read_plain, write_samples
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return write_samples(tmp_path)


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
    worker.join(timeout=300)
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
