"""Every reader on a small tree of its own layout: which image is whose, of which camera, in which split."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from datasets import DATASETS
from datasets.base import ReadOptions, Sample, Splits
from utils.errors import UserError

# Below the root: images as "path pid camid" by split, and the folder of each that strays are put into.
TRAIN, QUERY, GALLERY, EXTRA, NOWHERE = "train", "query", "gallery", "extra_train", "nowhere"
MARKET = "market1501/Market-1501-v15.09.15"
DUKE = "dukemtmc-reid/DukeMTMC-reID"
UNIVERSITY = "university1652/University-Release"
TREES: dict[str, dict[str, list[str]]] = {
    "market1501": {
        TRAIN: [
            f"{MARKET}/bounding_box_train/0002_c1s1_000451_03.jpg 2 0",
            f"{MARKET}/bounding_box_train/0002_c6s1_000451_03.jpg 2 5",
            f"{MARKET}/bounding_box_train/0007_c2s3_070952_01.JPG 7 1",
        ],
        QUERY: [f"{MARKET}/query/0001_c1s1_001051_00.jpg 1 0"],
        GALLERY: [
            f"{MARKET}/bounding_box_test/0000_c1s1_000151_01.jpg 0 0",
            f"{MARKET}/bounding_box_test/0001_c4s6_000810_00.jpg 1 3",
            f"{MARKET}/bounding_box_test/1501_c3s3_074594_02.jpg 1501 2",
        ],
        NOWHERE: [f"{MARKET}/bounding_box_test/-1_c1s1_000401_03.jpg -1 0", f"{MARKET}/images/0000_c1s1_1.jpg 0 0"],
    },
    "dukemtmcreid": {
        TRAIN: [
            f"{DUKE}/bounding_box_train/0001_c2_f0046182.jpg 1 1",
            f"{DUKE}/bounding_box_train/0001_c5_f0056182.JPG 1 4",
        ],
        QUERY: [f"{DUKE}/query/0005_c8_f0058785.jpg 5 7"],
        GALLERY: [f"{DUKE}/bounding_box_test/0005_c1_f0060421.jpg 5 0"],
    },
    "msmt17": {  # the test people 0 and 1 are others than the training people 0 and 1
        TRAIN: [
            "msmt17/MSMT17_V1/train/0000/0000_000_01_0303morning_0015_0.jpg 0 0",
            "msmt17/MSMT17_V1/train/0001/0001_000_15_0303morning_0016_0.JPG 1 14",
        ],
        EXTRA: ["msmt17/MSMT17_V1/train/0001/0001_001_02_0303noon_0016_1.jpg 1 1"],
        QUERY: ["msmt17/MSMT17_V1/test/0000/0000_000_03_0303morning_0008_0.jpg 2 2"],
        GALLERY: [
            "msmt17/MSMT17_V1/test/0000/0000_001_04_0303morning_0008_0.jpg 2 3",
            "msmt17/MSMT17_V1/test/0001/0001_000_11_0302noon_0008_0.jpg 3 10",
        ],
    },
    "cuhk03": {  # the extracted images, divided by the new protocol
        TRAIN: [
            "cuhk03/images_detected/1_001_1_01.png 1001 0",
            "cuhk03/images_detected/1_001_2_06.PNG 1001 1",
            "cuhk03/images_detected/5_010_1_03.png 5010 0",
        ],
        QUERY: ["cuhk03/images_detected/1_002_1_02.png 1002 0"],
        GALLERY: [
            "cuhk03/images_detected/1_002_2_07.png 1002 1",
            "cuhk03/images_detected/2_001_2_10.png 2001 1",
        ],
        NOWHERE: ["cuhk03/images_detected/1_003_1_01.png 1003 0"],
    },
    "cuhk02": {
        TRAIN: [
            "cuhk02/Dataset/P1/cam1/001_108001.png 100001 0",
            "cuhk02/Dataset/P1/cam2/001_208001.png 100001 1",
            "cuhk02/Dataset/P2/cam1/001_1.png 200001 2",
            "cuhk02/Dataset/P2/cam2/001_1.png 200001 3",
            "cuhk02/Dataset/P3/cam1/001_1.png 300001 4",
            "cuhk02/Dataset/P3/cam2/003_1.PNG 300003 5",
            "cuhk02/Dataset/P4/cam1/001_1.png 400001 6",
            "cuhk02/Dataset/P4/cam2/001_1.png 400001 7",
        ],
        QUERY: ["cuhk02/Dataset/P5/cam1/001_1.png 500001 8"],
        GALLERY: ["cuhk02/Dataset/P5/cam2/001_1.png 500001 9"],
    },
    "cuhksysu": {
        TRAIN: [
            "cuhksysu/cropped_images/p11422_s16929_1.jpg 11422 0",
            "cuhksysu/cropped_images/p1_s10_1.JPG 1 0",
            "cuhksysu/cropped_images/p1_s2_12.jpg 1 0",
        ],
    },
    "sensereid": {
        QUERY: ["sensereid/SenseReID/test_probe/00001_0.jpg 1 0"],
        GALLERY: [
            "sensereid/SenseReID/test_gallery/00001_1.jpg 1 1",
            "sensereid/SenseReID/test_gallery/00730_1.JPG 730 1",
        ],
    },
    "university1652": {
        TRAIN: [
            f"{UNIVERSITY}/train/drone/0839/image-01.jpeg 839 0",
            f"{UNIVERSITY}/train/drone/0839/image-02.jpeg 839 1",
            f"{UNIVERSITY}/train/satellite/0839/0839.JPG 839 2",
        ],
        QUERY: [f"{UNIVERSITY}/test/query_drone/0001/image-01.jpeg 1 3"],
        GALLERY: [
            f"{UNIVERSITY}/test/gallery_satellite/0001/0001.jpg 1 4",
            f"{UNIVERSITY}/test/gallery_satellite/0002/0002.jpg 2 5",
        ],
        NOWHERE: [f"{UNIVERSITY}/test/query_satellite/0001/0001.jpg 1 0"],
    },
    "grid": {  # the partition (below) trains on person 2
        TRAIN: [
            "grid/underground_reid/gallery/0002_5_25023_116_20_80_203.jpeg 2 4",
            "grid/underground_reid/probe/0002_1_25008_169_19_94_247.JPEG 2 0",
        ],
        QUERY: ["grid/underground_reid/probe/0001_1_25004_107_32_106_221.jpeg 1 0"],
        GALLERY: [
            "grid/underground_reid/gallery/0000_8_25067_126_17_95_223.jpeg 0 7",
            "grid/underground_reid/gallery/0001_2_25023_116_20_80_203.jpeg 1 1",
        ],
    },
    # The random splits of these are tests/datasets/test_readers_random.py's; here a file of splits says 1 | 2.
    "cuhk01": {
        TRAIN: ["cuhk01/campus/0001001.png 1 0", "cuhk01/campus/0001003.png 1 1"],
        QUERY: ["cuhk01/campus/0002001.png 2 0", "cuhk01/campus/0002002.PNG 2 0"],
        GALLERY: ["cuhk01/campus/0002003.png 2 1", "cuhk01/campus/0002004.png 2 1"],
    },
    "viper": {
        TRAIN: ["viper/VIPeR/cam_a/001_45.bmp 1 0", "viper/VIPeR/cam_b/001_90.bmp 1 1"],
        QUERY: ["viper/VIPeR/cam_a/002_0.bmp 2 0"],
        GALLERY: ["viper/VIPeR/cam_b/002_135.BMP 2 1"],
    },
    "prid": {
        TRAIN: [
            "prid2011/prid_2011/single_shot/cam_a/person_0001.png 1 0",
            "prid2011/prid_2011/single_shot/cam_b/person_0001.png 1 1",
        ],
        QUERY: ["prid2011/prid_2011/single_shot/cam_a/person_0002.png 2 0"],
        GALLERY: [
            "prid2011/prid_2011/single_shot/cam_b/person_0002.png 2 1",
            "prid2011/prid_2011/single_shot/cam_b/person_0201.png 201 1",
            "prid2011/prid_2011/single_shot/cam_b/person_0749.PNG 749 1",
        ],
        NOWHERE: ["prid2011/prid_2011/single_shot/cam_a/person_0201.png 201 0"],  # another person than in cam_b
    },
    "ilids": {
        TRAIN: ["ilids/i-LIDS_Pedestrian/Persons/0001001.jpg 1 0", "ilids/i-LIDS_Pedestrian/Persons/0001002.jpg 1 1"],
        QUERY: ["ilids/i-LIDS_Pedestrian/Persons/0002002.jpg 2 1"],
        GALLERY: ["ilids/i-LIDS_Pedestrian/Persons/0002004.JPG 2 3"],
        NOWHERE: ["ilids/i-LIDS_Pedestrian/Persons/0002003.jpg 2 2"],
    },
}
RANDOM_SPLITS = {
    "cuhk01/random_splits.json": '{"splits": [{"train": ["1"], "test": ["2"]}]}',
    "viper/random_splits.json": '{"splits": [{"train": ["1"], "test": ["2"]}]}',
    "prid2011/random_splits.json": '{"splits": [{"train": ["1"], "test": ["2"]}]}',
    "ilids/random_splits.json": '{"splits": [{"train": ["0001001.jpg", "0001002.jpg"], "query": ["0002002.jpg"],'
    ' "gallery": ["0002004.JPG"]}]}',
}
# An image that belongs nowhere by its name, where a reader looks at names at all.
UNPARSABLE = {
    "market1501": f"{MARKET}/query/0001c1.jpg",
    "dukemtmcreid": f"{DUKE}/query/c1_f0060421.jpg",
    "cuhk03": "cuhk03/images_detected/6_001_1_01.png",  # the classic splits take all images there are
    "cuhk02": "cuhk02/Dataset/P5/cam1/a01_1.png",
    "cuhksysu": "cuhksysu/cropped_images/s1_p1_1.jpg",
    "sensereid": "sensereid/SenseReID/test_probe/00001.jpg",
    "university1652": f"{UNIVERSITY}/train/drone/building/image-01.jpeg",
    "grid": "grid/underground_reid/probe/0001_9_25004_107_32_106_221.jpeg",
    "cuhk01": "cuhk01/campus/0001005.png",
    "viper": "viper/VIPeR/cam_a/x01_45.bmp",
    "prid": "prid2011/prid_2011/single_shot/cam_a/person_1.png",
    "ilids": "ilids/i-LIDS_Pedestrian/Persons/1.jpg",
}
DISTRACTORS = {"market1501": {0}, "dukemtmcreid": {0}, "grid": {0}, "prid": {201, 749}}
FILE_SETS = sorted(TREES)


def touch(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def save_grid_partitions(file: Path, train_pids_of_splits: list[list[int]]) -> None:
    """Writes GRID's structure: a cell a split, in it a structure whose third field is the training people."""
    kind = [("testA", object), ("testB", object), ("train", object)]
    cells = np.empty((1, len(train_pids_of_splits)), dtype=object)
    for position, pids in enumerate(train_pids_of_splits):
        cells[0, position] = np.array([[(np.array([[1]]), np.array([[1]]), np.array([pids], np.uint16))]], dtype=kind)
    savemat(file, {"trainIdxAll": cells})


