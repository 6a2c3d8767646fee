"""Comparing genotypes: what can be named, what is trained, what the tables say."""

import json

import numpy as np
import pytest

import tools.compare_genotypes as tool
from genotype import Genotype
from search.compare import estimate, estimate_difference
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


def test_what_can_be_named(tmp_path):
    found = {"method": "design", "costs": {"image_passes": 12345}}
    Genotype(("OSBlock",) * 2, ("OSBlockINv1",) * 2, ("OSBlock",) * 2, found).to_json(tmp_path / "genotype.json")
    networks = tool.read_networks([str(tmp_path), "osnet", "123123", "random:2"], seed=1)
    assert [n.label for n in networks[:3]] == ["design 001100", "osnet", "123123"]
    assert (networks[0].choice, networks[0].cost) == ("001100", 12345)
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
    asked = []

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
                experiment = settings["model.genotype"] + settings["train.lr"]
                document = {"format": "osnet-metrics", "version": 1, "targets": targets, "experiment": experiment}
                (folder / "metrics.json").write_text(json.dumps(document))
                yield Outcome(name, 0, "")

    monkeypatch.setattr(tool, "LocalLauncher", Launcher)
    words = ["--genotypes", "osnet", "osnet_ain", "train.lr", "0.01", "--config-file", str(recipe), "--folder",
             str(tmp_path / "out"), "--jobs", "2", "--seeds"]  # fmt: skip
    assert tool.main([*words, "2"]) == 0
    assert sorted(asked) == [(g, s, "0.01") for g in ("osnet", "osnet_ain") for s in ("1", "2")]
    out = capsys.readouterr().out
    assert "4 trainings, 4 to be made" in out
    assert "+10.0% ± 0.0%" in out
    assert "201,864" in out
    assert (tmp_path / "out" / "comparison.png").exists()
    asked.clear()
    assert tool.main([*words, "3"]) == 0
    assert [seed for _, seed, _ in asked] == ["3", "3"]
    words[words.index("0.01")] = "0.02"
    assert tool.main([*words, "4"]) == 2
    assert "the trainings of osnet in" in capsys.readouterr().err


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
