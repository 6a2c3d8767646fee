"""The tool that judges a search, and two strangers' methods."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from search.answer import list_digits
from search.table import append_rows
from tests.search.test_judge import additive, simulate
from tools.judge_search import main

README = Path(__file__).parents[2] / "README.md"
RANDOM = """
import random, sys
genotypes = [f"{a}{b}{c}{d}{e}{f}" for a in range(4) for b in range(4) for c in range(4)
             for d in range(4) for e in range(4) for f in range(4)]
random.Random(7).shuffle(genotypes)
with open(sys.argv[1], "w") as file:
    for score, genotype in enumerate(genotypes):
        print(genotype, score, file=file)
"""
FEW_NORMS = """
import sys
norms = {"0": 0, "1": 1, "2": 1, "3": 2}
with open(sys.argv[1], "w") as file:
    for number in range(4**6):
        genotype = "".join(str(number // 4**place % 4) for place in range(6))
        print(genotype, -sum(norms[digit] for digit in genotype), file=file)
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "mine.jsonl"
    generator = np.random.default_rng(0)
    made = simulate(generator, additive(generator), 0.01, repeats=16)
    append_rows(path, {"all/mAP": ["b/mAP", "c/mAP"]}, made.rows)
    return path


@pytest.mark.parametrize("script", [RANDOM, FEW_NORMS])
def test_strangers_method_is_judged(table, tmp_path, capsys, script):
    (tmp_path / "method.py").write_text(script)
    subprocess.run([sys.executable, str(tmp_path / "method.py"), str(tmp_path / "scores.txt")], check=True)
    assert main([str(tmp_path / "scores.txt"), "--table", str(table), "--metric", "all/mAP"]) == 0
    text = capsys.readouterr().out
    assert "scores.txt by 98 trainings of 66 architectures, all/mAP of table mine at 10 epochs" in text
    for part in (
        "Kendall's tau-b",
        "random",
        "true order",
        "50%",
        "between trainings of one architecture (16 trained more than once): tau-b 0.",
        "standard deviation 0.",
    ):
        assert part in text


@pytest.mark.parametrize(("script", "tau"), [(RANDOM, -0.05), (FEW_NORMS, 0.37)])
def test_strangers_method_is_judged_by_the_repositorys_table(tmp_path, monkeypatch, capsys, script, tau):
    """By README's very words."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "method.py").write_text(script)
    subprocess.run([sys.executable, "method.py", "scores.txt"], check=True)
    command = next(line for line in README.read_text().splitlines() if "tools.judge_search" in line)
    words = command.partition("#")[0].split()
    assert words[:3] == ["python", "-m", "tools.judge_search"]
    assert main(words[3:]) == 0
    text = capsys.readouterr().out
    assert "scores.txt by 98 trainings of 66 architectures, unseen/mAP of table synthetic_a_x0_25 at 40 epochs" in text
    row = next(line for line in text.splitlines() if line.startswith("Kendall")).removeprefix("Kendall's tau-b")
    assert float(row.split()[0]) == pytest.approx(tau, abs=0.2 if script == RANDOM else 0.006)
    assert "by single domains, 11 of them: tau-b from " in text and "behind the best, better than" in text
    assert ("(trained 3 times)" in text and "; predicted by these: " in text) == (script == FEW_NORMS)


def test_good_scores_are_seen_to_be_good(table, tmp_path, capsys):
    truth = additive(np.random.default_rng(0))
    text = "".join(f"{d} {s}\n" for d, s in zip(list_digits(), truth, strict=True))
    (tmp_path / "scores.txt").write_text(text)
    assert main([str(tmp_path / "scores.txt"), "--table", str(table), "--metric", "b/mAP", "--budget", "10"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Kendall"))
    tau, *_, perfect, low, _, high = row.removeprefix("Kendall's tau-b").split()
    assert "  0.00 (-0." in row
    assert float(tau) > 0.7
    assert float(perfect) == pytest.approx(float(tau), abs=0.15)
    assert float(low.strip("(")) < float(perfect) < float(high.strip(")"))


def test_several_highest_scores_are_no_answer(table, tmp_path, capsys):
    (tmp_path / "scores.txt").write_text("".join(f"{d} {int(d[0] == '0')}\n" for d in list_digits()))
    assert main([str(tmp_path / "scores.txt"), "--table", str(table), "--metric", "b/mAP"]) == 0
    text = capsys.readouterr().out
    assert "no answer to score: several architectures share the search's highest score" in text
    assert "answer 0" not in text


def test_search_that_orders_nothing_is_one_line(table, tmp_path, capsys):
    (tmp_path / "scores.txt").write_text("".join(f"{d} 0.5\n" for d in list_digits()))
    assert main([str(tmp_path / "scores.txt"), "--table", str(table), "--metric", "b/mAP"]) == 2
    assert "gives all 66 trained architectures the same score: that is no order" in capsys.readouterr().err


@pytest.mark.parametrize("own", [0.0, 0.03])  # without, half of all draws, such as this one, are pooled
def test_what_the_noise_is_known_from_is_said(tmp_path, capsys, own):
    generator = np.random.default_rng(14)
    truth = additive(generator) + generator.normal(0, own, 4096)
    append_rows(tmp_path / "t.jsonl", {}, simulate(generator, truth, 0.01, repeats=16).rows)
    (tmp_path / "scores.txt").write_text("".join(f"{d} {i}\n" for i, d in enumerate(list_digits())))
    assert main([str(tmp_path / "scores.txt"), "--table", str(tmp_path / "t.jsonl"), "--metric", "b/mAP"]) == 0
    assert ("estimated from all residuals" in capsys.readouterr().out) == (own == 0)


def test_without_repeats_there_is_no_true_order(tmp_path, capsys):
    generator = np.random.default_rng(0)
    append_rows(tmp_path / "once.jsonl", {}, simulate(generator, additive(generator), 0.01).rows)
    (tmp_path / "scores.txt").write_text("".join(f"{d} {i}\n" for i, d in enumerate(list_digits())))
    assert main([str(tmp_path / "scores.txt"), "--table", str(tmp_path / "once.jsonl"), "--metric", "b/mAP"]) == 0
    text = capsys.readouterr().out
    assert "true order" not in text
    assert "noise of the trainings is unknown: no architecture was trained more than once" in text


def test_user_errors_are_one_line(table, tmp_path, capsys):
    good = tmp_path / "scores.txt"
    good.write_text("000000 1\n")
    (tmp_path / "run").mkdir()
    for words, told in (
        ([good, "--table", "none"], "no table 'none'"), ([good, "--table", table], "no score 'unseen/mAP'"),
        ([good, "--table", table, "--metric", "b/mAP"], "no score for"),
        ([good, "--table", table, "--metric", "b/mAP", "--budget", 7], "no rows at 7 epochs"),
        ([tmp_path / "run", "--table", table], "has no genotype.json"),
    ):  # fmt: skip
        assert main(list(map(str, words))) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert told in lines[0]
