"""The settings: defaults, merging, refusal of what cannot work, and that every key is read by something."""

import re
from pathlib import Path

import pytest
import yaml

from default_config import (
    FREE_KEYS,
    KEYS,
    REFUSED,
    check_same_run,
    config_hash,
    default_config,
    flatten,
    load_config,
    parse_pairs,
)
from utils.errors import UserError

ROOT = Path(__file__).parents[1]

# Torchreid's projects/OSNet_AIN/nas.yaml: its keys and values, written down here anew
TORCHREID_NAS = {
    "model": {"name": "osnet_nas", "pretrained": False},
    "nas": {"mc_iter": 1, "init_lmda": 10.0, "min_lmda": 1.0, "lmda_decay_step": 20, "lmda_decay_rate": 0.5,
            "fixed_lmda": False},
    "data": {"type": "image", "sources": ["msmt17"], "targets": ["market1501"], "height": 256, "width": 128,
             "combineall": True, "transforms": ["random_flip", "color_jitter"], "save_dir": "log/osnet_nas"},
    "loss": {"name": "softmax", "softmax": {"label_smooth": True}},
    "train": {"optim": "sgd", "lr": 0.1, "max_epoch": 120, "batch_size": 512, "fixbase_epoch": 0,
              "open_layers": ["classifier"], "lr_scheduler": "cosine"},
    "test": {"batch_size": 300, "dist_metric": "cosine", "normalize_feature": False, "evaluate": False,
             "eval_freq": -1, "rerank": False, "visactmap": False},
}  # fmt: skip


def test_torchreids_own_nas_yaml_loads_unchanged(tmp_path):
    path = tmp_path / "nas.yaml"
    path.write_text(yaml.safe_dump(TORCHREID_NAS))
    cfg = load_config([path])
    for name, value in flatten(TORCHREID_NAS).items():
        if name not in REFUSED:
            assert flatten(cfg)[name] == value, name


def test_shipped_nas_yaml_is_the_papers_recipe():
    assert flatten(load_config([ROOT / "nas.yaml"])) == flatten(load_config([], flatten(TORCHREID_NAS)))


@pytest.mark.parametrize("file", sorted(p.name for p in ROOT.glob("*.yaml")))
def test_shipped_config_loads(file):
    assert load_config([ROOT / file]).is_frozen()


def test_later_settings_win_over_earlier_ones(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("train: {lr: 0.5, max_epoch: 7}\n")
    cfg = load_config([path], {"train.lr": 0.25})
    assert (cfg.train.lr, cfg.train.max_epoch, cfg.train.batch_size) == (0.25, 7, KEYS["train.batch_size"].default)


def test_values_take_the_type_of_their_default():
    pairs = parse_pairs(["train.lr", "1", "data.save_dir", "3", "train.stepsize", "[20, 40]", "data.targets", "viper"])
    cfg = load_config([], pairs)
    assert isinstance(cfg.train.lr, float)
    assert cfg.data.save_dir == "3"
    assert cfg.train.stepsize == [20, 40]
    assert cfg.data.targets == ["viper"]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("train.lrr", 0.1, "unknown key 'train.lrr'; did you mean 'train.lr'?"),
        ("lr", 0.1, "unknown key 'lr'"),
        ("train", 3, "unknown key 'train'"),
        ("train.lr", "fast", "train.lr = 'fast': must be a number, not str"),
        ("train.lr", -0.1, "train.lr = -0.1: must be greater than 0"),
        ("train.max_epoch", 1.5, "must be a whole number, not float"),
        ("train.max_epoch", True, "must be a whole number, not bool"),
        ("data.combineall", 1, "must be True or False, not int"),
        ("model.width", 0.3, "allowed are 1.0, 0.75, 0.5, 0.25"),
        ("train.optim", "adamw", "allowed are adam, amsgrad, sgd, rmsprop, radam"),
        ("nas.lmda_decay_step", 0, "must be at least 1 (or -1)"),
        ("nas.lmda_decay_rate", 2.0, "must lie between 0 and 1"),
        ("data.sources", [], "must not be empty"),
        ("data.sources", [[]], "must be text"),
        ("data.norm_mean", [0.5], "must be three numbers"),
        ("model.pretrained", True, "model.load_weights"),
        ("data.type", "video", "not video"),
        ("nas.min_lmda", 11.0, "is above nas.init_lmda"),
        ("test.evaluate", True, "needs model.load_weights"),
        ("model.genotype", "osnet_ain", "set model.name osnet_child"),
        ("train.fixbase_epoch", 1000, "is above train.max_epoch"),
        ("data.norm_std", [0.0, 1.0, 1.0], "must be above 0"),
    ],
)  # fmt: skip
def test_wrong_setting_is_told_in_one_line(name, value, told):
    with pytest.raises(UserError) as caught:
        load_config([], {name: value})
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


