"""The identity of an experiment: the same for repeats, another one wherever something else is computed."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from build_design import hash_recipe
from config_keys import KEYS
from default_config import flatten, load_config
from experiment import identify_experiment
from search.table import Table
from utils.errors import UserError

ROOT = Path(__file__).parents[1]
CHILD = {"name": "osnet_child", "width": 1.0, "loss": "softmax", "num_classes": 5, "genotype": ["OSBlock"] * 6}


def identify(changed: Mapping[str, Any], network: Mapping[str, Any] = CHILD, images: str = "a") -> str:
    settings = flatten(load_config([], {"model.name": "osnet_child", **changed}))
    return identify_experiment(settings, network, images)


def test_repeats_are_the_same() -> None:
    base = identify({})
    assert re.fullmatch("[0-9a-f]{12}", base)
    for same in (
        {"train.seed": 2}, {"data.root": "x", "data.save_dir": "y", "data.workers": 0}, {"test.ranks": [1]},
        {"model.genotype": "a.json"}, {"train.lr": KEYS["train.lr"].default}, {"model.resume": "auto"},
        {"use_gpu": False}, {"train.fixbase_epoch": -1},
    ):  # fmt: skip
        assert identify(same) == base, same
    known = {key: value for key, value in flatten(load_config()).items() if not key.startswith("nas.")}
    assert (
        identify_experiment({**known, "model.name": "osnet_child"}, CHILD, "a") == base
    )  # as of before these settings


def test_what_computes_something_else_is_another() -> None:
    found = [
        identify({}), identify({"train.lr": 0.5}), identify({"data.sources": ["a"]}), identify({"nas.fold": 1}),
        identify({"train.fixbase_epoch": 7}), identify({"test.dist_metric": "cosine"}), identify({}, images="b"),
        identify({}, {**CHILD, "genotype": ["OSBlockINv1"] * 6}), identify({}, {**CHILD, "num_classes": 6}),
    ]  # fmt: skip
    assert len(set(found)) == len(found)


def test_weights_count_by_their_content(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, content in (("a.pt", b"weights"), ("b.pt", b"weights"), ("c.pt", b"other weights")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (identify({"model.load_weights": str(tmp_path / name)}) for name in ("a.pt", "b.pt", "c.pt"))
    assert a == b
    assert len({identify({}), a, c}) == 3
    (tmp_path / "a.pt").unlink()
    assert identify({"model.load_weights": str(tmp_path / "a.pt")}) not in (a, identify({}))
    assert "cannot be read any more (No such file or directory)" in caplog.text


def test_the_rows_of_the_table_are_of_its_recipe() -> None:
    name = ROOT / "tables" / "synthetic_a_x0_25"
    recipe = flatten(load_config([name.with_suffix(".recipe.yaml")]))
    rows = Table.load(name.with_suffix(".jsonl")).rows
    assert {row.recipe for row in rows} == {hash_recipe(recipe)}
    repeat = {"train.seed": 5, "nas.fold": 2, "model.genotype": "110110", "test.batch_size": 7, "data.targets": []}
    assert hash_recipe(recipe | repeat) == hash_recipe(recipe)
    assert hash_recipe(recipe | {"train.lr": 0.1}) != hash_recipe(recipe)
    assert hash_recipe(recipe | {"test.dist_metric": "euclidean"}) != hash_recipe(recipe)
    assert hash_recipe(recipe | {"test.eval_epochs": [3]}) == hash_recipe(recipe)


def test_recipe_of_compared_trainings_names_its_parts():
    with pytest.raises(UserError, match="device_batch -1 in a recipe"):
        hash_recipe(flatten(load_config([], {"train.device_batch": -1})))