def save_cuhk03_config(file: Path) -> None:
    """Writes the new protocol's structure: all images and people, and the positions of each part, from 1."""
    parts = {"train_idx": TRAIN, "query_idx": QUERY, "gallery_idx": GALLERY}
    lines = [line.split() for part in parts.values() for line in TREES["cuhk03"][part]]
    names = [Path(path).name for path, _, _ in lines]
    content = {
        key: [[1 + names.index(Path(line.split()[0]).name)] for line in TREES["cuhk03"][part]]
        for key, part in parts.items()
    }
    labels = [[int(pid)] for _, pid, _ in lines]
    savemat(file, {"filelist": np.array(names, dtype=object)[:, None], "labels": labels, **content})


def make_tree(root: Path, name: str) -> None:
    for lines in TREES[name].values():
        for line in lines:
            touch(root / line.split()[0])
    for path, text in RANDOM_SPLITS.items():
        if (root / path).parent.is_dir():
            (root / path).write_text(text)
    if name == "grid":
        save_grid_partitions(root / "grid/underground_reid/features_and_partitions.mat", [[2]])
    if name == "cuhk03":
        save_cuhk03_config(root / "cuhk03/cuhk03_new_protocol_config_detected.mat")
    if name == "msmt17":
        lists = {"train": TRAIN, "val": EXTRA, "query": QUERY, "gallery": GALLERY}
        for part, key in lists.items():
            first = 2 if part in ("query", "gallery") else 0
            lines = [
                f"{path.split('/', 3)[3]} {int(pid) - first}\n"
                for path, pid, _ in (line.split() for line in reversed(TREES[name][key]))
            ]
            (root / f"msmt17/MSMT17_V1/list_{part}.txt").write_text("".join(lines))


