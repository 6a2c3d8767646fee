"""Comparing genotypes: what can be named, what is trained, what the tables say."""

import json

import numpy as np
import pytest
from scipy import stats

import tools.compare_genotypes as tool
from default_config import load_config
from genotype import Genotype
from search.compare import (
    Comparison,
    compare,
    estimate,
    estimate_difference,
    estimate_unpaired_difference,
    list_comparison,
)
from search.launcher import Outcome
from utils.errors import UserError


def test_interval_of_a_mean_is_student_s():
    interval = estimate([0.1, 0.2, 0.4])
    assert interval.mean == pytest.approx(0.7 / 3)
    assert interval.half_width == pytest.approx(4.302653 * np.std([0.1, 0.2, 0.4], ddof=1) / np.sqrt(3), rel=1e-6)
    assert np.isnan(estimate([0.3]).half_width)
    assert estimate([0.3]).format() == "30.0%"


def test_difference_is_paired_by_seed():
    difference = estimate_difference({1: 0.5, 2: 0.7, 3: 0.1}, {1: 0.4, 2: 0.6, 9: 0.9})
    assert (difference.mean, difference.num) == (pytest.approx(0.1), 2)
    assert difference.half_width == pytest.approx(0, abs=1e-9)
    assert estimate_difference({1: 0.5}, {2: 0.5}) is None


def compare_on_x(scores):
    return compare({label: {s: {"x": v} for s, v in runs.items()} for label, runs in scores.items()}, "x")


def test_difference_of_other_seeds_is_welch_s():
    values, reference = [0.3, 0.5, 0.4], [0.1, 0.2]
    low, high = stats.ttest_ind(values, reference, equal_var=False).confidence_interval()
    found = estimate_unpaired_difference(values, reference)
    assert found == pytest.approx((0.25, (high - low) / 2, 5))
    assert estimate_unpaired_difference([0.5, 0.5], [0.25, 0.25]) == (0.25, 0, 4)
    assert estimate_unpaired_difference([0.3, 0.5], [0.1]) is None


def test_random_networks_are_also_compared_as_one():
    """The half-widths over seeds and over networks, each by Student's t with one degree of freedom."""
    scores = {"found": {1: 0.5, 2: 0.6}, "random 0": {1: 0.1, 2: 0.2}, "random 1": {1: 0.3, 2: 0.2}}
    found = compare_on_x(scores)
    assert list(found) == [*scores, "mean of the random networks"]
    mean, difference = found["mean of the random networks"]
    assert (mean.mean, mean.num, difference.mean) == (pytest.approx(0.2), 2, pytest.approx(-0.35))
    assert mean.half_width == pytest.approx(12.7062 * 0.05, rel=1e-4)  # 0.2 with both seeds, 0.15 and 0.25
    assert difference.half_width == pytest.approx(12.7062 * np.hypot(0.05, 0.05), rel=1e-4)


@pytest.mark.parametrize(
    "scores",
    [
        {"found": {1: 0.5}, "random 0": {1: 0.1}},
        {"found": {1: 0.5}, "random 0": {1: 0.1}, "random 1": {1: 0.1, 2: 0.2}},
        {"found": {1: 0.5}, "random 0": {1: 0.1}, "random 1": {}},
        {"found": {1: 0.5}, "random 0": {}, "random 1": {}},
        {"random 0": {1: 0.1}, "random 1": {1: 0.2}, "found": {1: 0.5}},
    ],
)
def test_random_networks_that_cannot_be_compared_as_one(scores):
    assert list(compare_on_x(scores)) == list(scores)


def test_random_networks_without_a_seed_of_the_first():
    mean, difference = compare_on_x({"found": {}, "random 0": {1: 0.1}, "random 1": {1: 0.3}})[
        "mean of the random networks"
    ]
    assert (mean.mean, difference) == (pytest.approx(0.2), None)


def test_table_of_a_comparison():
    scores = {"a": {1: {"x": 0.5}, 2: {"x": 0.5}}, "b": {1: {"x": 0.25}}, "c": {3: {"x": 0.25}}, "d": {1: {"y": 0}}}
    assert list_comparison(scores, "x") == [
        ("a", "50.0% ± 0.0%", "", "2"), ("b", "25.0%", "-25.0%", "1"), ("c", "25.0%", "–", "1"), ("d", "–", "–", "0"),
    ]  # fmt: skip


