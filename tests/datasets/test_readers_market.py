"""Market-1501's layout and MSMT17's, beyond the small trees; Market-1501 itself where REID_DATA tells its root."""

import os
from pathlib import Path

import pytest

from datasets.base import ReadOptions, Splits, count_identities, merge_sources, training_samples
from datasets.dukemtmcreid import read_dukemtmcreid
from datasets.market1501 import read_market1501, read_market_layout
from datasets.msmt17 import read_msmt17
from utils.errors import UserError

REID_DATA = os.environ.get("REID_DATA", "")


def make(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def make_layout(folder: Path) -> Path:
    make(folder / "bounding_box_train", "0001_c1s1_1.jpg", "0001_c2s1_1.jpg")
    make(folder / "query", "0002_c1s1_1.jpg")
    make(folder / "bounding_box_test", "0002_c2s1_1.jpg", "0000_c1s1_1.jpg", "-1_c1s1_1.jpg")
    return folder


def test_market_without_the_inner_folder(tmp_path: Path) -> None:
    make_layout(tmp_path / "market1501")
    assert len(read_market1501(tmp_path, ReadOptions()).gallery) == 2


def test_market_500k_are_distractors(tmp_path: Path) -> None:
    folder = make_layout(tmp_path / "market1501" / "Market-1501-v15.09.15")
    make(folder / "images", "0000_c2s3_000001_00.jpg", "0017_c2s3_000001_00.jpg", "-1_c2s3_000001_00.jpg")
    splits = read_market1501(tmp_path, ReadOptions(market1501_500k=True))
    assert [s.pid for s in splits.gallery] == [0, 2, 0, 0]
    assert splits.distractor_pids == {0}
    assert len(read_market1501(tmp_path, ReadOptions()).gallery) == 2


def test_market_500k_missing(tmp_path: Path) -> None:
    make_layout(tmp_path / "market1501")
    with pytest.raises(UserError, match=r"no folder .*images"):
        read_market1501(tmp_path, ReadOptions(market1501_500k=True))


def test_market_combineall_leaves_distractors_and_junk_out(tmp_path: Path) -> None:
    make_layout(tmp_path / "market1501")
    names = [Path(s.path).name for s in training_samples(read_market1501(tmp_path, ReadOptions()), combineall=True)]
    assert names == ["0001_c1s1_1.jpg", "0001_c2s1_1.jpg", "0002_c1s1_1.jpg", "0002_c2s1_1.jpg"]


@pytest.mark.parametrize(("camera", "is_market"), [(0, None), (6, True), (7, False), (8, False), (9, None)])
def test_cameras_are_those_of_the_data_set(camera: int, is_market: bool | None, tmp_path: Path) -> None:
    """Market-1501 has cameras 1 to 6, DukeMTMC-reID 1 to 8."""
    for folder, reader, fits in (
        ("market1501", read_market1501, is_market is True),
        ("dukemtmc-reid/DukeMTMC-reID", read_dukemtmcreid, is_market is not None),
    ):
        make_layout(tmp_path / folder)
        make(tmp_path / folder / "query", f"0002_c{camera}s1_2.jpg")
        if fits:
            assert max(s.camid for s in reader(tmp_path, ReadOptions()).query) == camera - 1
        else:
            with pytest.raises(UserError, match=f"0002_c{camera}s1_2.jpg"):
                reader(tmp_path, ReadOptions())


def test_layout_takes_any_camera(tmp_path: Path) -> None:
    make_layout(tmp_path)
    make(tmp_path / "query", "0002_c12s1_2.jpg")
    assert [s.camid for s in read_market_layout(tmp_path, "synthetic").query] == [11, 0]


def test_layout_with_junk_only(tmp_path: Path) -> None:
    make_layout(tmp_path)
    (tmp_path / "query" / "0002_c1s1_1.jpg").rename(tmp_path / "query" / "-1_c1s1_1.jpg")
    with pytest.raises(UserError, match="junk images"):
        read_market_layout(tmp_path, "x")


def make_msmt17(root: Path, version: str = "MSMT17_V1", train: str = "train", test: str = "test") -> Path:
    folder = root / "msmt17" / version
    make(folder / train / "0000", "0000_000_01_a.jpg", "0000_001_02_a.jpg")
    make(folder / test / "0000", "0000_000_01_a.jpg", "0000_001_02_a.jpg")
    for part, line in (("train", "000_01"), ("val", "001_02"), ("query", "000_01"), ("gallery", "001_02")):
        (folder / f"list_{part}.txt").write_text(f"0000/0000_{line}_a.jpg 0\n")
    return folder


def test_msmt17_version_2(tmp_path: Path) -> None:
    make_msmt17(tmp_path, "MSMT17_V2", "mask_train_v2", "mask_test_v2")
    splits = read_msmt17(tmp_path, ReadOptions())
    assert [(Path(s.path).parts[-3], s.pid, s.camid) for s in [*splits.train, *splits.query]] == [
        ("mask_train_v2", 0, 0),
        ("mask_test_v2", 1, 0),
    ]


def test_msmt17_prefers_version_1(tmp_path: Path) -> None:
    make_msmt17(tmp_path, "MSMT17_V2", "mask_train_v2", "mask_test_v2")
    make_msmt17(tmp_path)
    assert "MSMT17_V1" in read_msmt17(tmp_path, ReadOptions()).train[0].path


def test_msmt17_combineall_keeps_test_people_apart(tmp_path: Path) -> None:
    make_msmt17(tmp_path)
    splits = read_msmt17(tmp_path, ReadOptions())
    labels = [s.pid for s in merge_sources([training_samples(splits, combineall=True)])]
    assert labels == [0, 0, 1, 1]
    assert len(training_samples(splits, combineall=False)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff0000/0000_000_01_a.jpg 0\n",
        "./0000/0000_000_01_a.jpg 0\n",
        "0000/../0000//0000_000_01_a.jpg 0\r\n",
        "0000/0000_000_01_a.jpg 0\n\n./0000/0000_000_01_a.jpg\t0\n0000/0000_000_01_a.jpg 0",
    ],
    ids=["byte order mark", "dot", "dots and a Windows line end", "listed three times"],
)
def test_msmt17_lists_as_people_rewrite_them(text: str, tmp_path: Path) -> None:
    """A byte order mark, other spellings of a path, and an image listed more than once change nothing."""
    folder = make_msmt17(tmp_path)
    unchanged = read_msmt17(tmp_path, ReadOptions())
    for part in ("train", "query"):
        (folder / f"list_{part}.txt").write_bytes(text.encode())
    assert read_msmt17(tmp_path, ReadOptions()) == unchanged