def expected(root: Path, name: str, part: str) -> list[Sample]:
    fields = (line.split() for line in TREES[name].get(part, []))
    return [Sample(f"{root}/{path}", int(pid), int(camid)) for path, pid, camid in fields]


def assert_expected(root: Path, name: str, splits: Splits) -> None:
    for part in (TRAIN, QUERY, GALLERY, EXTRA):
        assert list(getattr(splits, part)) == expected(root, name, part), part


def image_folders(root: Path, name: str) -> set[Path]:
    parts = (TRAIN, QUERY, GALLERY)
    return {(root / line.split()[0]).parent for part in parts for line in TREES[name].get(part, [])}


def test_every_data_set_has_a_tree() -> None:
    assert set(TREES) == {name for name in DATASETS if not name.startswith("synthetic")} - {"folder"}
    assert set(TREES) - set(UNPARSABLE) == {"msmt17"}  # tests/datasets/test_readers_market.py


@pytest.mark.parametrize("name", FILE_SETS)
def test_every_tree_has_an_upper_case_ending(name: str) -> None:
    lines = [line for part in (TRAIN, QUERY, GALLERY) for line in TREES[name].get(part, [])]
    assert any(Path(line.split()[0]).suffix[1:].isupper() for line in lines)


@pytest.mark.parametrize("name", FILE_SETS)
def test_reads_the_tree(name: str, tmp_path: Path) -> None:
    make_tree(tmp_path, name)
    assert_expected(tmp_path, name, DATASETS[name](tmp_path, ReadOptions()))


