"""What searches leave is read, and what is no search's is refused in one line."""

import os
from dataclasses import replace

import numpy as np
import pytest

from genotype import Genotype
from search.agreement import compare_searches
from search.answer import write_ranking
from search.submission import read_submission
from utils.errors import UserError


def test_folder_of_a_search(tmp_path):
    scores = np.random.default_rng(0).random(4096)
    Genotype.from_digits("110113").to_json(tmp_path / "genotype.json")
    assert read_submission(tmp_path).scores is None
    write_ranking(tmp_path / "ranking.npz", scores)
    found = read_submission(tmp_path)
    assert (found.name, found.digits) == (tmp_path.name, "110113")
    assert (found.scores == scores).all()


def test_lines_of_a_stranger(tmp_path):
    path = tmp_path / "scores.txt"
    path.write_text("# mine\n000001 0.25\n\n110110\t0.5\n333333  -5e-1 \n")
    found = read_submission(path)
    assert (found.digits, found.sources) == ("110110", ())
    assert np.isfinite(found.scores).sum() == 3
    assert found.scores[[1, int("110110", 4), 4095]].tolist() == [0.25, 0.5, -0.5]


def test_several_that_share_the_highest_score_are_no_choice(tmp_path):
    path = tmp_path / "scores.txt"
    path.write_text("000000 0.5\n110110 0.5\n333333 0\n")
    assert read_submission(path).digits is None
    with pytest.raises(UserError, match=r"scores\.txt chose no architecture: several share its highest score"):
        compare_searches([read_submission(path)] * 2)


def test_sources_of_a_search(tmp_path):
    for found, sources in (({"sources": ["synthetic_a"]}, ["synthetic_a"]), ({}, [])):
        replace(Genotype.from_digits("000000"), found=found).to_json(tmp_path / "genotype.json")
        assert read_submission(tmp_path).sources == sources


@pytest.mark.parametrize("sources", ["synthetic_a", [1], None])
def test_sources_that_cannot_be_read_are_not_passed_over(tmp_path, sources):
    replace(Genotype.from_digits("000000"), found={"sources": sources}).to_json(tmp_path / "genotype.json")
    with pytest.raises(UserError, match=r"genotype\.json: sources is .*, expected is a list of data sets' names"):
        read_submission(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no scores; expected DIGITS SCORE"), ("00000 1\n", "line 1: '00000' is no genotype"),
        ("000000 1\n000000 2\n", "line 2: '000000' is there twice"), ("000000 one\n", "line 1: 'one' is no score"),
        ("000000\n", "line 1: '' is no score"), ("000000 nan\n", "line 1: the score is not finite"),
        ("000000 ٣\n", "line 1: '٣' is no score"), ("000000 1_0\n", "line 1: '1_0' is no score"),
        (f"{'0' * 100_000} 1\n", "line 1: '0+\\.\\.\\.0+' is no genotype"),
        (f"000000 {'x' * 100_000}\n", "line 1: 'x+\\.\\.\\.x+' is no score"),
    ],
)  # fmt: skip
def test_broken_lines_are_named(tmp_path, text, told):
    path = tmp_path / "scores.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=told) as error:
        read_submission(path)
    assert len(str(error.value)) < len(str(path)) + 120


def test_broken_rankings_are_refused(tmp_path):
    Genotype.from_digits("000000").to_json(tmp_path / "genotype.json")
    path = tmp_path / "ranking.npz"
    for content, told in ((np.zeros(64), "ranks another space"), (np.full(4096, np.nan), "4096 scores are not finite")):
        write_ranking(path, content)
        with pytest.raises(UserError, match=told):
            read_submission(tmp_path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(UserError, match="is no ranking"):
        read_submission(tmp_path)
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(UserError, match="is no ranking"):
        read_submission(tmp_path)


@pytest.mark.parametrize(
    "scores",
    [np.ones(4096) + 1j, np.full(4096, "1.5"), np.ones(4096, bool), np.arange(4096).astype("M8[s]"),
     np.zeros(4096, [("a", "f8")])],
    ids=["complex", "text", "truth", "dates", "records"],
)  # fmt: skip
def test_rankings_of_other_kinds_are_refused(tmp_path, scores):
    Genotype.from_digits("000000").to_json(tmp_path / "genotype.json")
    np.savez(tmp_path / "ranking.npz", scores=scores)
    with pytest.raises(UserError, match="is no ranking: its scores are"):
        read_submission(tmp_path)


def test_a_ranking_that_cannot_be_read_is_not_taken_for_none(tmp_path):
    Genotype.from_digits("000000").to_json(tmp_path / "genotype.json")
    path = tmp_path / "ranking.npz"
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="cannot read ranking"):
        read_submission(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="no regular file"):
        read_submission(tmp_path)


def test_missing_and_binary_files_are_one_line(tmp_path):
    with pytest.raises(UserError, match="nothing: No such file"):
        read_submission(tmp_path / "nothing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="is not a scores file: not text in UTF-8"):
        read_submission(tmp_path / "binary")
    with pytest.raises(UserError, match=r"has no genotype\.json: .* or the search has not ended"):
        read_submission(tmp_path)
