"""nas.method uniform from the command line: what it leaves, stopped and continued, and spread over two processes."""

import json
import os
import signal

import numpy as np
import pytest

from build import derive_network
from engine import trainer as trainer_module
from genotype import Genotype
from search.decide_ranking import decide_by_ranking
from search.ranking import Ranker
from tests.conftest import SMALL, write_market_tree
from tests.fork_server import wait_for_text
from tests.same import assert_same
from tests.test_torchrun import start_two
from utils.checkpoint import load_checkpoint

TIMEOUT_SEC = 600
UNIFORM = ["nas.method", "uniform", "nas.held_out", "cameras", "nas.num_folds", "2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Enough people to set ten aside, under two cameras."""
    return write_market_tree(tmp_path_factory.mktemp("data"), num_train=40, num_test=3, per_camera=2)


@pytest.fixture
def run(run_main, root):
    """Runs the command line; returns the exit code."""
    return lambda *words, **more: run_main(*UNIFORM, *words, root=root, name="osnet_nas", **more)


@pytest.fixture
def quick(monkeypatch):
    """Draws scores in place of running sub-networks; calls a hook before each part."""
    hooks = []

    def draw(ranker, part):
        for hook in hooks:
            hook(part)
        return np.random.default_rng(part).random((256, len(ranker.query_pids)), dtype=np.float32)

    monkeypatch.setattr(Ranker, "_score_part", draw)
    return hooks


def read_ranking(folder):
    with np.load(folder / "ranking.npz") as file:
        return dict(file)


def test_search_leaves_what_was_found(run, quick, tmp_path):
    folder = tmp_path / "run"
    assert run() == 0
    names = {p.name for p in folder.iterdir() if not p.name.startswith("events")}
    assert names == {"config.yaml", "train.log", "checkpoints", "metrics.json", "genotype.json", "history.jsonl",
                     "holdout.json", "ranking.npz", "architecture.png", "report.html"}  # fmt: skip
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"last.pt", "last.1.pt", "ranking_progress.npz"}
    ranking, genotype = read_ranking(folder), Genotype.from_json(folder / "genotype.json")
    assert ranking["ap"].shape == (4096, 20)
    assert sorted(np.unique(ranking["query_pids"], return_counts=True)[1]) == [2] * 10
    decision = decide_by_ranking(ranking["ap"], ranking["query_pids"])
    assert genotype.digits == decision.digits
    found = genotype.found
    assert (found["method"], found["people"], found["sources"]) == ("uniform", 10, ["market1501"])
    assert found["score_of_found"] == ranking["scores"][int(genotype.digits, 4)]
    assert found["score_of_best"] == ranking["scores"].max() == ranking["scores"][int(found["best"], 4)]
    assert found["rank_of_found"] == 1 + (ranking["scores"] > found["score_of_found"]).sum()
    assert set(found["not_significantly_worse"]) >= {genotype.digits, found["best"]}
    assert found["not_significantly_worse"][0] == found["best"]
    for name, block in zip(genotype.blocks, found["blocks"], strict=True):
        assert block["candidate"] == name
        assert all(block["low"][k] < v < block["high"][k] for k, v in block["values"].items())
    log = (folder / "train.log").read_text()
    for line in (*str(genotype).splitlines(), f"GENOTYPE = {genotype!r}", "16 of 16 parts ranked"):
        assert line in log
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["targets"]) == {"heldout_new", "heldout_seen", "market1501"}
    assert (load_checkpoint(folder / "checkpoints" / "last.pt")["model"]["alphas"] == 1).all()


@pytest.mark.usefixtures("undrawn")
def test_scored_network_is_the_one_found(run, quick, tmp_path, monkeypatch):
    """Also where that is not the plain one."""

    def decide(ap, query_pids):
        agreeing = (np.array(list(np.ndindex(*[4] * 6))) == [1, 1, 3, 1, 3, 0]).sum(axis=1)
        return decide_by_ranking(ap + agreeing[:, None], query_pids)

    def derive(supernet, identity):
        scored.append(supernet.derive().digits)
        return derive_network(supernet, identity)

    scored = []
    monkeypatch.setattr("search.decide_ranking.decide_by_ranking", decide)
    monkeypatch.setattr("build.derive_network", derive)
    assert run() == 0
    assert scored == ["113130"]
    assert Genotype.from_json(tmp_path / "run" / "genotype.json").digits == "113130"


def assert_same_end(a, b):
    for key in ("model", "optimizers", "schedulers", "task", "progress"):
        one, other = (load_checkpoint(folder / "checkpoints" / "last.pt")[key] for folder in (a, b))
        assert_same(one, other, key)
    assert (a / "ranking.npz").read_bytes() == (b / "ranking.npz").read_bytes()
    one, other = (json.loads((folder / "metrics.json").read_text())["targets"] for folder in (a, b))
    assert one == other
    one, other = (json.loads((folder / "genotype.json").read_text()) for folder in (a, b))
    for found in (one["found"], other["found"]):
        assert found.pop("costs")["image_passes"] > 0
    assert one == other


