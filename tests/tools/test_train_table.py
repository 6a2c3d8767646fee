"""Making and completing a table: the plan, shards, what is there already, what is collected."""

import re
from pathlib import Path

import pytest

import tools.train_table as tool
from default_config import flatten, load_config
from engine.interrupt import Interrupted
from search.launcher import Outcome
from search.table import Table
from search.trials import Trial
from tests.search.fake_trials import write_trial
from utils.errors import UserError

PLAN = """
about: a test
recipe: recipe.yaml
num_folds: 4
array: 32
genotypes: ["000000", "110110"]
random: 3
repeats: {seeds: 2, of: 4}
groups: {unseen/mAP: [heldout_new/mAP]}
"""
RECIPE = """
model: {name: osnet_child, width: 0.25}
nas: {held_out: cameras}
data: {sources: [synthetic_a], targets: [], height: 32, width: 16}
synthetic: {train_ids: 40, test_ids: 2, height: 32, width: 16, images_per_camera: 2}
train: {max_epoch: 10, batch_size: 32}
test: {eval_epochs: [5, 10]}
"""


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "t.yaml").write_text(PLAN)
    return tmp_path / "t.yaml"


def run(monkeypatch, plan, *words):
    folder = plan.parent
    monkeypatch.setattr("sys.argv", ["train_table", str(plan), "--root", str(folder / "data"), "--runs",
                                     str(folder / "runs"), "--table", str(folder / "t.jsonl"), *words])  # fmt: skip
    return tool.main()


def test_plan_lists_trainings_in_the_order_of_their_worth(plan):
    trials = tool.read_plan(plan).trials
    assert len(trials) == len(set(trials)) == 32 + 2 + 3 + 8
    assert [t.seed for t in trials] == [1] * 37 + [2] * 4 + [3] * 4
    assert {t.digits for t in trials[37:41]} == {t.digits for t in trials[41:]}
    assert trials[32:34] == [Trial("000000", 1, 0), Trial("110110", 1, 1)]
    for digits in {t.digits for t in trials[37:]}:
        assert len({t.fold for t in trials if t.digits == digits}) == 3


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (("array: 32", "array: 48"), "array is '48': allowed are 32, 64"),
        (("num_folds", "folds"), "unknown key 'folds'"),
        (("num_folds: ", "num_folds: a"), "num_folds is 'a"), (("random: 3", "random: 3\nrandom: 5"), "is given twice"),
        (("seeds: 2", "seeds: 2, seeds: 3"), "seeds is given twice"), (("of: 4", "of: 40"), "there are 34 to repeat"),
        (("seeds: 2, of: 4", "seeds: 2"), "repeats needs both"), (("seeds: 2, of: 4", "of: 4"), "repeats needs both"),
        (("seeds: 2", "seeds: 1000000000"), "between 0 and 4096"), (("seeds: 2", "seeds: -2"), "between 0 and 4096"),
        (("num_folds: 4", "num_folds: 1000000000"), "between 1 and 15"), (("[heldout_new/mAP]", "[]"), "not be empty"),
        (("num_folds: 4", "num_folds: 5"), "recipe .*recipe.yaml holds out 4"), (('"110110"', '"000000"'), "twice"),
        (("random: 3", "random: true"), "must be a whole number"),
        (("array: 32", "array: 32\nseed: 99999999999999999999"), "seed is '99999"),
        (("[heldout_new/mAP]", "[synthetic_a/mAP, heldout_mew/mAP]"), "is of 'heldout_mew/mAP', no score of"),
        (("[heldout_new/mAP]", "[heldout_new/mAP, heldout_new/mAP]"), "names heldout_new/mAP twice"),
        (("recipe: recipe.yaml", ""), "lacks recipe"), (('"110110"', '"11011"'), "'11011' is no genotype"),
    ],
)  # fmt: skip
def test_plans_that_cannot_be_are_one_line(plan, monkeypatch, capsys, changed, told):
    plan.write_text(PLAN.replace(*changed))
    assert run(monkeypatch, plan, "--collect") == 2
    assert re.search(told, capsys.readouterr().err)
    assert not (plan.parent / "t.jsonl").exists()