def test_msmt17_list_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    folder = make_msmt17(tmp_path)
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(UserError, match=f"^cannot read {folder}/list_train.txt: Permission denied$"):
        read_msmt17(tmp_path, ReadOptions())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0000/0000_009_01_a.jpg 0\n", "line 1: no image .*0000_009_01_a.jpg"),
        ("0000/0000_000_01_a.jpg zero\n", "line 1: .* is not 'path pid'"),
        ("0000/0000_000_01_a.jpg\n", "line 1: .* is not 'path pid'"),
        ("\n\n", "lists no image"),
        ("0000/0000_000_01_a.jpg 0\n0000/0000_000_01_a.jpg 1\n", "line 2: .*01_a.jpg is listed for another person"),
    ],
)
def test_msmt17_refuses_a_wrong_list(line: str, message: str, tmp_path: Path) -> None:
    folder = make_msmt17(tmp_path)
    (folder / "list_query.txt").write_text(line)
    with pytest.raises(UserError, match=message):
        read_msmt17(tmp_path, ReadOptions())


@pytest.mark.parametrize(
    ("name", "message"),
    [("0000_000_16_a.jpg", "camera 16"), ("0000_000_00_a.jpg", "camera 0"), ("0000-01.jpg", "expected")],
)
def test_msmt17_refuses_a_wrong_name(name: str, message: str, tmp_path: Path) -> None:
    folder = make_msmt17(tmp_path)
    make(folder / "test" / "0000", name)
    (folder / "list_query.txt").write_text(f"0000/{name} 0\n")
    with pytest.raises(UserError, match=message):
        read_msmt17(tmp_path, ReadOptions())


def test_msmt17_missing_list(tmp_path: Path) -> None:
    (make_msmt17(tmp_path) / "list_val.txt").unlink()
    with pytest.raises(UserError, match=r"no file .*list_val.txt"):
        read_msmt17(tmp_path, ReadOptions())


def test_msmt17_missing_version(tmp_path: Path) -> None:
    (tmp_path / "msmt17").mkdir()
    with pytest.raises(UserError, match="MSMT17_V1 or MSMT17_V2"):
        read_msmt17(tmp_path, ReadOptions())


@pytest.mark.skipif(not REID_DATA, reason="REID_DATA names no folder with Market-1501")
def test_market_itself() -> None:
    """The counts that the data set's readme and reference implementations give."""
    splits = read_market1501(Path(REID_DATA), ReadOptions())

    def counts(splits: Splits) -> list[tuple[int, int]]:
        return [(count_identities(part), len(part)) for part in (splits.train, splits.query, splits.gallery)]

    assert counts(splits) == [(751, 12_936), (750, 3_368), (751, 15_913)]  # gallery: 750 and the distractors' 0
    assert {s.camid for s in splits.train} == set(range(6))
    assert splits == read_market1501(Path(REID_DATA), ReadOptions())
    labels = merge_sources([splits.train])
    assert [s.pid for s in labels[:3]] == [0, 0, 0]
    assert Path(labels[0].path).name == "0002_c1s1_000451_03.jpg"
    assert labels[-1].pid == 750
