"""Trials: what is done is read, what is missing is trained, what fails is named."""

import json
from pathlib import Path

import pytest

from search.launcher import Outcome
from search.trials import Trial, complete_trials, read_trial
from tests.search.fake_trials import METRIC, write_trial
from utils.errors import UserError


def test_command_line_goes_on_where_it_was():
    words = Trial("110110", 3, 2).command(Path("recipe.yaml"), Path("runs"), ["data.root", "d"])
    pairs = dict(zip(words[4::2], words[5::2], strict=True))
    assert words[2:4] == ["--config-file", str(Path("recipe.yaml").resolve())]
    assert pairs == {
        "data.root": "d", "model.genotype": "110110", "train.seed": "3", "nas.fold": "2", "model.resume": "auto",
        "data.save_dir": str(Path("runs/110110-seed3-fold2").resolve()),
    }  # fmt: skip


def test_result_has_the_scores_of_every_budget(tmp_path):
    trial = Trial("203010", 1, 0)
    assert read_trial(trial, tmp_path) is None
    write_trial(trial, tmp_path, 0.4, (2, 4))
    result = read_trial(trial, tmp_path)
    assert {epoch: s[METRIC] for epoch, s in result.scores.items()} == {2: 0.2, 4: 0.4}
    assert result.losses == {2: 0.5, 4: 0.25}
    assert result.steps == {2: 6, 4: 12}
    assert not any(name.startswith("train/") for name in result.scores[4])


def test_another_networks_results_are_refused(tmp_path):
    write_trial(Trial("000000", 1, 0), tmp_path, 0.4)
    (tmp_path / "000000-seed1-fold0").rename(tmp_path / "000001-seed1-fold0")
    with pytest.raises(UserError, match="is not of genotype 000001 and seed 1; move it away"):
        read_trial(Trial("000001", 1, 0), tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"model": 3, "seed": 1}', '{"model": {}, "model": {}}'])
def test_damaged_results_are_one_line(tmp_path, content):
    trial = Trial("000000", 1, 0)
    write_trial(trial, tmp_path, 0.4)
    (tmp_path / trial.name / "metrics.json").write_text(content)
    with pytest.raises(UserError, match=r"metrics\.json is (damaged|not a metrics file)"):
        read_trial(trial, tmp_path)


LINES = """{"epoch": 5, "step": 15, "train/loss": 0.2, "heldout_new/mAP": 0.2}
{"epoch": 10, "step": 30, "train/loss": 0.2, "heldout_new/mAP": 0.4}
"""


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("", "lacks the scores"), (LINES.replace('"train/loss": 0.2, ', ""), "lacks the step or the loss of epoch 5"),
        (LINES.replace('"step": 30, ', ""), "lacks the step or the loss of epoch 10"),
        (LINES.replace('"step": 30', '"step": 1e999'), "lacks the step or the loss of epoch 10"),
        (LINES.replace("0.4", "NaN"), "a score that is none at epoch 10"), (LINES.replace("0.2}", "7}"), "at epoch 5"),
        (LINES.replace("0.2}", "true}"), "at epoch 5"), (LINES.replace('"epoch": 5', '"epoch": -5'), "do not rise"),
        (LINES + LINES, "do not rise"), (LINES.replace("heldout_new", "other"), "not those in metrics.json"),
        (LINES.splitlines()[0], "the last scores in history.jsonl are not those in metrics.json"),
    ],
)  # fmt: skip
def test_history_that_lacks_what_a_training_has_left_is_one_line(tmp_path, lines, told):
    trial = Trial("000000", 1, 0)
    write_trial(trial, tmp_path, 0.4)
    history = tmp_path / trial.name / "history.jsonl"
    history.write_text(LINES)
    assert list(read_trial(trial, tmp_path).scores) == [5, 10]
    history.write_text(lines)
    with pytest.raises(UserError, match=rf"-fold0 is damaged: .*{told}.*; move it away, and it is trained anew"):
        read_trial(trial, tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("time_sec", None), ("time_sec", "x"), ("versions", [1]), ("versions", None), ("targets", [1]), ("machine", 3),
        ("targets", {"heldout_new": {"mAP": "x"}}), ("numerics", "x"), ("image_passes", None), ("peak_rss_bytes", "x"),
    ],
)  # fmt: skip
def test_metrics_that_lack_what_a_table_keeps_are_one_line(tmp_path, key, value):
    trial = Trial("000000", 1, 0)
    write_trial(trial, tmp_path, 0.4)
    path = tmp_path / trial.name / "metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in {**metrics, key: value}.items() if v is not None}))
    with pytest.raises(UserError, match=r"-fold0 is damaged: .*metrics\.json"):
        read_trial(trial, tmp_path)


def test_only_what_is_missing_is_trained_and_what_fails_is_named(tmp_path, caplog):
    caplog.set_level("INFO")
    trials = [Trial(digits, 1, 0) for digits in ("000000", "111111", "222222")]
    write_trial(trials[0], tmp_path, 0.1)
    asked, seen = [], []

    def launch(commands):
        for name in commands:
            asked.append(name)
            if "222222" in name:
                yield Outcome(name, 2, "error: disk full")
            else:
                write_trial(trials[1], tmp_path, 0.2)
                yield Outcome(name, 0, "")

    (tmp_path / "222222-seed1-fold0").mkdir()  # stopped before its end
    results = complete_trials(trials, tmp_path, lambda t, f: [], launch, "some", lambda r: seen.append(len(r)))
    assert f"some: 3 trainings, 1 finished, 1 begun; each has its log, {tmp_path}/*/train.log" in caplog.text
    assert asked == ["111111-seed1-fold0", "222222-seed1-fold0"]
    assert [r.trial.digits for r in results] == ["000000", "111111"]
    assert seen == [2]
    assert "222222-seed1-fold0 failed with exit code 2 (error: disk full); 2 of 3 finished, 1 failed" in caplog.text