def test_genotypes_need_no_quotes(plan):
    trials = tool.read_plan(plan).trials
    plan.write_text(PLAN.replace('"', ""))
    assert tool.read_plan(plan).trials == trials


def test_plan_without_the_group_that_judges_says_so(plan, monkeypatch, capsys):
    assert run(monkeypatch, plan, "--collect") == 0
    assert "unseen/mAP" not in capsys.readouterr().out
    plan.write_text(PLAN.replace("unseen/", "unsen/"))
    assert run(monkeypatch, plan, "--collect") == 0
    assert "the plan has no group unseen/mAP, by which searches are judged" in capsys.readouterr().out


def test_a_searchs_recipe_is_refused(plan, monkeypatch, capsys):
    (plan.parent / "recipe.yaml").write_text(RECIPE.replace("osnet_child", "osnet_nas"))
    assert run(monkeypatch, plan, "--collect") == 2
    assert "must train a child" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--jobs", "0"), ("--gpus-per-run", "-1"), ("--gpus-per-run", "nan")])
def test_numbers_out_of_range_are_one_line(plan, monkeypatch, capsys, words):
    assert run(monkeypatch, plan, *words) == 2
    assert words[0] in capsys.readouterr().err


def test_shards_are_parts_of_the_whole(plan):
    trials = tool.read_plan(plan).trials
    parts = [tool.choose_trials(trials, None, tool.read_shard(f"{i}/3")) for i in (1, 2, 3)]
    assert sorted(t for part in parts for t in part) == sorted(trials)
    for wrong in ("0/3", "4/3", "a", "1", "１/２"):
        with pytest.raises(UserError, match=f"--shard {wrong}: expected i/n"):
            tool.read_shard(wrong)


def begin(monkeypatch, plan):
    """Lets the tool write down what its trainings have in common, and make none."""
    with monkeypatch.context() as patch:
        patch.setattr(tool, "complete_trials", lambda *arguments: [])
        assert run(patch, plan) == 0
    return plan.parent / "runs" / "t"


def test_finished_trainings_are_collected_and_never_made_again(plan, monkeypatch, capsys):
    trials, folder = tool.read_plan(plan).trials, begin(monkeypatch, plan)
    for trial in trials[:2]:
        write_trial(trial, folder, 0.4)
    assert run(monkeypatch, plan, "--collect") == 0, capsys.readouterr().err
    table = Table.load(plan.parent / "t.jsonl")
    assert len(table.rows) == 4
    row = next(row for row in table.rows if row.digits == trials[0].digits and row.epochs == 5)
    assert (row.of_epochs, row.image_passes, row.loss) == (10, 5 * 3 * 32, 0.2)
    assert set(row.scores) == {"heldout_new/mAP", "heldout_new/rank1"}
    left = tool.choose_trials(trials, table, slice(None))
    assert len(left) == len(trials) - 2

    started = []

    def complete(todo, *arguments):
        started.extend(todo)
        return []

    monkeypatch.setattr(tool, "complete_trials", complete)
    assert run(monkeypatch, plan) == 0
    assert started == left


def test_shards_that_are_stopped_make_the_whole_table(plan, monkeypatch, capsys):
    trials, folder = tool.read_plan(plan).trials, begin(monkeypatch, plan)
    launched: list[str] = []

    def stop_after_four(commands):
        for number, name in enumerate(commands):
            if number == 4:
                raise Interrupted("stopped", 130)
            launched.append(name)
            digits, seed, fold = name.split("-")
            write_trial(Trial(digits, int(seed.removeprefix("seed")), int(fold.removeprefix("fold"))), folder, 0.4)
            yield Outcome(name, 0, "")

    monkeypatch.setattr(tool, "choose_launcher", lambda arguments: stop_after_four)
    for i in (1, 2, 3):
        while (code := run(monkeypatch, plan, "--shard", f"{i}/3")) != 0:
            assert code == 130
            assert len(Table.load(plan.parent / "t.jsonl").rows) == 2 * len(launched)  # nothing is lost
    rows = Table.load(plan.parent / "t.jsonl").rows
    assert sorted({(row.digits, row.seed, row.fold) for row in rows}) == sorted(
        (t.digits, t.seed, t.fold) for t in trials
    )
    assert sorted(launched) == sorted(trial.name for trial in trials)  # each once