@pytest.mark.usefixtures("undrawn")
def test_killed_in_training_and_in_ranking_it_ends_the_same(run, quick, tmp_path, monkeypatch):
    assert run("nas.candidates", "shared", save_dir=tmp_path / "whole") == 0
    learn, batches = trainer_module.Trainer._learn, []

    def die(*_):
        raise KeyboardInterrupt

    def die_in_second_epoch(self, batch):
        batches.append(batch)
        if len(batches) == 7:
            die()
        learn(self, batch)

    words = ["nas.candidates", "shared", "model.resume", "auto", "train.save_every_min", 1e-6]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer_module.Trainer, "_learn", die_in_second_epoch)
        run(*words, save_dir=tmp_path / "parts")
    quick.append(lambda part: die() if part == 6 else None)
    with pytest.raises(KeyboardInterrupt):
        run(*words, save_dir=tmp_path / "parts")
    quick[:] = [lambda part: die() if part < 6 else None]  # what was ranked is not ranked again
    assert run(*words, save_dir=tmp_path / "parts") == 0
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
    quick[:] = [die]
    assert run(*words, save_dir=tmp_path / "parts") == 0
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.usefixtures("undrawn")
def test_signal_in_ranking_stops_at_once_and_says_how_to_continue(run, quick, tmp_path, capfd):
    quick.append(lambda part: signal.raise_signal(signal.SIGTERM) if part == 2 else None)
    assert run() == 143
    assert f"data.save_dir {tmp_path}/run" in capfd.readouterr().out.partition("continue with: python main.py ")[2]
    quick.clear()
    assert run("model.resume", "auto") == 0


@pytest.mark.usefixtures("undrawn")
def test_checkpoint_of_another_method_or_other_candidates_is_refused(run, quick, run_main, root, tmp_path, capfd):
    assert run("train.max_epoch", 1) == 0
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    words = ["nas.held_out", "cameras", "nas.num_folds", 2, "train.max_epoch", 1, "model.resume", "auto"]
    assert run_main(*words, root=root, name="osnet_nas") == 2
    assert "nas.method: 'uniform' then, 'gumbel' now" in capfd.readouterr().err
    assert run("nas.candidates", "shared", "model.load_weights", last, save_dir=tmp_path / "shared") == 2
    told = capfd.readouterr().err
    assert "is of nas.candidates separate and not shared; set: nas.candidates separate" in told
    assert "Traceback" not in told
    evaluate = ["test.evaluate", True, "model.load_weights", last, "data.targets", "['market1501']"]
    assert run_main(*evaluate, root=root, name="osnet_nas", save_dir=tmp_path / "evaluation") == 2
    assert "all candidates are equally probable, so no network follows" in capfd.readouterr().err


def test_two_processes_rank_as_one_also_after_being_stopped(server, root, tmp_path):
    """Each ranks every other part; one process computes anew what both had done before they were stopped."""
    log, progress = tmp_path / "log", tmp_path / "run" / "checkpoints" / "ranking_progress.npz"
    words = ["--root", root, "model.name", "osnet_nas", *SMALL, *UNIFORM, "nas.candidates", "shared", "data.save_dir",
             tmp_path / "run", "nas.sample_scope", "replica", "model.resume", "auto"]  # fmt: skip
    pids = start_two(server, words, log)
    wait_for_text(log, "2 of 16 parts ranked", TIMEOUT_SEC)
    os.kill(pids[1], signal.SIGTERM)
    assert [server.wait(pid, TIMEOUT_SEC) for pid in pids] == [143, 143], log.read_text()
    together = rewrite_progress(progress, left=(14, 15))
    pids = start_two(server, words, log)
    assert [server.wait(pid, TIMEOUT_SEC) for pid in pids] == [0, 0], log.read_text()
    assert log.read_text().count("16 of 16 parts ranked") == 1
    rewrite_progress(progress, left=(0, 1))
    assert server.wait(server.start(words, log), TIMEOUT_SEC) == 0, log.read_text()
    assert together.std(axis=1).max() > 0.01
    np.testing.assert_allclose(read_ranking(tmp_path / "run")["ap"][:512], together, rtol=0, atol=1e-6)


def rewrite_progress(path, left):
    """Makes all parts of a ranking done, but for some; returns what the first two were, (512, Q)."""
    with np.load(path) as file:
        fingerprint, found = file["fingerprint"], file["ap"]
    first = found[:2].reshape(512, -1).copy()
    found[np.isnan(found)] = 0.5
    found[list(left)] = np.nan
    np.savez(path, fingerprint=fingerprint, ap=found)
    return first


@pytest.mark.usefixtures("undrawn")
def test_alphas_taught_by_held_out_cameras_continue_where_they_were(run_main, root, tmp_path):
    """Their optimiser has no schedule of its own, which a checkpoint's reader must know."""
    words = ["nas.candidates", "shared", "nas.alpha_data", "held_out", "nas.held_out", "cameras", "nas.num_folds", 2,
             "model.resume", "auto"]  # fmt: skip
    assert run_main(*words, root=root, name="osnet_nas") == 0
    before = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert run_main(*words, root=root, name="osnet_nas") == 0
    assert_same(load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt"), before, "last.pt")
