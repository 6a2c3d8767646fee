"""The page of studies: that the repository's is the one its tables give, and what it shows of a table."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from search.answer import list_digits
from search.compare import Comparison
from search.orders import Interval
from search.study_drawn import LeftOutStudy
from search.table import Table, append_rows
from tests.search.test_studies import UNSEEN, simulate
from tests.search.test_study_searches import TRUTH, change_found, write_search
from tools import write_studies as module
from tools.write_studies import Studied, main

ROOT = Path(__file__).parents[2]


def test_page_is_the_one_that_the_tables_give(tmp_path):
    assert main(["--folder", str(tmp_path)]) == 0
    assert (tmp_path / "studies.md").read_text() == (ROOT / "docs" / "studies.md").read_text(), (
        "docs/studies.md is not what the tables say: python -m tools.write_studies"
    )
    assert {p.name for p in tmp_path.glob("*.png")} == {p.name for p in (ROOT / "docs").glob("studies_*.png")}
    for path in tmp_path.glob("*.png"):
        assert describe(ROOT / "docs" / path.name) == describe(path) != "", f"docs/{path.name} shows other numbers"


def test_readme_says_what_the_page_says():
    """Orders and answers of README's table of searches, and what it says of the first one's order."""
    page = (ROOT / "docs" / "studies.md").read_text().split("## Which search? Searches that were run")[1]
    real, drawn = page.split("## What is IN worth")[0].split("**synthetic_a_x0_25**")
    readme = (ROOT / "README.md").read_text()
    names = {"the paper's method": "`gumbel`", "the same, `nas.candidates shared`": "`gumbel_shared`",
             "[a designed search]": "`design`", "the best of as many random": "the best of [^|]+ random [^|]+",
             "no search: fewest": "fewest norms first", "the true order": "the true order"}  # fmt: skip
    drawn, real = (text.split("| all seeds together |")[0] for text in (drawn, real))
    for start, name in names.items():
        row = next(line for line in readme.splitlines() if line.startswith(f"| {start}")).strip("| ").split(" | ")
        for tau, answer, text in ((row[1], row[3], drawn), (row[2], row[4], real)):
            found = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(rf"\| {name} \|", line)]
            assert bool(found) or (tau, answer) == ("not run", "–")
            assert tau in ("not run", "–") or tau == re.sub(" ± [0-9.]+| each", "", found[0][3])
            assert answer == "–" or answer == found[-1][4].partition(" ")[0]
    for text in (drawn, real):
        gap = next(line for line in text.splitlines() if line.startswith("| `gumbel`")).split(" | ")[4].replace("+", "")
        assert gap.replace(" (", ", ").strip(")") in " ".join(readme.split())


def describe(path):
    """Reads the numbers that a picture of the page shows."""
    with Image.open(path) as image:
        return image.text["Description"]


def test_page_of_a_table(tmp_path, monkeypatch):
    table = simulate(0.02)
    append_rows(tmp_path / "small.jsonl", table.groups, simulate(num_rows=10).rows, "too small a table")
    append_rows(tmp_path / "whole.jsonl", {"unseen/mAP": UNSEEN}, table.rows, "a simulated table")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    for seed in (1, 2):
        write_search(tmp_path / "searches" / "whole" / f"gumbel-seed{seed}", TRUTH)
        write_search(tmp_path / "searches" / "whole" / f"opposite-seed{seed}", -TRUTH)
    write_search(tmp_path / "searches" / "whole" / "once-seed1", TRUTH)
    settings = {"data.sources": ["market1501", "cuhk01"], "data.max_train_ids": 280}
    scores = {"design 012330": {1: {"cuhk01": 0.25}, 2: {"cuhk01": 0.25}}, "osnet": {1: {"cuhk01": 0.125}}}
    (tmp_path / "comparisons").mkdir()
    Comparison(settings, scores).write(tmp_path / "comparisons" / "city.json")
    (tmp_path / "out").mkdir()
    assert main(["--folder", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "studies.md").read_text()
    tables, compared = text.split("## Found against published")
    introduction, whole = tables.split("## When does the order settle?")
    small, introduction = introduction.split("**small**")[1].split("**whole**")
    assert "not at their defaults: `data.max_train_ids 280`, `data.sources [market1501,cuhk01]`." in compared
    assert "| mAP on cuhk01 | mean | above design 012330 | seeds |" in compared
    assert "| design 012330 | 25.0% ± 0.0% |  | 2 |\n| osnet | 12.5% | -12.5% | 1 |" in compared
    assert "Nothing is said of it yet" in small and "**small**" not in whole
    assert "40 architectures, 52 trainings; 12 architectures were trained by more than one seed" in introduction
    assert whole.count("**whole**") == 5
    pictures = [f"whole_{kind}" for kind in ("budgets", "scores", "searches", "places")]
    assert all(f"](studies_{name}.png)" in whole for name in pictures) and "](studies_city.png)" in compared
    assert {p.name for p in (tmp_path / "out").glob("*.png")} == {f"studies_{name}.png" for name in [*pictures, "city"]}
    assert "cuhk01: design 012330 0.250 (0.250 … 0.250), osnet 0.125 (nan … nan)" in describe(
        tmp_path / "out" / "studies_city.png"
    )
    assert (
        "| 40 | 4,000 | – | " in whole
        and "No smaller budget is known from which on fits lose at most 0.1 of tau (95 %)." in whole
        and "from which on the order by held-out people and cameras loses at most 0.1 of tau (95 %)." in whole
    )
    assert "IN helps at conv2-1 inside" in whole
    assert "| the best of 32 random networks | 10 | 32,000 | – | " in whole
    assert "too few for fits of 32, which need 53" in whole and "| a fit of 32" not in whole
    assert "above `heldout_new/mAP`: none; below: `synthetic_a/mAP`." in whole
    assert "| one unseen domain | 0.9" in whole and "One unseen domain: tau from 0.9" in whole
    assert "| `gumbel` | 2 | 500 | " in whole and "| `once` | 1 | 500 | " in whole and "nan" not in whole
    assert "| a random order | – | – | 0.00 (-0." in whole and "| fewest norms first | – | – | " in whole
    assert "| the true order | – | – | 0.87 (0." in whole
    rows = {line.split(" | ")[0]: line.split(" | ") for line in reversed(whole.splitlines()) if " | 500 | " in line}
    gap, tau = rows["| `opposite`"][5], float(rows["| `gumbel`"][3][:4])
    assert " each (-1." in gap and float(gap[:5]) == pytest.approx(-2 * tau, abs=0.015)  # of two rounded ones
    assert rows["| `once`"][5].startswith("+0.00 (") and rows["| `gumbel`"][5] == "–"
    assert rows["| `gumbel`"][4].startswith("+0.") and rows["| `gumbel`"][3].startswith(f"{tau} each (0.")
    together = whole.split("| all seeds together |")[1].split("\n\n")[0]
    first = list_digits()[TRUTH.argmax()]
    assert f"| `gumbel` | 2 | 1,000 | {tau} (0." in together and f") | +0.00 (+0.00 … +0.00) | {first} | " in together
    assert "| `opposite` | 2 |" in together and "`once`" not in together
    assert "| the best of 1 random networks, 10 epochs | " in whole  # for 2.8 times 500 images
    assert "Above `gumbel`: none. Below `gumbel`: `opposite`." in whole
    assert "Called decided, over all seeds, right / wrong / open: nothing." in whole
    assert "Tau: reached by `gumbel` (" in whole and "% of the true order's)" in whole


def test_searches_in_the_wrong_place_are_not_passed_over(tmp_path, monkeypatch, capsys):
    append_rows(tmp_path / "small.jsonl", {}, simulate(num_rows=10).rows)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    (tmp_path / "searches").mkdir()
    (tmp_path / "searches" / "a note").write_text("no search")
    assert main(["--folder", str(tmp_path / "new" / "folder")]) == 0  # which is made
    (tmp_path / "searches" / "smaller").mkdir()
    assert main(["--folder", str(tmp_path / "out")]) == 2
    assert "smaller: expected is a folder with a table's name: small" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_page_that_cannot_be_written_is_known_before_it_is_computed(tmp_path, monkeypatch, capsys):
    (tmp_path / "studies.md").mkdir()
    (tmp_path / "comparisons").mkdir()
    (tmp_path / "comparisons" / "broken.json").write_text("{")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    assert main(["--folder", str(tmp_path)]) == 2
    assert "there is a folder of that name" in capsys.readouterr().err


def test_page_of_a_table_that_fits_can_be_drawn_from(tmp_path, monkeypatch):
    table = simulate(0.02, num_extra=40)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(module, "study_left_out", lambda table: [])
    for name, folds in (("three", 3), ("fifteen", 15)):
        rows = [replace(row, fold=i // 2 % folds) for i, row in enumerate(table.rows)]
        shown = module.describe_drawn_searches(Studied(Table(name, table.groups, rows), {})).text
        assert shown.startswith("Drawn from 72 networks") and "not enough for a fit" in shown
        assert ("| a fit of 32 random networks, confirmed beside the known | 40 | 200,000 | – | " in shown) == (
            folds == 3
        )
        assert ("most draws of 32 cannot tell" in shown) == (folds == 15)
        assert "too few" not in shown and "picked by hand" not in shown


def test_seeds_that_decide_the_same_block(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    sentence = "Pairs of seeds that call the same block decided, and name the same candidate: "
    folders = [tmp_path / "searches" / "simulated" / f"gumbel-seed{seed}" for seed in (1, 2, 3)]
    for folder in folders:
        write_search(folder, TRUTH)
    assert sentence not in module.describe_run_searches(Studied(simulate(0.02), {})).text
    for folder, candidate in zip(folders, ("OSBlock", "OSBlockINv1", "OSBlock"), strict=True):
        said = {"block": "conv2-1", "candidate": candidate, "decided": True}
        change_found(folder, lambda found, said=said: {**found, "blocks": [said]})
    assert f"{sentence}`gumbel` 1 of 3." in module.describe_run_searches(Studied(simulate(0.02), {})).text


def test_table_that_is_nothing_but_noise_has_no_true_order_to_reach(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    for seed in (1, 2):
        write_search(tmp_path / "searches" / "simulated" / f"gumbel-seed{seed}", TRUTH)
    shown = module.describe_run_searches(Studied(simulate(late_noise=5.0), {})).text
    assert "Tau: reached by none." in shown and "of the true order's)" not in shown


def test_table_too_small_to_judge_by_needs_no_judge_without_searches(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    assert module.describe_run_searches(Studied(simulate(num_rows=10), {})).text == ""


@pytest.mark.parametrize(
    ("lows", "enough"),
    [
        ((-0.09, -0.05, 0), "From 5 epochs on, fits lose at most 0.1 of tau (95 %)."),
        ((-0.11, -0.05, 0), "From 10 epochs on, fits lose at most 0.1 of tau (95 %)."),
        ((-0.05, -0.11, 0), "No smaller budget is known from which on fits lose at most 0.1 of tau (95 %)."),
    ],
)
def test_budget_that_is_enough(monkeypatch, lows, enough):
    found = [LeftOutStudy(budget, Interval(0.5, 0.4, 0.6), Interval(0, low, 0.1))
             for budget, low in zip((5, 10, 20), lows, strict=True)]  # fmt: skip
    monkeypatch.setattr(module, "study_left_out", lambda table: found)
    shown = module.describe_left_out(simulate())
    assert enough in shown
    assert (
        f"| 5 | 0.50 (0.40 … 0.60) | +0.00 ({lows[0]:.2f} … +0.10) |" in shown
        and "| 20 | 0.50 (0.40 … 0.60) | – |" in shown
    )


@pytest.mark.parametrize("name", ["broken.jsonl", "comparisons/broken.json"])
def test_damaged_table_or_comparison_is_one_line(tmp_path, monkeypatch, capsys, name):
    (tmp_path / "comparisons").mkdir()
    (tmp_path / name).write_text("{")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    assert main(["--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_markdown():
    assert module.format_markdown(("x", "y"), [["a", "b"]]) == "| x | y |\n| --- | --- |\n| a | b |\n"