UNIFORM = {"nas.method": "uniform", "nas.held_out": "cameras"}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"nas.method": "uniform"}, "ranks sub-networks on held-out images; set nas.held_out cameras or source"),
        ({**UNIFORM, "train.compile": True}, "runs another network in each step; set train.compile False"),
        ({**UNIFORM, "test.evaluate": True, "model.load_weights": "x.pt"}, "set test.evaluate False"),
        ({**UNIFORM, "test.eval_freq": 5}, "set test.eval_freq -1 and test.eval_epochs []"),
        ({**UNIFORM, "test.eval_epochs": [5]}, "set test.eval_freq -1 and test.eval_epochs []"),
        ({**UNIFORM, "nas.method": "design", "nas.candidates": "shared"}, "nas.method design trains children alone"),
        ({"nas.method": "darts"}, "allowed are gumbel, uniform, design"),
        ({"nas.candidates": "tied"}, "allowed are separate, shared"),
    ],
)  # fmt: skip
def test_method_that_does_not_go_with_other_settings_is_told_in_one_line(settings, told):
    with pytest.raises(UserError) as caught:
        load_config([], settings)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_method_of_a_search_is_nothing_to_a_child():
    load_config([], {"model.name": "osnet_child", "nas.method": "uniform", "test.eval_freq": 5})


@pytest.mark.parametrize(
    ("content", "told"),
    [("train: [", "not valid YAML"), ("- 1\n", "must hold groups"), ("train:\n  lr: x\n", "must be a number")],
)
def test_wrong_config_file_is_told_in_one_line(tmp_path, content, told):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=told) as caught:
        load_config([path])
    assert "\n" not in str(caught.value)


def test_missing_config_file_is_told():
    with pytest.raises(UserError, match=r"cannot read config file nowhere\.yaml"):
        load_config(["nowhere.yaml"])


def test_key_without_value_is_told():
    with pytest.raises(UserError, match=r"'train.lr' has no value"):
        parse_pairs(["train.lr"])


def test_refused_keys_are_accepted_at_the_value_that_changes_nothing():
    load_config([], {name: neutral for name, (neutral, _) in REFUSED.items()})


def test_every_key_is_read_by_the_program():
    sources = [p for pattern in ("*.py", "*/*.py") for p in ROOT.glob(pattern)]
    code = "\n".join(
        p.read_text()
        for p in sources
        if p.name not in ("config_keys.py", "default_config.py") and "tests" not in p.parts and ".venv" not in p.parts
    )
    # "train = cfg.train" followed by "train.lr" reads train.lr; so does "cfg.train.lr"
    unread = [
        name
        for name in KEYS
        if not name.startswith("synthetic.") and not re.search(rf"\b{re.escape(name)}\b", _code_only(code))
    ]
    assert not unread
    assert re.search(r"\bcfg\.synthetic\b", code)


def _code_only(code: str) -> str:
    """Takes out strings and comments, where a key is only mentioned."""
    code = re.sub(r'"""(?:.|\n)*?"""', "", code)
    code = re.sub(r'f?"[^"\n]*"', "", code)
    return re.sub(r"#.*", "", code)


def test_hash_stands_for_what_is_computed():
    base = load_config()
    assert config_hash(base) == config_hash(load_config([], {"data.workers": 1, "data.save_dir": "x"}))
    assert config_hash(base) != config_hash(load_config([], {"train.seed": 2}))


def test_continuing_under_other_settings_is_refused_with_the_difference():
    saved = flatten(load_config([], {"train.lr": 0.5}))
    check_same_run(saved, load_config([], {"train.lr": 0.5, "data.workers": 0}), "last.pt")
    with pytest.raises(UserError, match=r"train.lr: 0.5 then, 0.25 now"):
        check_same_run(saved, load_config([], {"train.lr": 0.25}), "last.pt")


def test_free_keys_exist():
    assert set(KEYS) >= FREE_KEYS


def test_defaults_pass_their_own_checks():
    defaults = flatten(default_config())
    assert set(defaults) == set(KEYS)
    load_config([], defaults)