CAMERA_IN_PATH = {  # how a camera's name stands in an image's path; other data sets name none
    "market1501": "_c{}s", "dukemtmcreid": "_c{}_", "msmt17": "_{:0>2}_", "cuhk03": "_{}_", "cuhk02": "/{}/",
    "sensereid": "_{}.", "grid": "_{}_", "viper": "/{}/", "prid": "/{}/", "ilids": "{:0>3}.",
}  # fmt: skip


@pytest.mark.parametrize("name", CAMERA_IN_PATH)
def test_cameras_are_named_as_in_the_files(name: str, tmp_path: Path) -> None:
    make_tree(tmp_path, name)
    splits = DATASETS[name](tmp_path, ReadOptions())
    for sample in (*splits.train, *splits.query, *splits.gallery):
        assert CAMERA_IN_PATH[name].format(splits.names.camera(sample.camid)) in sample.path


@pytest.mark.parametrize("name", FILE_SETS)
def test_distractors(name: str, tmp_path: Path) -> None:
    make_tree(tmp_path, name)
    assert DATASETS[name](tmp_path, ReadOptions()).distractor_pids == DISTRACTORS.get(name, set())


@pytest.mark.parametrize(("split_id", "train_pid"), [(0, 1), (1, 2)])
def test_grid_partition_by_split_id(split_id: int, train_pid: int, tmp_path: Path) -> None:
    make_tree(tmp_path, "grid")
    save_grid_partitions(tmp_path / "grid/underground_reid/features_and_partitions.mat", [[1], [2]])
    splits = DATASETS["grid"](tmp_path, ReadOptions(split_id=split_id))
    assert {s.pid for s in splits.train} == {train_pid}
    with pytest.raises(UserError, match="grid has splits 0 to 1"):
        DATASETS["grid"](tmp_path, ReadOptions(split_id=2))


@pytest.mark.parametrize("content", [b"", b"text", b"MATLAB 5.0 MAT-file" + bytes(200)])
def test_grid_damaged_partitions(content: bytes, tmp_path: Path) -> None:
    make_tree(tmp_path, "grid")
    file = tmp_path / "grid/underground_reid/features_and_partitions.mat"
    file.write_bytes(content)
    with pytest.raises(UserError, match="does not hold GRID's partitions"):
        DATASETS["grid"](tmp_path, ReadOptions())
    file.unlink()
    with pytest.raises(UserError, match="no file"):
        DATASETS["grid"](tmp_path, ReadOptions())


def test_grid_partitions_of_unknown_people(tmp_path: Path) -> None:
    make_tree(tmp_path, "grid")
    save_grid_partitions(tmp_path / "grid/underground_reid/features_and_partitions.mat", [[2, 9]])
    with pytest.raises(UserError, match="person 9 of GRID's partitions"):
        DATASETS["grid"](tmp_path, ReadOptions())


@pytest.mark.parametrize("name", FILE_SETS)
def test_lists_are_sorted(name: str, tmp_path: Path) -> None:
    make_tree(tmp_path, name)
    splits = DATASETS[name](tmp_path, ReadOptions())
    for samples in (splits.train, splits.query, splits.gallery, splits.extra_train):
        assert list(samples) == sorted(samples)


