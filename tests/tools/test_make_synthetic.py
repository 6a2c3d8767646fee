"""The tool that draws ahead of a run."""

import pytest
from PIL import Image

from tools.make_synthetic import main

SMALL = ["--train-ids", "3", "--test-ids", "2", "--cameras", "2", "--images-per-camera", "2",
         "--height", "32", "--width", "16", "--workers", "1"]  # fmt: skip


def test_draws_domains_and_a_sheet(tmp_path, capsys):
    sheet = tmp_path / "new" / "people.png"
    words = ["--root", str(tmp_path / "new"), "--domains", "c", "a", *SMALL, "--sheet", str(sheet)]
    assert main(words) == 0
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.count(" images, ") == 2
    assert out.count("is there already") == 2
    folders = [p for p in (tmp_path / "new" / "synthetic").glob("*/*") if p.is_dir()]
    assert sorted(p.name for p in folders) == ["a", "c"]
    with Image.open(sheet) as image:
        assert image.size == (3 * 2 * 16 + 2 * 4, 2 * (32 + 12))
        # a person's two cameras stand beside each other, people are apart by white
        assert image.getpixel((2 * 16 + 1, 12 + 16)) == (255, 255, 255)
        assert image.getpixel((16, 12 + 16)) != (255, 255, 255)


def test_what_is_there_is_checked(tmp_path, capsys):
    words = ["--root", str(tmp_path), "--domains", "d", *SMALL]
    assert main(words) == 0
    image = next(tmp_path.rglob("query/*.jpg"))
    image.write_bytes(image.read_bytes()[::-1])
    capsys.readouterr()
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"images 1 changed ('query/{image.name}'); delete" in printed.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train-ids", "1"], "synthetic.train_ids = 1"),
        (["--workers", "0"], "--workers must be 1 to 1,024"),
        (["--workers", "100000"], "--workers must be 1 to 1,024"),
        (["--sheet", "/no/such/folder/x.png"], "cannot write /no/such/folder/x.png"),
        (["--sheet", "people"], "cannot write people: the name of a contact sheet ends in .png"),
        (["--sheet", f"{'n' * 300}.png"], "File name too long"),
        (["--sheet", "folder.png"], "cannot write folder.png: there is a folder of that name"),
    ],
)
def test_mistakes_end_in_one_line_and_code_2_before_anything_is_drawn(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    assert main(["--root", str(tmp_path), "--domains", "a", *SMALL, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("make_synthetic: ")
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_a_root_whose_name_is_too_long(tmp_path, capsys):
    assert main(["--root", str(tmp_path / ("n" * 256)), "--domains", "a", *SMALL]) == 2
    assert capsys.readouterr().err.endswith("File name too long\n")