SETTINGS = {"data.sources": ["market1501"], "data.height": 128, "train.lr": 0.01}


def test_file_of_a_comparison(tmp_path):
    comparison = Comparison(SETTINGS, {"a": {0: {"x": 0.5}, 12: {}}, "b": {}})
    comparison.write(tmp_path / "one.json")
    assert Comparison.read(tmp_path / "one.json") == comparison


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("{", "[", "is not a comparison file: not valid JSON"), ("osnet-comparison", "other", "is no comparison"),
        ('"scores"', '"marks"', "lacks scores"), ("0.5", "1.5", "scores is"), ("0.5", "NaN", "scores is"),
        ('"x": 0.5', '"x": "0.5"', "scores is"), ('"x": 0.5', '"x": true', "scores is"),
        ('"x": 0.5', "", "scores is"), ('"1": {', '"one": {', "scores is"), ('"1": {', '"01": {', "scores is"),
        ('"a"', '"a|b"', "scores is"), ('"a"', '"a\\n"', "scores is"), ('"x"', '"x|"', "scores is"),
        ('"a"', '"mean of the random networks"', "scores is"), ('"settings": {', '"settings": 3, "": {', "settings is"),
        ("market1501", "market|1501", "settings is"), ('"data.height"', '"data\\nheight"', "settings is"),
    ],
)  # fmt: skip
def test_damaged_file_of_a_comparison(tmp_path, old, new, told):
    path = tmp_path / "one.json"
    Comparison(SETTINGS, {"a": {1: {"x": 0.5}}}).write(path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=told):
        Comparison.read(path)


@pytest.mark.parametrize("score", [float("nan"), 1.5, -0.1])
def test_scores_that_are_none_are_not_written(tmp_path, score):
    with pytest.raises(UserError, match=r"one.json cannot be written: scores is"):
        Comparison(SETTINGS, {"a": {1: {"x": score}}}).write(tmp_path / "one.json")
    assert not (tmp_path / "one.json").exists()


def test_what_can_be_named(tmp_path):
    found = {"method": "design", "costs": {"image_passes": 12345}}
    Genotype(("OSBlock",) * 2, ("OSBlockINv1",) * 2, ("OSBlock",) * 2, found).to_json(tmp_path / "genotype.json")
    networks = tool.read_networks([str(tmp_path), "osnet", "123123", "random:2"], seed=1)
    assert [n.label for n in networks[:3]] == ["design 001100", "osnet", "123123"]
    assert (networks[0].choice, networks[0].cost) == ("001100", 12345)
    Genotype(("OSBlock",) * 2, ("OSBlock",) * 2, ("OSBlock",) * 2, {"method": "random"}).to_json(tmp_path / "one.json")
    assert tool.read_networks([str(tmp_path / "one.json")], seed=1)[0].label == "found 000000"  # not one drawn here
    assert networks[3:] == tool.read_networks(["random:2"], seed=1) != tool.read_networks(["random:2"], seed=2)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["osnet", "osnet"], "names osnet more than once"), (["random:x"], "expected a number from 1 to 4096"),
        (["random:0"], "expected a number"), (["osnet_x"], "cannot read genotype osnet_x"),
    ],
)  # fmt: skip
def test_what_cannot_be_named(words, told):
    with pytest.raises(UserError, match=told):
        tool.read_networks(words, 1)


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "child.yaml").write_text("model: {name: osnet_child, width: 0.25}\ndata: {height: 32, width: 16}\n")
    return tmp_path / "child.yaml"


