"""The tool that compares several searches."""

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
