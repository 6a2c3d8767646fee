"""Tables: what is in them, what they say, what does not belong to them."""

import json
import multiprocessing
import os

import numpy as np
import pytest

from search.arrays import plan_runs
from search.table import FOLDER, Row, Table, append_rows
from utils.errors import UserError

GROUPS = {"unseen/mAP": ["b/mAP", "c/mAP"]}


def make_row(digits="110110", seed=1, fold=0, epochs=10, score=0.5, **more):
    scores = {"b/mAP": score, "c/mAP": score + 0.1, "b/rank1": 0.7}
    return Row(**{
        "digits": digits, "seed": seed, "fold": fold, "epochs": epochs, "of_epochs": 20, "image_passes": 100 * epochs,
        "scores": scores, "loss": 1.25, "recipe": "r", "images": "i", "numerics": 1, "seconds": 60.0, "machine": "m",
        "versions": {"torch": "2.14"}, **more,
    })  # fmt: skip


def make_table(*rows):
    return Table("mine", GROUPS, rows)


def test_mean_spread_and_parts():
    table = make_table(make_row(score=0.4), make_row(seed=2, score=0.6), make_row(epochs=20, score=0.9))
    entry = table.query("110110", "unseen/mAP", 10)
    assert (entry.mean, entry.sd, entry.seeds) == (pytest.approx(0.55), pytest.approx(np.sqrt(0.02)), 2)
    assert entry.parts == {"b/mAP": pytest.approx(0.5), "c/mAP": pytest.approx(0.6)}
    largest = table.query("110110", "b/mAP")
    assert largest.mean == 0.9
    assert np.isnan(largest.sd)


def test_folds_and_seeds_are_taken_out_where_architectures_are_compared():
    runs = plan_runs(32, 1)
    truth = {run.digits: 0.5 + 0.01 * sum(map(int, run.digits)) for run in runs}
    rows = [make_row(run.digits, 1, run.fold, score=truth[run.digits] + 0.1 * run.fold) for run in runs]
    again = [make_row(run.digits, 2, run.fold, score=truth[run.digits] + 0.1 * run.fold + 0.2) for run in runs[:5]]
    adjusted = make_table(*rows, *again).adjust("b/mAP", 10)
    assert [len(adjusted[run.digits]) for run in runs[:6]] == [2, 2, 2, 2, 2, 1]
    gaps = np.concatenate([scores - truth[digits] for digits, scores in adjusted.items()])
    assert np.ptp(gaps) < 1e-9
    with pytest.raises(UserError, match="the effects need at least"):
        make_table(*rows[:20]).adjust("b/mAP")


def test_missing_architecture_names_the_nearest():
    table = make_table(*(make_row(digits) for digits in ("333333", "110113", "110100", "010110")))
    with pytest.raises(UserError, match="has not trained 110110; the nearest there are 010110, 110100, 110113"):
        table.query("110110", "b/mAP")
    for other in ("osnet", 110110, None):
        with pytest.raises(UserError, match="a genotype is six digits from 0 to 3, as text"):
            table.query(other, "b/mAP")


def test_unknown_metric_and_budget_are_one_line():
    table = make_table(make_row())
    with pytest.raises(UserError, match=r"no score 'b/mAp'; did you mean 'b/mAP'"):
        table.query("110110", "b/mAp")
    with pytest.raises(UserError, match=r"no score 'speed'; it has b/mAP, b/rank1, c/mAP, unseen/mAP"):
        table.query("110110", "speed")
    with pytest.raises(UserError, match=r"no rows at 7 epochs; it has \[10\]"):
        table.query("110110", "b/mAP", 7)
    with pytest.raises(UserError, match=r"no rows at '10' epochs; it has \[10\]"):
        table.query("110110", "b/mAP", "10")


def test_groups_that_say_nothing_of_any_row():
    """No score that a search may look at is proposed for the group that judges it."""
    with pytest.raises(UserError, match=r"no score 'unseen/mAP'; it has b/mAP, b/rank1, c/mAP"):
        Table("mine", {}, [make_row()]).query("110110", "unseen/mAP")
    with pytest.raises(UserError, match=r"its group unseen/mAP is of 'unseen/mAP', a score that no row has"):
        Table("mine", {"unseen/mAP": ["unseen/mAP"]}, [make_row()]).query("110110", "unseen/mAP")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"recipe": "s"}, "recipe r there, s here"), ({"images": "j"}, "images i there, j here"),
        ({"numerics": 2}, "numerics 1 there, 2 here"), ({"of_epochs": 30}, "of_epochs 20 there, 30 here"),
    ],
)  # fmt: skip
def test_rows_of_other_conditions_are_refused(changed, told):
    with pytest.raises(UserError, match=told):
        make_table(make_row(), make_row(seed=2, **changed))


def test_row_of_other_conditions_is_found_by_its_line(tmp_path):
    path = tmp_path / "t.jsonl"
    append_rows(path, GROUPS, [make_row()])
    with path.open("a") as file:
        file.write(make_row(seed=2).format() + make_row(seed=3, images="j").format())
    with pytest.raises(UserError, match=r"t\.jsonl, line 4 is of other trainings than line 2: images i there, j here"):
        Table.load(path)


