"""nas.method design from the command line, its trainings written down instead of made."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from genotype import Genotype
from main import main
from tests.conftest import write_market_tree
from tests.search.fake_trials import FakeLauncher

ROOT = Path(__file__).parents[1]
TRUTH = 0.2 + 0.1 * (np.array(list(np.ndindex(*[4] * 6))) == [1, 1, 0, 1, 1, 0]).sum(axis=1)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command line; returns the exit code."""
    root = write_market_tree(tmp_path / "data", num_train=40, num_test=3, per_camera=2)
    launcher = FakeLauncher(TRUTH, tmp_path / "run" / "runs", noise=1e-3)
    monkeypatch.setattr("build_design.LocalLauncher", lambda jobs, gpus: launcher)
    (tmp_path / "recipe.yaml").write_text("model: {name: osnet_child, width: 0.25}\ntrain: {max_epoch: 10}\n")
    words = ["nas.method", "design", "nas.held_out", "cameras", "nas.num_folds", "2", "data.targets", "[]",
             "nas.design.recipe", tmp_path / "recipe.yaml", "nas.design.confirm", "0"]  # fmt: skip
    folder = ["data.save_dir", tmp_path / "run"]
    return lambda *more: main(list(map(str, ["--root", root, *words, *folder, *more])))


def test_search_leaves_what_was_found(run, tmp_path):
    folder = tmp_path / "run"
    assert run() == 0
    names = {p.name for p in folder.iterdir()}
    assert names == {"config.yaml", "train.log", "checkpoints", "genotype.json", "ranking.npz", "architecture.png",
                     "report.html", "plan.json", "runs"}  # fmt: skip
    genotype = Genotype.from_json(folder / "genotype.json")
    assert genotype == Genotype.named("osnet_ain")
    assert (genotype.found["method"], genotype.found["epochs"], genotype.found["width"]) == ("design", 10, 0.25)
    assert f"GENOTYPE = {genotype!r}" in (folder / "train.log").read_text()
    plan = (folder / "plan.json").read_bytes()
    assert run("nas.num_folds", "4") == 2
    assert (folder / "plan.json").read_bytes() == plan
    assert "num_folds: 2" in (folder / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model.resume", "last.pt"], "goes on in its own folder by itself; leave model.resume out"),
        (["train.seed", 2**63 - 2], "needs the next ones too, at most 9223372036854775803"),
    ],
)
def test_settings_that_no_training_could_follow_are_refused(run, tmp_path, capsys, words, told):
    assert run(*words) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run" / "plan.json").exists()


def test_a_file_in_the_place_of_its_trainings_is_one_line(run, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "runs").write_text("text")
    assert run() == 2
    assert capsys.readouterr().err == f"error: cannot use {tmp_path / 'run' / 'runs'}: File exists\n"


@pytest.mark.parametrize("name", ["checkpoints/last.pt", "metrics.json"])
def test_another_runs_folder_is_refused(run, tmp_path, capsys, name):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("")
    assert run() == 2
    assert f"{tmp_path / 'run'} already holds a run" in capsys.readouterr().err
    assert not (tmp_path / "run" / "plan.json").exists()


def test_other_runs_refuse_its_folder(run, run_main, tmp_path, capsys):
    assert run() == 0
    before = json.loads((tmp_path / "run" / "genotype.json").read_text())
    assert run_main(name="osnet_nas") == 2
    assert "already holds a run of a designed search; give its command again" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "genotype.json").read_text()) == before


def test_stopped_it_says_how_to_go_on(run, monkeypatch, capfd):
    def stop(commands):
        signal.raise_signal(signal.SIGTERM)
        yield from ()

    monkeypatch.setattr("build_design.LocalLauncher", lambda jobs, gpus: stop)
    assert run() == 143
    assert "what was trained so far is kept: continue with the same command" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train.max_epoch", "5"], "train.max_epoch 5 has no effect with nas.method design"),
        (["data.targets", "['market1501']", "model.width", "0.5"], "model.width 0.5 has no effect"),
        (["data.targets", "['cuhk01']"], "data.targets ['cuhk01'] has no effect"),
        (["test.evaluate", "True", "model.load_weights", "x.pt"], "trains networks and loads none"),
        (["nas.design.recipe", ROOT / "nas.yaml"], "nas.yaml is a search's config; it must train a child"),
    ],
)
def test_settings_that_would_change_nothing_are_refused(run, tmp_path, capsys, words, told):
    assert run(*words) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