def test_trains_what_is_missing_and_shows_all(tmp_path, recipe, monkeypatch, capsys):
    asked, images = [], "some"

    class Launcher:
        def __init__(self, jobs, gpus):
            assert jobs == 2

        def __call__(self, commands):
            for name, command in commands.items():
                settings = dict(zip(command[4::2], command[5::2], strict=True))
                asked.append((settings["model.genotype"], settings["train.seed"], settings["train.lr"]))
                folder = tmp_path / "out" / name
                folder.mkdir(parents=True)
                score = 0.5 + 0.01 * int(settings["train.seed"]) + 0.1 * (settings["model.genotype"] == "osnet_ain")
                targets = {"market1501": {"mAP": score}, "cuhk01": {"mAP": score / 2}}
                experiment = settings["model.genotype"] + images
                (folder / "config.yaml").write_text(load_config([recipe], settings).dump())
                document = {"format": "osnet-metrics", "version": 1, "targets": targets, "experiment": experiment}
                (folder / "metrics.json").write_text(json.dumps(document))
                yield Outcome(name, 0, "")

    monkeypatch.setattr(tool, "LocalLauncher", Launcher)
    words = ["--genotypes", "osnet", "osnet_ain", "train.lr", "0.01", "--config-file", str(recipe), "--folder",
             str(tmp_path / "out"), "--jobs", "2", "--seeds"]  # fmt: skip
    assert tool.main([*words, "2"]) == 0
    assert sorted(asked) == [(g, s, "0.01") for g in ("osnet", "osnet_ain") for s in ("1", "2")]
    assert "also over the networks" in (tmp_path / "out" / "comparison.txt").read_text()
    out = capsys.readouterr().out
    assert "4 trainings, 4 to be made" in out
    assert "+10.0% ± 0.0%" in out
    assert "201,864" in out
    assert (tmp_path / "out" / "comparison.png").exists()
    comparison = Comparison.read(tmp_path / "out" / "comparison.json")
    assert comparison.settings == {"model.name": "osnet_child", "model.width": 0.25, "data.height": 32,
                                   "data.width": 16, "train.lr": 0.01}  # fmt: skip
    assert comparison.scores["osnet_ain"][2] == {"market1501": pytest.approx(0.62), "cuhk01": pytest.approx(0.31)}
    asked.clear()
    assert tool.main([*words, "3"]) == 0
    assert [seed for _, seed, _ in asked] == ["3", "3"]
    comparison, images = Comparison.read(tmp_path / "out" / "comparison.json"), "others"
    assert tool.main([*words, "4"]) == 2
    assert "the trainings of osnet in" in capsys.readouterr().err
    words[words.index("0.01")] = "0.02"
    asked.clear()
    assert tool.main([*words, "5"]) == 2
    assert asked == []  # refused before anything is trained
    told = f"{tmp_path}/out/osnet-seed1 was trained with other settings (train.lr); give the new trainings another"
    assert told in capsys.readouterr().err
    assert Comparison.read(tmp_path / "out" / "comparison.json") == comparison


def test_a_search_s_recipe_is_refused(tmp_path, recipe, capsys):
    recipe.write_text("model: {name: osnet_nas}\n")
    words = ["--genotypes", "osnet", "--config-file", str(recipe), "--folder", str(tmp_path)]
    assert tool.main(words) == 2
    assert "is a search's config" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["model.genotype", "train.seed", "model.resume", "data.save_dir"])
def test_what_each_training_has_for_itself_is_not_set_in_silence(tmp_path, capsys, key):
    words = ["--genotypes", "osnet", "--config-file", "child.yaml", "--folder", str(tmp_path / "out"), key, "1"]
    assert tool.main(words) == 2
    assert f"{key}: each training has its own" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_settings_alone_name_no_genotype(tmp_path, capsys):
    words = ["--config-file", "child.yaml", "--folder", str(tmp_path / "out"), "--genotypes", "train.lr", "0.01"]
    assert tool.main(words) == 2
    assert "--genotypes names none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_a_dot_in_its_name_is_no_setting(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search.v2").mkdir()
    assert tool.main(["--genotypes", "search.v2", "--config-file", "child.yaml", "--folder", "out"]) == 2
    assert "cannot read genotype search.v2/genotype.json" in capsys.readouterr().err


def test_difference_of_few_common_seeds_says_so():
    scores = {"a": {s: {"x": 0.5} for s in (1, 2, 3)}, "b": {s: {"x": 0.25} for s in (3, 4)}}
    assert list_comparison(scores, "x")[1] == ("b", "25.0% ± 0.0%", "-25.0%, 1 common seed", "2")
