"""The tool that compares several searches."""

import os
import shutil
from xml.dom import minidom

import numpy as np
import pytest
from PIL import Image

from genotype import Genotype
from search.answer import write_ranking
from tools.agreement import main


@pytest.fixture
def runs(tmp_path):
    generator = np.random.default_rng(0)
    common = generator.normal(size=4096)
    for i, digits in enumerate(("110110", "110113", "110120")):
        folder = tmp_path / f"run_{i}"
        folder.mkdir()
        Genotype.from_digits(digits).to_json(folder / "genotype.json")
        write_ranking(folder / "ranking.npz", common + generator.normal(size=4096))
    return [str(tmp_path / f"run_{i}") for i in range(3)]


def test_table_and_picture(runs, tmp_path, capsys):
    assert main([*runs, "--output", str(tmp_path / "picture.png")]) == 0
    text = capsys.readouterr().out
    assert "conv2-1        0            3            0            0" in text
    assert "78% of all pairs agree" in text
    assert "Fleiss' kappa 0.5" in text
    assert "Kendall's tau-b between rankings: mean 0.3" in text
    with Image.open(tmp_path / "picture.png") as image:
        assert min(image.size) > 400


def test_user_errors_are_one_line(runs, tmp_path, capsys):
    for words, told in (
        (runs[:1], "between two or more"), ([runs[0], str(tmp_path / "none")], "cannot read"),
        ([*runs, "--output", str(tmp_path / "picture.gif")], "ends in .png or .svg"),
    ):  # fmt: skip
        assert main(words) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert told in lines[0]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_names_that_no_font_has_and_no_terminal_should_obey(runs, tmp_path, capsys, ending):
    odd = [tmp_path / name for name in ("red\x1b[31m", os.fsdecode(b"not utf-8 \xff"), "line\nbreak", "$x_{$")]
    for folder in odd:
        shutil.copytree(runs[0], folder)
    picture = tmp_path / f"picture.{ending}"
    assert main([*map(str, odd), "--output", str(picture)]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "red\\x1b[31m" in text
    assert "line\\nbreak" in text
    if ending == "svg":
        minidom.parse(str(picture))
