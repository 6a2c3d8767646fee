"""The readers beside Torchreid 0.2.5's, where it is installed, on trees of empty files with names as in the real sets.

Torchreid numbers people anew and in no fixed order, so people are compared as groups of images. Its random splits are
its own; there the sizes are compared, on sets of the real size (it refuses others).
"""

import importlib
import random
import sys
import types
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from datasets import DATASETS
from datasets.base import ReadOptions, training_samples

Groups = set[frozenset[tuple[str, int]]]
TWO_CAMERAS = ("cam_a", "cam_b")


@pytest.fixture(scope="module")
def torchreid_sets() -> Iterable[Callable[..., Any]]:
    """Gives a function (module, class, root, options) → Torchreid's data set."""
    pytest.importorskip("torchreid")

    def make(module: str, name: str, root: Path, **options: object) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = importlib.import_module(f"torchreid.reid.data.datasets.image.{module}")
            return getattr(loaded, name)(root=str(root), verbose=False, **options)

    with pytest.MonkeyPatch.context() as patch:  # gdown is only for downloads
        if importlib.util.find_spec("gdown") is None:
            patch.setitem(sys.modules, "gdown", types.ModuleType("gdown"))
        yield make


def touch(root: Path, names: Iterable[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def market_tree(root: Path, folder: str, cameras: int, others: list[int]) -> None:
    """Others are people in the gallery only; junk (-1) and distractors (0) are Market-1501's alone."""
    draw = random.Random(1)
    for part, pids in (("bounding_box_train", [2, 7, 11]), ("query", [1, 3]), ("bounding_box_test", [1, 3, *others])):
        names = [f"{pid:04}_c{draw.randint(1, cameras)}s1_{n:06}_00.jpg" for pid in pids for n in range(5)]
        touch(root / folder / part, [name.replace("-001", "-1") for name in names])


def msmt17_tree(root: Path) -> None:
    draw = random.Random(1)
    folder = root / "msmt17" / "MSMT17_V1"
    for tree, parts, people in (("train", ("train", "val"), 4), ("test", ("query", "gallery"), 6)):
        lines: dict[str, list[str]] = {part: [] for part in parts}
        for pid in range(people):
            for n in range(6):
                name = f"{pid:04}/{pid:04}_{n:03}_{draw.randint(1, 15):02}_0303morning_0015_{n}.jpg"
                touch(folder / tree, [name])
                lines[parts[n % 2]].append(f"{name} {pid}\n")
        for part in parts:
            (folder / f"list_{part}.txt").write_text("".join(draw.sample(lines[part], len(lines[part]))))


def cuhk02_tree(root: Path) -> None:
    for pair in range(1, 6):
        for camera in (1, 2):
            names = [f"{pid:03}_{camera}0800{n}.png" for pid in range(1, 3 + pair) for n in (1, 2)]
            touch(root / f"cuhk02/Dataset/P{pair}/cam{camera}", names)


def cuhksysu_tree(root: Path) -> None:
    touch(root / "cuhksysu/cropped_images", [f"p{pid}_s{pid + n}_{n}.jpg" for pid in (1, 2, 10, 11934) for n in (1, 2)])


def sensereid_tree(root: Path) -> None:
    touch(root / "sensereid/SenseReID/test_probe", [f"{pid:05}_0.jpg" for pid in (1, 2)])
    touch(root / "sensereid/SenseReID/test_gallery", [f"{pid:05}_1.jpg" for pid in (1, 2, 3)])


def university_tree(root: Path) -> None:
    folder = root / "university1652/University-Release"
    touch(folder, [f"train/{v}/{pid:04}/{n}.jpeg" for v in ("drone", "google") for pid in (839, 840) for n in (1, 2)])
    touch(folder, [f"test/query_drone/{pid:04}/{n}.jpeg" for pid in (1, 2) for n in (1, 2)])
    touch(folder, [f"test/gallery_satellite/{pid:04}/{pid:04}.jpg" for pid in (1, 2, 3)])


def grid_tree(root: Path) -> None:
    folder = root / "grid/underground_reid"
    touch(folder / "probe", [f"{pid:04}_{1 + pid % 8}_25004_107.jpeg" for pid in range(1, 251)])
    touch(folder / "gallery", [f"{pid:04}_{1 + pid % 5}_25004_107.jpeg" for pid in range(1, 251)])
    touch(folder / "gallery", [f"0000_{1 + n % 8}_{n}.jpeg" for n in range(775)])
    cells = np.empty((1, 10), dtype=object)
    draw = random.Random(1)
    for position in range(10):
        pids = np.array([sorted(draw.sample(range(1, 251), 125))], np.uint8)
        structure = [(np.array([[1]]), np.array([[2]]), pids)]
        cells[0, position] = np.array([structure], dtype=[("a", object), ("b", object), ("c", object)])
    savemat(folder / "features_and_partitions.mat", {"trainIdxAll": cells})


def cuhk01_tree(root: Path) -> None:
    touch(root / "cuhk01/campus", [f"{pid:04}{n:03}.png" for pid in range(1, 972) for n in (1, 2, 3, 4)])


def viper_tree(root: Path) -> None:
    for camera in TWO_CAMERAS:
        touch(root / "viper/VIPeR" / camera, [f"{pid:03}_{45 * (pid % 4)}.bmp" for pid in range(632)])


def prid_tree(root: Path) -> None:
    for camera, last in zip(TWO_CAMERAS, (385, 749), strict=True):
        touch(root / "prid2011/prid_2011/single_shot" / camera, [f"person_{pid:04}.png" for pid in range(1, last + 1)])


def ilids_tree(root: Path) -> None:
    names = [f"{pid:04}{n:03}.jpg" for pid in range(1, 120) for n in range(1, 5)]
    touch(root / "ilids/i-LIDS_Pedestrian/Persons", names)


def group(samples: Iterable[Any]) -> Groups:
    """The images of each person, as (path, camera)."""
    people: dict[int, set[tuple[str, int]]] = {}
    for path, pid, camid, _ in samples:
        people.setdefault(pid, set()).add((str(Path(path)), camid))
    return {frozenset(images) for images in people.values()}


GIVEN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "market1501": (
        lambda root: market_tree(root, "market1501/Market-1501-v15.09.15", 6, [-1, 0, 5]),
        "market1501",
        "Market1501",
    ),
    "dukemtmcreid": (
        lambda root: market_tree(root, "dukemtmc-reid/DukeMTMC-reID", 8, [5, 6]),
        "dukemtmcreid",
        "DukeMTMCreID",
    ),
    "msmt17": (msmt17_tree, "msmt17", "MSMT17"),
    "cuhk02": (cuhk02_tree, "cuhk02", "CUHK02"),
    "cuhksysu": (cuhksysu_tree, "cuhksysu", "CUHKSYSU"),
    "sensereid": (sensereid_tree, "sensereid", "SenseReID"),
    "university1652": (university_tree, "university1652", "University1652"),
    "grid": (grid_tree, "grid", "GRID"),
}
NO_COMMON_CAMERAS = {"university1652"}  # a number an image, in an order of no meaning


@pytest.mark.parametrize("name", sorted(GIVEN))
@pytest.mark.parametrize("combineall", [False, True])
def test_given_splits(name: str, combineall: bool, torchreid_sets: Callable[..., Any], tmp_path: Path) -> None:
    make_tree, module, class_name = GIVEN[name]
    make_tree(tmp_path)
    splits = DATASETS[name](tmp_path, ReadOptions())
    reference = torchreid_sets(module, class_name, tmp_path, combineall=combineall)

    def same(ours: Iterable[Any], theirs: Iterable[Any]) -> bool:
        if name in NO_COMMON_CAMERAS:
            ours, theirs = ([(p, pid, 0, 0) for p, pid, _, _ in samples] for samples in (ours, theirs))
        return group(ours) == group(theirs)

    if name != "sensereid":  # Torchreid fills its training part with the test images
        assert same(training_samples(splits, combineall), reference.train)
    if name != "cuhksysu":  # Torchreid fills its test with a training image
        assert same(splits.query, reference.query)
        assert same(splits.gallery, reference.gallery)
        assert same([*splits.query, *splits.gallery], [*reference.query, *reference.gallery])


@pytest.mark.parametrize("split_id", [0, 4, 9])
def test_grid_partitions(split_id: int, torchreid_sets: Callable[..., Any], tmp_path: Path) -> None:
    grid_tree(tmp_path)
    splits = DATASETS["grid"](tmp_path, ReadOptions(split_id=split_id))
    reference = torchreid_sets("grid", "GRID", tmp_path, split_id=split_id)
    assert group(splits.train) == group(reference.train)
    assert group([*splits.query, *splits.gallery]) == group([*reference.query, *reference.gallery])


RANDOM: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "cuhk01": (cuhk01_tree, "cuhk01", "CUHK01"),
    "viper": (viper_tree, "viper", "VIPeR"),
    "prid": (prid_tree, "prid", "PRID"),
    "ilids": (ilids_tree, "ilids", "iLIDS"),
}


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_random_splits(name: str, torchreid_sets: Callable[..., Any], tmp_path: Path) -> None:
    make_tree, module, class_name = RANDOM[name]
    make_tree(tmp_path)
    for split_id in (0, 1):
        splits = DATASETS[name](tmp_path, ReadOptions(split_id=split_id))
        reference = torchreid_sets(module, class_name, tmp_path, split_id=split_id)
        parts = ((splits.train, reference.train), (splits.query, reference.query), (splits.gallery, reference.gallery))
        for ours, theirs in parts:
            assert len(ours) == len(theirs)
            assert len(group(ours)) == len(group(theirs))
            if name != "ilids":  # there, cameras are of the images drawn
                assert {camid for _, _, camid, _ in ours} == {camid for _, _, camid, _ in theirs}
