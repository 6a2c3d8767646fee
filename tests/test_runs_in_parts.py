"""Runs whose batches pass a device in parts: how large these are, and that they stay so when a run continues."""

import yaml

from engine import footprint
from tests.same import assert_same
from tests.test_main import weights_of
from utils.checkpoint import load_checkpoint


def test_parts_that_fit_are_chosen_and_kept_when_a_run_continues(run_main, tmp_path, monkeypatch):
    """Four images fit at first, all twelve when the run goes on: it goes on with four."""
    folder = tmp_path / "run"
    words = ["train.device_batch", -1, "model.genotype", "osnet"]
    monkeypatch.setattr(footprint, "measure_footprint", lambda step, height, width: footprint.Footprint(0, 10))
    monkeypatch.setattr(footprint, "measure_free_memory", lambda runtime: 50)
    assert run_main(*words, "train.max_epoch", 1) == 0
    assert yaml.safe_load((folder / "config.yaml").read_text())["train"]["device_batch"] == 4
    assert load_checkpoint(folder / "checkpoints" / "last.pt")["config"]["train.device_batch"] == 4
    assert "of a device's memory for 4 images at a time" in (folder / "train.log").read_text()
    by_hand = tmp_path / "by_hand"
    assert run_main(*words[2:], "train.device_batch", 4, "train.max_epoch", 1, save_dir=by_hand) == 0
    assert_same(weights_of(folder / "checkpoints" / "last.pt"), weights_of(by_hand / "checkpoints" / "last.pt"))
    monkeypatch.setattr(footprint, "measure_free_memory", lambda runtime: 10**9)
    assert run_main(*words, "train.max_epoch", 1, "model.resume", "auto", "test.ranks", [1]) == 0
    assert load_checkpoint(folder / "checkpoints" / "last.pt")["config"]["train.device_batch"] == 4
    assert yaml.safe_load((folder / "config.yaml").read_text())["train"]["device_batch"] == 4


def test_parts_that_do_not_fit_are_warned_of(run_main, tmp_path, monkeypatch):
    monkeypatch.setattr(footprint, "measure_footprint", lambda step, height, width: footprint.Footprint(0, 10))
    monkeypatch.setattr(footprint, "measure_free_memory", lambda runtime: 50)
    assert run_main("model.genotype", "osnet", "train.max_epoch", 1) == 0
    assert "which may not be enough; train.device_batch 4 needs" in (tmp_path / "run" / "train.log").read_text()


def test_batch_norms_are_recalibrated_by_parts_of_the_same_size(run_main, monkeypatch):
    sizes = []

    def note(network, images):
        sizes.extend(len(part) for part in images)
        network.eval()

    monkeypatch.setattr("build.recalibrate_batch_norm", note)
    assert run_main("train.device_batch", 4, "train.max_epoch", 1, name="osnet_nas") == 0
    assert sizes == [4] * 9  # three batches of twelve
