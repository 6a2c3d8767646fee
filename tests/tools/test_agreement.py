"""The tool that compares several searches."""

import os
import shutil
from pathlib import Path
from xml.dom import minidom

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from genotype import Genotype
from search.answer import list_digits, write_ranking
from search.submission import read_submission
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


def test_searches_together_are_a_ranking_of_their_own(runs, tmp_path, capsys):
    """Its first ten are printed; the file is one that this tool and the judge read."""
    path = tmp_path / "together.txt"
    assert main([*runs, "--scores", str(path)]) == 0
    (shown,) = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("first by the mean ranks of the 3 ")
    ]
    together = read_submission(path)
    scores = [read_submission(Path(run)).scores for run in runs]
    assert np.array_equal(together.scores, stats.rankdata(scores, axis=1).mean(axis=0))
    first = [list_digits()[i] for i in np.argsort(-together.scores, kind="stable")[:10]]
    assert shown.split()[-10:] == first and together.digits == first[0]


def test_scores_replace_nothing_that_a_search_is_read_from(runs, tmp_path, capsys):
    for name in ("genotype.json", "ranking.npz"):
        path = Path(runs[1]) / name
        before = path.read_bytes()
        assert main([*runs, "--scores", str(path)]) == 2
        assert "it is read as well, and would be lost" in capsys.readouterr().err
        assert path.read_bytes() == before
    path.unlink()  # this one ranks nothing any more, and no text shall stand for a ranking
    assert main([*runs, "--scores", str(path)]) == 2 and not path.exists()
    text = tmp_path / "scores.svg"
    text.write_text("000000 1\n")
    assert main([*runs, str(text), "--output", str(text)]) == 2
    assert text.read_text() == "000000 1\n"
    same = tmp_path / "new.svg"
    assert main([*runs, "--output", str(same), "--scores", str(tmp_path / "run_0" / ".." / "new.svg")]) == 2
    assert "--output and --scores are the same file" in capsys.readouterr().err
    assert not same.exists()


def test_genotypes_that_some_do_not_rank_are_counted(runs, tmp_path, capsys):
    part, others = tmp_path / "part.txt", tmp_path / "others.txt"
    part.write_text("".join(f"{digits} {i}\n" for i, digits in enumerate(list_digits()[:3000])))
    others.write_text("".join(f"{digits} {i}\n" for i, digits in enumerate(list_digits()[3000:])))
    together = tmp_path / "together.txt"
    assert main([runs[0], str(part), "--scores", str(together)]) == 0
    told = "3,000 of the 4,096 genotypes are ranked by all 2 searches that rank; the others have no mean rank"
    assert told in capsys.readouterr().out
    assert len(together.read_text().splitlines()) == 3000
    assert main([str(part), str(others), runs[0]]) == 0
    shown = capsys.readouterr().out
    assert "0 of the 4,096 genotypes are ranked by all 3 searches" in shown and "first by" not in shown
    assert main([str(part), str(others)]) == 0
    assert "none, since no two of them put the same genotypes in an order" in capsys.readouterr().out


def test_no_ranks_together_without_two_rankings(runs, tmp_path, capsys):
    for run in runs[1:]:
        (Path(run) / "ranking.npz").unlink()
    assert main(runs) == 0
    assert "first by" not in capsys.readouterr().out
    assert main([*runs, "--scores", str(tmp_path / "together.txt")]) == 2
    assert "two or more searches that rank" in capsys.readouterr().err
    assert not (tmp_path / "together.txt").exists()


def test_user_errors_are_one_line(runs, tmp_path, capsys):
    for words, told in (
        (runs[:1], "between two or more"), ([runs[0], str(tmp_path / "none")], "cannot read"),
        ([*runs, "--output", str(tmp_path / "picture.gif")], "ends in .png or .svg"),
        ([*runs, "--scores", str(tmp_path / "none" / "a.txt")], "no folder"),
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