def test_file_is_sorted_read_back_and_idempotent(tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [make_row("222222"), make_row("000000", epochs=20), make_row("000000")]
    assert append_rows(path, GROUPS, rows, "about") == 3
    before = path.read_bytes()
    assert append_rows(path, GROUPS, [make_row("222222", score=0.1)], "about") == 0
    assert path.read_bytes() == before
    keys = [tuple(json.loads(line)[k] for k in ("digits", "epochs")) for line in path.read_text().splitlines()[1:]]
    assert keys == [("000000", 10), ("000000", 20), ("222222", 10)]
    assert sorted(p.name for p in tmp_path.iterdir()) in (["mine.jsonl"], [".mine.jsonl.lock", "mine.jsonl"])
    assert Table.load(path).query("222222", "b/mAP", 10).mean == 0.5


def _append(path, first):
    for seed in range(first, first + 10):
        append_rows(path, GROUPS, [make_row(seed=seed)])


def test_several_processes_append_without_loss(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_append, args=(tmp_path / "t.jsonl", 100 * i)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(Table.load(tmp_path / "t.jsonl").rows) == 30


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1 is not JSON"), ("[]\n", "line 1 holds no columns"), ('{"format": "other"}\n', "is no table"),
        ('{"format":"osnet-table","version":1}\n{"digits":\n', "line 2 is not JSON"),
        ('{"format":"osnet-table","version":1}\n{"digits":"000000"}\n', "line 2 lacks or has too many columns"),
    ],
)  # fmt: skip
def test_damaged_tables_are_one_line(tmp_path, text, told):
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(UserError, match=told):
        Table.load(tmp_path / "t.jsonl")


ROW = json.loads(make_row().format())


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("digits", 110110), ("digits", "999999"), ("digits", "01"), ("seed", None), ("seed", True), ("fold", [1]),
        ("fold", -3), ("epochs", "ten"), ("epochs", 10.0), ("epochs", 0), ("scores", None), ("scores", [0.5]),
        ("scores", {"b/mAP": "high"}), ("scores", {"b/mAP": float("nan")}), ("scores", {"b/mAP": 50}),
        ("scores", {"b/mAP": True}), ("loss", "low"), ("loss", float("inf")), ("loss", 10**400), ("seconds", None),
        ("epochs", 30), ("machine", 3), ("versions", "2.0"), ("versions", {"torch": 2}), ("recipe", None),
        ("numerics", 1.5),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_named_with_its_line(tmp_path, column, value):
    path = tmp_path / "t.jsonl"
    path.write_text(make_table(make_row()).format() + json.dumps({**ROW, "seed": 2, column: value}) + "\n")
    with pytest.raises(UserError, match=f"line 3 cannot be: {column} is .*, expected is"):
        Table.load(path)


def test_of_many_scores_the_one_that_cannot_be_is_shown(tmp_path):
    path = tmp_path / "t.jsonl"
    scores = {f"{letter}/mAP": 0.5 for letter in "abcdefgh"} | {"z/mAP": 52.3}
    path.write_text(make_table().format() + json.dumps({**ROW, "scores": scores}) + "\n")
    with pytest.raises(UserError, match=r"line 2 cannot be: scores is \{'z/mAP': 52.3\}, expected is"):
        Table.load(path)


@pytest.mark.parametrize("groups", [None, [1], {"a": 3}, {"a": []}, {"a": [1]}, {"a": ["b/mAP", "b/mAP"]}])
def test_groups_that_cannot_be_are_named(tmp_path, groups):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"format": "osnet-table", "version": 1, "groups": groups}) + "\n")
    with pytest.raises(UserError, match="line 1 cannot be: groups is"):
        Table.load(path)


def test_a_row_twice_is_not_dropped_in_silence(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(make_table(make_row()).format() + make_row(score=0.9).format())
    with pytest.raises(UserError, match="line 3 is of a training and budget that an earlier line has"):
        Table.load(path)


def test_a_row_without_a_score_that_others_have_is_named():
    table = make_table(make_row(), make_row(seed=2, scores={"b/mAP": 0.5}))
    with pytest.raises(UserError, match="the row of 110110, seed 2, fold 0, 10 epochs lacks the score 'c/mAP'"):
        table.observe("unseen/mAP")
    with pytest.raises(UserError, match="has no rows yet"):
        make_table().at()


def test_nothing_in_the_locks_place_is_harmed(tmp_path):
    precious, lock = tmp_path / "precious", tmp_path / ".t.jsonl.lock"
    precious.write_text("text")
    lock.symlink_to(precious)
    with pytest.raises(UserError, match="cannot lock"):
        append_rows(tmp_path / "t.jsonl", GROUPS, [make_row()])
    assert precious.read_text() == "text"
    lock.unlink()
    os.mkfifo(lock)
    assert append_rows(tmp_path / "t.jsonl", GROUPS, [make_row()]) == 1  # and does not wait for a reader


def test_unknown_table_names_those_of_the_repository():
    with pytest.raises(UserError, match="no table 'synthetic_a_x0_2'; did you mean 'synthetic_a_x0_25'"):
        Table.load("synthetic_a_x0_2")


def test_predicts_all_architectures():
    generator = np.random.default_rng(0)
    effects = generator.normal(0, 0.05, (6, 4))
    rows = []
    for run in plan_runs(32, 1):
        score = 0.3 + sum(effects[b, int(d)] for b, d in enumerate(run.digits))
        rows.append(make_row(run.digits, fold=run.fold, score=float(score)))
    fit = make_table(*rows).predict("unseen/mAP")
    assert int(fit.predictions.argmax()) == int("".join(map(str, effects.argmax(axis=1))), 4)
    assert fit.left_out_tau > 0.9


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jsonl")), ids=lambda path: path.stem)
def test_tables_of_the_repository_are_whole_and_small(path):
    table = Table.load(path)
    assert path.stat().st_size < 2**20
    assert path.read_text() == table.format()
    trainings = {(row.digits, row.seed, row.fold) for row in table.rows}
    assert len(table.rows) == len(trainings) * len(table.budgets)
    assert all(0 <= score <= 1 for row in table.rows for score in row.scores.values())
    for metric in table.groups:
        table.observe(metric)
