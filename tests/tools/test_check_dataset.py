"""The command line: exit codes, what it prints, the contact sheet."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import DATASETS
from datasets.base import ReadOptions
from datasets.layouts import LAYOUTS
from tools.check_dataset import PUBLISHED, main, published_counts
from tools.make_synthetic import main as make_synthetic
from utils.contact_sheet import Cell

FEW = ["--train-ids", "2", "--test-ids", "2", "--cameras", "2", "--images-per-camera", "2",
       "--height", "32", "--width", "16"]  # fmt: skip


def save_image(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Data of one's own without a fault, in the root and as a small Market-1501."""
    names = ["train/a/1_1.png", "train/a/2_1.png", "query/b/1_1.png", "gallery/b/2_1.png", "gallery/c/2_1.png"]
    for seed, name in enumerate(names):
        save_image(tmp_path / name, seed)
    return tmp_path


def test_nothing_wrong(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folder", "--root", str(root)]) == 0
    output = capsys.readouterr().out
    assert output.splitlines()[-1] == "no problem"
    assert "note: gallery identities seen by one camera only: 1 (c)" in output
    assert "cameras, as the files name them: 1, 2\n" in output
    assert "PROBLEM" not in output


@pytest.mark.parametrize("quick", [[], ["--quick"]])
def test_broken_copied_and_leaked(quick: list[str], root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "train/a/3_1.png").write_text("not an image")
    (root / "query/b/3_1.png").write_bytes((root / "train/a/1_1.png").read_bytes())
    save_image(root / "gallery/a/4_1.png", 99)
    assert main(["folder", "--root", str(root), *quick]) == 1
    problems = [line for line in capsys.readouterr().out.splitlines() if line.startswith("PROBLEM")]
    assert problems == [
        f"PROBLEM: broken image {root}/train/a/3_1.png: not an image: begins with b'not an i'",
        f"PROBLEM: same content in training and in the test: 1 ({root}/query/b/3_1.png = {root}/train/a/1_1.png)",
        "PROBLEM: identities in training and in the test: 1 (a)",
    ]


def test_drawn_images_are_compared_with_their_checksums(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_synthetic(["--root", str(tmp_path), "--domains", "e", "--workers", "1", *FEW]) == 0
    words = ["synthetic_e", "--root", str(tmp_path), "--quick", *FEW]
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out.startswith(f"synthetic_e in {tmp_path}/synthetic/")
    file = next(tmp_path.rglob("query/*.jpg"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert main(words) == 2
    assert f"images 1 changed ('query/{file.name}'); delete" in capsys.readouterr().err


def test_quick_does_not_decode(root: Path) -> None:
    file = root / "train/a/1_1.png"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    assert main(["folder", "--root", str(root), "--quick"]) == 0
    assert main(["folder", "--root", str(root)]) == 1


def test_a_test_that_cannot_be_answered(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "gallery/b/2_1.png").rename(root / "gallery/b/1_2.png")
    assert main(["folder", "--root", str(root)]) == 1
    assert (
        "PROBLEM: folder: no query has a gallery image of its identity under another camera" in capsys.readouterr().out
    )


def test_sheet(root: Path, tmp_path: Path) -> None:
    """One row, person b under cameras 1 and 2: the pixels of the query under its label."""
    file = tmp_path / "sheet.png"
    assert main(["folder", "--root", str(root), "--sheet", str(file)]) == 0
    with Image.open(file) as sheet, Image.open(root / "query/b/1_1.png") as image:
        assert sheet.size == (2 * 64, 128 + 12)
        np.testing.assert_array_equal(np.asarray(sheet)[12:, :64], np.asarray(image.resize((64, 128))))


@pytest.mark.parametrize("content", [b"", b"not an image", None], ids=["empty", "text", "damaged inside"])
@pytest.mark.parametrize("quick", [[], ["--quick"]])
def test_sheet_marks_a_broken_image(
    content: bytes | None, quick: list[str], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cell is empty but for a cross; the other image is drawn, and the problems are reported as without a sheet."""
    broken, file = root / "query/b/1_1.png", tmp_path / "sheet.png"
    damaged = bytearray(broken.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    broken.write_bytes(damaged if content is None else content)
    found = main(["folder", "--root", str(root), *quick])
    told = capsys.readouterr().out
    assert found == (0 if quick and content is None else 1)
    assert main(["folder", "--root", str(root), *quick, "--sheet", str(file)]) == found
    assert capsys.readouterr().out == f"{told}sheet: {file}\n"
    with Image.open(file) as sheet:
        pixels = np.asarray(sheet)[12:]
    assert {tuple(colour) for colour in pixels[:, :64].reshape(-1, 3).tolist()} == {(255, 255, 255), (255, 0, 0)}
    with Image.open(root / "gallery/b/2_1.png") as image:
        np.testing.assert_array_equal(pixels[:, 64:], np.asarray(image.resize((64, 128))))


def test_names_that_are_not_utf8(root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root / "train/a/3_") + b"\xe9.png")).touch()
    words = [sys.executable, "-m", "tools.check_dataset", "folder", "--root", str(root)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}  # as in a UTF-8 locale such as de_DE.UTF-8
    done = subprocess.run(words, cwd=Path(__file__).parents[2], env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr == b""
    lines = done.stdout.decode().splitlines()
    assert f"PROBLEM: broken image {root}/train/a/3_\\udce9.png: empty file" in lines
    assert lines[-1] == "1 problem(s)"


def test_sheet_that_cannot_be_written(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folder", "--root", str(root), "--sheet", str(root / "sheet.xyz")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_counts_beside_the_published(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = root / "market1501"
    names = ("bounding_box_train/0001_c1.jpg", "query/0002_c1.jpg", "bounding_box_test/0002_c2.jpg")
    for seed, name in enumerate(names):
        save_image(folder / name, 50 + seed)
    assert main(["market1501", "--root", str(root)]) == 1
    output = capsys.readouterr().out
    assert "PROBLEM: train: 1 identities, published are 751" in output
    assert "PROBLEM: gallery: 1 images, published are 15,913" in output
    assert main(["--all", "--root", str(root)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("market1501: PROBLEM: train: 1 identities")
    assert lines[1:] == [f"{name}: not there" for name in list(PUBLISHED)[1:]]


def test_all_tells_of_a_set_that_cannot_be_read(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "viper").mkdir()
    assert main(["--all", "--root", str(root)]) == 1
    assert "viper: PROBLEM: no folder" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["market1501"], "no folder"),
        (["mraket1501"], "did you mean 'market1501'?"),
        ([], "either the name of a data set or --all"),
        (["market1501", "--all"], "either the name of a data set or --all"),
        (["--all"], "no data set in"),
        (["--all", "--sheet", "people.png"], "--all only counts images: leave out --sheet, or"),
        (["--all", "--quick", "--split-id", "3"], "leave out --quick, --split-id, or"),
        (["--all", "--layout"], "leave out --layout, or name one data set"),
        (["--all", "--cuhk03-labeled", "--workers", "9"], "leave out --workers, --cuhk03-labeled, or"),
        (["folder", "--workers", "0"], "must be at least 1"),
        (["folder", "--train-ids", "20"], "the sizes of drawn data belong to synthetic data sets alone"),
        (["folder:a/b"], "data set 'folder:a/b': folder: must be followed by a folder's name"),
        (["folder:shop"], "no folder "),
        (["folder", "--sheet", "gone/sheet.png"], "cannot write gone/sheet.png: no folder gone"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("check_dataset: ")
    assert error.count("\n") == 1


def test_drawn_data_of_other_sizes_is_not_taken_for_the_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tool draws nothing, and says which sizes are there."""
    assert make_synthetic(["--root", str(tmp_path), "--domains", "e", "--workers", "1", *FEW]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "a run finds them with synthetic.train_ids 2 synthetic.test_ids 2 synthetic.cameras 2 "
        "synthetic.images_per_camera 2 synthetic.height 32 synthetic.width 16"
    )
    for words in (["synthetic_e"], ["synthetic_e", *FEW, "--train-ids", "20"]):
        assert main([*words, "--root", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert "tools.make_synthetic; there are v" in error
        assert "-train2-test2-cameras2-images2-32x16-seed1: give the sizes of one of them" in error
        assert error.count("\n") == 1
    assert main(["synthetic_d", *FEW, "--root", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("draw it with python -m tools.make_synthetic\n")
    assert len(list((tmp_path / "synthetic").iterdir())) == 1


def test_own_data_of_several_names(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of people and cameras are those of the files."""
    save_image(root / "shop/query/anna/door_1.png", 10)
    save_image(root / "shop/gallery/anna/yard_1.png", 11)
    save_image(root / "two\nlines/train/x/1_1.png", 12)
    assert main(["folder:shop", "--root", str(root), "--sheet", str(root / "sheet.png")]) == 0
    assert "cameras, as the files name them: door, yard\n" in capsys.readouterr().out
    assert main(["folder:gone", "--root", str(root)]) == 2
    assert "python -m tools.check_dataset --layout folder:gone shows" in capsys.readouterr().err
    assert main(["folder", "--root", str(root / "two\nlines")]) == 0
    assert capsys.readouterr().out.startswith(f"folder in {root}/two\\nlines\n")


def test_labels_of_a_sheet_are_the_files_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "market1501"
    save_image(folder / "bounding_box_train/0001_c1.jpg", 1)
    save_image(folder / "query/0002_c6.jpg", 2)
    save_image(folder / "bounding_box_test/0002_c2.jpg", 3)
    for part, camera in (("query", "door"), ("gallery", "a long name of a yard")):
        save_image(tmp_path / "own" / part / "anna" / f"{camera}_1.png", 4)
    labels = []

    def draw(rows: list[list[Cell]], cell_px: tuple[int, int], per_group: int) -> Image.Image:
        labels.append([label for row in rows for label, _ in row])
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr("tools.check_dataset.draw_contact_sheet", draw)
    for name in ("market1501", "folder:own"):
        main([name, "--root", str(tmp_path), "--sheet", str(tmp_path / "sheet.png")])
    assert labels == [["2 c2", "2 c6"], ["anna a… yard", "anna door"]]


@pytest.mark.parametrize("words", [["--layout", "market1501"], ["market1501", "--layout", "--root", "anywhere"]])
def test_layout(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == LAYOUTS["market1501"]


@pytest.mark.parametrize("words", [["--layout"], ["--layout", "marke"], ["--layout", "--all"], ["market1501"]])
def test_layout_and_root_that_lack(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "market1501" in error or "--root" in error


@pytest.mark.parametrize(
    "words", [["market1501"], ["folder"], ["folder:own"], ["synthetic_a"], ["university1652"], ["--all"]]
)
def test_a_root_whose_name_is_too_long(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--root", str(tmp_path / ("n" * 256))]) == 2
    error = capsys.readouterr().err
    assert error.endswith("File name too long\n")
    assert error.count("\n") == 1


def test_every_set_of_the_literature_has_published_counts() -> None:
    assert set(PUBLISHED) <= set(DATASETS)
    assert len(PUBLISHED) == 13
    assert published_counts("folder", ReadOptions()) == {}
    assert published_counts("cuhk03", ReadOptions(cuhk03_labeled=True))["gallery"] == (700, 5328)
    assert published_counts("cuhk03", ReadOptions(cuhk03_classic_split=True)) == {}
    assert published_counts("market1501", ReadOptions(market1501_500k=True))["gallery"] == (750, None)