@pytest.mark.parametrize("name", FILE_SETS)
def test_passes_over_strays(name: str, tmp_path: Path) -> None:
    make_tree(tmp_path, name)
    for folder in image_folders(tmp_path, name):
        for stray in ("Thumbs.db", "readme.txt", ".DS_Store", "._0001_c1.jpg", "noending", "archive.jpg.part"):
            touch(folder / stray)
        (folder / "a_folder.jpg").mkdir()
    assert_expected(tmp_path, name, DATASETS[name](tmp_path, ReadOptions()))


@pytest.mark.parametrize("name", FILE_SETS)
def test_follows_links(name: str, tmp_path: Path) -> None:
    """The set lies elsewhere: its folder is a link, and so is one of its images."""
    store, root = tmp_path / "store", tmp_path / "root"
    make_tree(store, name)
    image = store / TREES[name].get(TRAIN, TREES[name].get(GALLERY, []))[0].split()[0]
    image.rename(tmp_path / "the_image")
    image.symlink_to(tmp_path / "the_image")
    root.mkdir()
    top = next(iter(store.iterdir())).name
    (root / top).symlink_to(store / top)
    assert_expected(root, name, DATASETS[name](root, ReadOptions()))


def _link_through_a_file(image: Path) -> None:
    touch(image.with_name("file"))
    image.symlink_to(image.with_name("file") / "image")


@pytest.mark.parametrize("name", FILE_SETS)
@pytest.mark.parametrize(
    ("put", "told"),
    [
        (lambda image: image.symlink_to(image.with_name("gone")), "IMAGE is a link that leads to no file: "),
        (lambda image: image.symlink_to(image), "cannot read IMAGE: Too many levels of symbolic links"),
        (_link_through_a_file, "cannot read IMAGE: Not a directory"),
        (os.mkfifo, "IMAGE is not a file but a pipe or the like: "),
    ],
    ids=["link to nowhere", "link to itself", "link through a file", "pipe"],
)
def test_refuses_what_cannot_be_read(name: str, put: Callable[[Path], None], told: str, tmp_path: Path) -> None:
    make_tree(tmp_path, name)
    image = tmp_path / TREES[name].get(TRAIN, TREES[name].get(GALLERY, []))[0].split()[0]
    image.unlink()
    put(image)
    with pytest.raises(UserError) as caught:
        DATASETS[name](tmp_path, ReadOptions())
    assert str(caught.value).startswith(told.replace("IMAGE", str(image)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILE_SETS)
def test_refuses_a_folder_that_may_not_be_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path, name)
    closed = min(image_folders(tmp_path, name))
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("datasets.files.os.scandir", refuse)
    with pytest.raises(UserError, match=f"^cannot read {closed}: Permission denied$"):
        DATASETS[name](tmp_path, ReadOptions())


@pytest.mark.parametrize("name", sorted(UNPARSABLE))
def test_refuses_a_name_that_says_nothing(name: str, tmp_path: Path) -> None:
    make_tree(tmp_path, name)
    bad = touch(tmp_path / UNPARSABLE[name])
    named = bad.parent if name == "university1652" else bad
    with pytest.raises(UserError, match="expected") as caught:
        DATASETS[name](tmp_path, ReadOptions(cuhk03_classic_split=True))
    assert str(named) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILE_SETS)
def test_refuses_a_missing_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*: expected "):
        DATASETS[name](tmp_path, ReadOptions())


@pytest.mark.parametrize(
    ("name", "part"),
    [(name, part) for name in FILE_SETS for part in (TRAIN, QUERY, GALLERY) if TREES[name].get(part)],
)
def test_refuses_an_empty_part(name: str, part: str, tmp_path: Path) -> None:
    make_tree(tmp_path, name)
    for image in expected(tmp_path, name, part):
        Path(image.path).unlink()
    with pytest.raises(UserError) as caught:
        DATASETS[name](tmp_path, ReadOptions())
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", FILE_SETS)
def test_one_number_is_one_person(name: str, tmp_path: Path) -> None:
    """Nobody is in training and in the test."""
    make_tree(tmp_path, name)
    splits = DATASETS[name](tmp_path, ReadOptions())
    train = {s.pid for s in [*splits.train, *splits.extra_train]}
    assert not train & {s.pid for s in [*splits.query, *splits.gallery]}