def test_trainings_of_another_recipe_or_other_images_are_refused(plan, monkeypatch, capsys):
    folder = begin(monkeypatch, plan)
    write_trial(tool.read_plan(plan).trials[0], folder, 0.4)
    (plan.parent / "recipe.yaml").write_text(RECIPE.replace("batch_size: 32", "batch_size: 16"))
    assert run(monkeypatch, plan, "--collect") == 2
    assert "holds trainings of another plan (conditions.recipe: " in capsys.readouterr().err
    (plan.parent / "recipe.yaml").write_text(RECIPE)
    monkeypatch.setattr(tool, "build_images_hash", lambda cfg, with_targets: "others")
    assert run(monkeypatch, plan, "--collect") == 2
    assert "plan (conditions.images: " in capsys.readouterr().err
    (folder / "plan.json").unlink()
    (folder / tool.read_plan(plan).trials[0].name / "metrics.json").unlink()  # begun, not finished
    assert run(monkeypatch, plan, "--collect") == 2
    assert "holds trainings, but no plan.json" in capsys.readouterr().err
    assert not (plan.parent / "t.jsonl").exists()


def test_table_of_another_recipe_is_refused_before_anything_is_trained(plan, monkeypatch, capsys):
    write_trial(tool.read_plan(plan).trials[0], begin(monkeypatch, plan), 0.4)
    assert run(monkeypatch, plan, "--collect") == 0
    (plan.parent / "recipe.yaml").write_text(RECIPE.replace("batch_size: 32", "batch_size: 16"))
    nowhere = ("--root", str(plan.parent / "nowhere"))  # and before images are drawn
    assert run(monkeypatch, plan, *nowhere, "--runs", str(plan.parent / "others")) == 2
    assert "t.jsonl is of other trainings (recipe " in capsys.readouterr().err
    assert run(monkeypatch, plan, *nowhere, "--shard", "9/8") == 2
    assert "--shard 9/8: expected i/n" in capsys.readouterr().err
    assert not (plan.parent / "nowhere").exists()
    (plan.parent / "recipe.yaml").write_text(RECIPE)
    monkeypatch.setattr(tool, "NUMERICS", 7)
    assert run(monkeypatch, plan, "--runs", str(plan.parent / "others")) == 2
    assert "t.jsonl is of other trainings (numerics 1 there, 7 here)" in capsys.readouterr().err
    assert not (plan.parent / "others").exists()


def test_collecting_writes_nothing_where_trainings_are_not(plan, monkeypatch):
    assert run(monkeypatch, plan, "--collect") == 0
    assert not (plan.parent / "runs").exists()


def test_plan_of_ones_own_that_the_page_shows_fits_its_recipe(tmp_path):
    page = (Path(tool.FOLDER).parent / "docs" / "tables.md").read_text().split("## A table of your own")[1]
    recipe, plan = (re.search(rf"```{language}\n(.*?)```", page, re.DOTALL)[1] for language in ("yaml", "text"))
    (tmp_path / "shop.recipe.yaml").write_text(
        recipe.replace("child_short.yaml", str(tool.FOLDER.parent / "child_short.yaml"))
    )
    (tmp_path / "shop.yaml").write_text(plan)
    found = tool.read_plan(tmp_path / "shop.yaml")
    assert len(found.trials) == 32 + 3 + 28 + 2 * 16
    tool.check_recipe(flatten(load_config([found.recipe])), found)


def test_plans_of_the_repository_can_be_read():
    plans = [p for p in (Path(tool.FOLDER)).glob("*.yaml") if "." not in p.stem]
    assert plans
    for path in plans:
        plan = tool.read_plan(path)
        assert plan.recipe.is_file()
        assert len(set(plan.trials)) == len(plan.trials)
