"""Loaders from a config: what is built, and what is refused before the first batch."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from yacs.config import CfgNode

from datasets.build import build_loaders, build_targets
from default_config import load_config
from tests.shares import run_shares
from utils.errors import UserError

CPU = torch.device("cpu")


def write_market(root: Path, train_ids: int = 4, cameras: tuple[int, ...] = (1, 2)) -> Path:
    """A tiny Market-1501: 2 images of each person under each camera; returns its folder."""
    folder = root / "market1501" / "Market-1501-v15.09.15"
    parts = {"bounding_box_train": range(1, 1 + train_ids), "query": [90, 91], "bounding_box_test": [0, 90, 91]}
    for part, pids in parts.items():
        (folder / part).mkdir(parents=True)
        for pid in pids:
            for camera in cameras:
                for number in range(2):
                    pixels = np.random.default_rng([pid, camera, number]).integers(0, 256, (40, 20, 3), dtype=np.uint8)
                    name = f"{pid:04}_c{camera}s1_{number:06}_00.jpg"
                    Image.fromarray(pixels).save(folder / part / name)
    return folder


def make_config(root: Path, **overrides: object) -> CfgNode:
    small = {"data.height": 32, "data.width": 32, "data.workers": 0, "train.batch_size": 4, "data.root": str(root)}
    return load_config([], small | {name.replace("__", "."): value for name, value in overrides.items()})


def test_loaders_and_summary(tmp_path: Path) -> None:
    write_market(tmp_path)

    data = build_loaders(make_config(tmp_path, data__transforms=["random_flip", "color_jitter"]), CPU)

    assert data.train
    assert (data.num_train_pids, len(data.train)) == (4, 4)
    (batch, *_) = data.train.batches(0)
    assert data.preparer(batch, CPU).shape == (4, 3, 32, 32)
    assert list(data.targets) == ["market1501"]
    assert [len(s) for s in (data.targets["market1501"].query.samples, data.targets["market1501"].gallery.samples)] == [
        8,
        12,
    ]
    table = [line.split() for line in data.summary().splitlines()]
    assert ["market1501", "train", "4", "16", "2"] in table
    assert ["market1501", "gallery", "3", "12", "2"] in table


def test_combineall_trains_on_everybody_but_distractors(tmp_path: Path) -> None:
    duke = tmp_path / "dukemtmc-reid" / "DukeMTMC-reID"
    duke.parent.mkdir()
    duke.symlink_to(write_market(tmp_path))

    data = build_loaders(make_config(tmp_path, data__combineall=True, data__targets=["dukemtmcreid"]), CPU)

    assert data.train
    assert data.num_train_pids == 6
    assert len(data.train.samples) == 16 + 8 + 8


@pytest.mark.parametrize("targets", [["market1501"], []])
def test_combineall_leaves_a_source_that_is_a_target_its_standard_split(tmp_path: Path, targets: list[str]) -> None:
    write_market(tmp_path)

    data = build_loaders(make_config(tmp_path, data__combineall=True, data__targets=targets), CPU)

    assert data.train
    assert data.num_train_pids == 4
    assert len(data.train.samples) == 16


def test_people_to_train_on_are_those_with_the_lowest_numbers(tmp_path: Path) -> None:
    write_market(tmp_path)
    everybody = build_loaders(make_config(tmp_path), CPU).train
    assert everybody
    lowest = sorted({s.pid for s in everybody.samples})[:3]

    data = build_loaders(make_config(tmp_path, data__max_train_ids=3), CPU)

    assert data.train
    assert data.num_train_pids == 3
    names = {s.path for s in data.train.samples}
    assert names == {s.path for s in everybody.samples if s.pid in lowest}
    with pytest.raises(UserError, match=r"data\.max_train_ids 5: market1501 has 4 people to train on; lower it"):
        build_loaders(make_config(tmp_path, data__max_train_ids=5), CPU)


def test_targets_need_no_training_images(tmp_path: Path) -> None:
    folder = write_market(tmp_path)
    for path in (folder / "bounding_box_train").iterdir():
        path.write_bytes(b"")  # readable by nobody

    (target,) = build_targets(make_config(tmp_path), CPU).targets.values()

    assert sum(len(batch.pids) for batch in target.gallery) == 12


def test_a_cache_is_kept_beside_the_data(tmp_path: Path) -> None:
    write_market(tmp_path)

    build_loaders(make_config(tmp_path, data__cache="disk"), CPU)

    assert len(list((tmp_path / "image-cache").glob("*.u8"))) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data__sources": ["market1051"]}, "unknown data set 'market1051'; did you mean 'market1501'"),
        ({"data__transforms": ["colour_jitter"]}, "did you mean 'color_jitter'"),
        ({"sampler__train_sampler": "RandomIdentitySample"}, "did you mean 'RandomIdentitySampler'"),
        ({"train__batch_size": 17}, "batch_size 17 is larger than the 16 training images"),
        (
            {"sampler__train_sampler": "RandomDomainSampler", "sampler__num_cams": 3},
            "num_cams 3: the training data has 2",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, overrides: dict[str, object], message: str) -> None:
    write_market(tmp_path)

    with pytest.raises(UserError, match=message) as caught:
        build_loaders(make_config(tmp_path, **overrides), CPU)

    assert "\n" not in str(caught.value)


def test_a_single_identity_is_refused(tmp_path: Path) -> None:
    write_market(tmp_path, train_ids=1)

    with pytest.raises(UserError, match=r"4 images of 1 identities; .* at least 2"):
        build_loaders(make_config(tmp_path), CPU)


def test_a_single_camera_cannot_be_tested(tmp_path: Path) -> None:
    write_market(tmp_path, cameras=(1,))

    with pytest.raises(UserError, match="under another camera"):
        build_loaders(make_config(tmp_path), CPU)


def test_batch_must_hold_two_identities_for_the_triplet_loss(tmp_path: Path) -> None:
    """Over all processes: one of them may have images of one identity alone."""
    write_market(tmp_path)
    settings = {"loss__name": "triplet", "sampler__train_sampler": "RandomIdentitySampler"}
    build_loaders(make_config(tmp_path, **settings, train__batch_size=8), CPU, rank=0, world_size=2)
    with pytest.raises(UserError, match="images of one identity, the triplet loss needs two: 8 or more"):
        build_loaders(make_config(tmp_path, **settings, train__batch_size=4), CPU)


def test_zero_cameras_or_data_sets_are_all(tmp_path: Path) -> None:
    write_market(tmp_path)
    for sampler, key in (("RandomDomainSampler", "num_cams"), ("RandomDatasetSampler", "num_datasets")):
        cfg = make_config(tmp_path, sampler__train_sampler=sampler, **{f"sampler__{key}": 0})
        train = build_loaders(cfg, CPU).train
        assert train
        if key == "num_cams":
            assert all(len(set(batch.camids.tolist())) == 2 for batch in train.batches(0))


def test_images_are_compared_by_name_label_and_order(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_market(tmp_path / folder)
    first, second = (build_loaders(make_config(tmp_path / folder), CPU) for folder in ("a", "b"))
    assert first.hash_images() == second.hash_images()
    gallery = tmp_path / "b" / "market1501" / "Market-1501-v15.09.15" / "bounding_box_test"
    next(iter(sorted(gallery.iterdir()))).unlink()
    fewer = build_loaders(make_config(tmp_path / "b"), CPU)
    assert fewer.hash_images() != first.hash_images()
    assert fewer.hash_training_images() == first.hash_training_images()


def test_batch_must_hold_whole_identities(tmp_path: Path) -> None:
    """Over all processes, as without torchrun."""
    write_market(tmp_path)
    settings = {"sampler__train_sampler": "RandomIdentitySampler", "sampler__num_instances": 4}
    for world_size in (1, 2, 4):
        train = build_loaders(make_config(tmp_path, **settings, train__batch_size=8), CPU, 0, world_size).train
        assert train
        assert len(train) == 2
    with pytest.raises(UserError, match="batch_size 10 is no multiple of"):
        build_loaders(make_config(tmp_path, **settings, train__batch_size=10), CPU)


def test_processes_of_a_machine_share_the_check_of_its_files(tmp_path: Path) -> None:
    write_market(tmp_path)
    broken = next(tmp_path.rglob("bounding_box_train/*.jpg"))
    broken.write_bytes(b"")
    cfg = make_config(tmp_path, data__on_corrupt="skip")
    both = run_shares(2, lambda share: build_loaders(cfg, CPU, share.index, share.count, share))
    for data in both:
        assert str(broken) not in [s.path for samples in data.sources.values() for s in samples]


@pytest.mark.parametrize("part", ["bounding_box_train", "query"])
def test_broken_files_are_named_and_refused_or_left_out(
    tmp_path: Path, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_market(tmp_path)
    first, second = sorted((folder / part).iterdir())[:2]
    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:200])

    with pytest.raises(UserError, match=f"2 broken image.*{first.name}.*{second.name}.*on_corrupt skip"):
        build_loaders(make_config(tmp_path), CPU)
    with caplog.at_level(logging.WARNING):
        data = build_loaders(make_config(tmp_path, data__on_corrupt="skip"), CPU)

    assert data.train
    samples = data.train.samples if part == "bounding_box_train" else data.targets["market1501"].query.samples
    assert not {str(first), str(second)} & {s.path for s in samples}
    assert first.name in caplog.text
    assert second.name in caplog.text
