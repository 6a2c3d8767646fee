"""The command line: exit codes, what it prints, the contact sheet."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import DATASETS, synthetic
from datasets.base import ReadOptions
from tools.check_dataset import PUBLISHED, main, published_counts


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
    assert "note: gallery identities seen by one camera only: 1 (2)" in output
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
        "PROBLEM: identities in training and in the test: 1 (0)",
    ]


def test_drawn_images_are_compared_with_their_checksums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = partial(synthetic.SyntheticSize, train_ids=2, test_ids=2, cameras=2, images_per_camera=2, height=32, width=16)
    monkeypatch.setattr(synthetic, "SyntheticSize", few)
    words = ["synthetic_e", "--root", str(tmp_path), "--quick"]
    assert main(words) == 0
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
        (["--all", "--cuhk03-labeled", "--workers", "9"], "leave out --workers, --cuhk03-labeled, or"),
        (["folder", "--workers", "0"], "must be at least 1"),
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


def test_every_set_of_the_literature_has_published_counts() -> None:
    assert set(PUBLISHED) <= set(DATASETS)
    assert len(PUBLISHED) == 13
    assert published_counts("folder", ReadOptions()) == {}
    assert published_counts("cuhk03", ReadOptions(cuhk03_labeled=True))["gallery"] == (700, 5328)
    assert published_counts("cuhk03", ReadOptions(cuhk03_classic_split=True)) == {}
    assert published_counts("market1501", ReadOptions(market1501_500k=True))["gallery"] == (750, None)
