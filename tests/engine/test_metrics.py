"""metrics.json, read back: as it was written, or one line."""

import json

import pytest
import torch

from engine.metrics import RunFacts, format_metrics, read_metrics
from engine.scores import Scores
from utils.distributed import Runtime
from utils.errors import UserError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "metrics.json"
    scores = {"market1501": Scores({1: 0.5}, mAP=0.4, mINP=0.1, num_queries=7)}
    facts, runtime = RunFacts("abc", 1, ["main.py"], {"width": 1.0}), Runtime(torch.device("cpu"))
    path.write_text(format_metrics(facts, "child", scores, runtime, seconds=1.0, image_passes=2, peak_memory_bytes=3))
    return path


def test_what_was_written_is_read(path):
    found = read_metrics(path)
    assert (found["experiment"], found["targets"]["market1501"]["mAP"]) == ("abc", 0.4)


@pytest.mark.parametrize(
    "change",
    [{"format": "x"}, {"version": 2}, {"targets": None}, {"targets": {"a": 1}}, {"targets": {"a": {}}},
     {"targets": {"a": {"mAP": "0.1"}}}, {"experiment": 3}],
)  # fmt: skip
def test_what_was_changed_is_one_line(path, change):
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"metrics.json is (not a metrics file|damaged)"):
        read_metrics(path)


@pytest.mark.parametrize("content", ["", "[]", "null", "{"])
def test_another_file_is_one_line(path, content):
    path.write_text(content)
    with pytest.raises(UserError, match="is not a metrics file"):
        read_metrics(path)
