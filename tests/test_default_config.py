"""The settings: defaults, merging, refusal of what cannot work, and that every key is read by something."""

import math
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from default_config import (
    KEYS,
    REFUSED,
    check_same_run,
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


@pytest.mark.parametrize(
    "changed", [{}, {"nas.method": "uniform"}, {"nas.candidates": "shared"}, {"nas.alpha_data": "held_out"}]
)
@pytest.mark.parametrize("name", [p.name.removesuffix(".search.yaml") for p in ROOT.glob("tables/*.search.yaml")])
def test_shipped_search_is_at_its_tables_setting(name, changed):
    recipe, search = (
        flatten(load_config([ROOT / "tables" / f"{name}.{part}.yaml"], settings))
        for part, settings in (("recipe", {}), ("search", changed))
    )
    shared = {"model.width", "nas.held_out", "nas.num_folds", "data.sources", "data.height", "data.width",
              "data.transforms", "data.max_train_ids", "train.max_epoch", "train.batch_size", "train.optim", "train.lr",
              *(key for key in recipe if key.startswith("synthetic."))}  # fmt: skip
    assert {key: search[key] for key in shared} == {key: recipe[key] for key in shared}
    assert search["model.name"] == "osnet_nas"
    assert search["data.targets"] == []


def test_recommended_search_is_the_one_that_was_judged_on_all_people_and_cameras():
    recommended, judged = (flatten(load_config([ROOT / f])) for f in ("nas_recommended.yaml",
                                                                       "tables/market_x0_25.search.yaml"))  # fmt: skip
    on_all_images = {"nas.held_out": "none", "data.max_train_ids": 0}
    assert {key: recommended[key] for key in on_all_images} == on_all_images
    without_effect = {"nas.num_folds", "use_gpu", "data.workers", "data.cache", "data.save_dir", "train.stepsize",
                      "train.keep_checkpoints", "test.batch_size"}  # fmt: skip
    assert {key for key in judged if recommended[key] != judged[key]} <= without_effect | on_all_images.keys()


def test_recipe_of_the_judged_designs_is_the_designs_but_shorter():
    short, usual = (flatten(load_config([ROOT / f])) for f in ("tables/synthetic_a_x0_25.design.yaml",
                                                               "child_short.yaml"))  # fmt: skip
    assert {key for key in usual if short[key] != usual[key]} == {"train.max_epoch", "test.eval_epochs"}


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
        ("train.lr", "fast", "train.lr = 'fast': must be a number"),
        ("train.lr", -0.1, "train.lr = -0.1: must be greater than 0"),
        ("train.max_epoch", 1.5, "must be a whole number, not float"),
        ("train.max_epoch", True, "must be a whole number, not bool"),
        ("data.combineall", 1, "must be True or False, not int"),
        ("model.width", 0.3, "allowed are 1.0, 0.75, 0.5, 0.25"),
        ("train.optim", "adamw", "allowed are adam, amsgrad, sgd, rmsprop, radam"),
        ("nas.lmda_decay_step", 0, "must be at least 1 (or -1)"),
        ("train.device_batch", 1, "must be at least 2 (or 0, -1)"),
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
        ("data.norm_std", [0.0, 1.0, 1.0], "must lie between 0.001 and 1000.0"),
        ("data.norm_mean", [math.inf, 0.0, 0.0], "must be finite"),
        ("data.norm_mean", ".nan,0,0", "must be finite"),
        ("data.norm_std", "[0.2, 1e300, 0.2]", "must lie between"),
        ("train.lr", "1e-300", "must lie between 1e-12 and 1e12"),
        ("train.lr", "1e999", "must be finite"),
        ("train.lr", "1" * 401, "must be finite"),
        ("train.lr", 10**400, "must be finite"),
        ("train.max_epoch", "9" * 5000, "must be a whole number"),
        ("train.max_epoch", "0x10", "must be a whole number"),
        ("train.max_epoch", "²", "must be a whole number"),
        ("train.max_epoch", "12:30", "must be a whole number"),
        ("train.stepsize", "[" * 100_000, "must be a list, such as"),
        ("train.stepsize", "{}", "must be a whole number"),
        ("train.stepsize", "[{a: 1}]", "must be a whole number, not dict"),
        ("train.keep_checkpoints", "1000000000", "must lie between 1 and 1000"),
        ("data.height", "10000000", "must lie between 32 and 4096"),
        ("data.workers", "10" * 9, "must lie between 0 and 1024"),
        ("test.batch_size", "10000000", "must lie between 1 and 100000"),
        ("data.combineall", "maybe", "must be True or False"),
        ("data.combineall", None, "data.combineall has no value"),
        ("data.root", "", "must not be empty"),
        ("data.save_dir", "", "must not be empty"),
        ("data.save_dir", "a" * 300, "has a name of 300 bytes"),
        ("model.load_weights", "ä" * 200, "has a name of 400 bytes"),
        ("model.genotype", "a/" * 2100, "has 4,200 bytes"),
        ("data.root", "a\0b", "line breaks or other control characters"),
        ("data.sources", ["a\u2028b"], "line breaks or other control characters"),
        ("data.root", "\ud800", "halves of characters"),
        ("data.root", "~no-such-person/data", "no home folder is known for it; write ./ in front"),
        ("model.name", "resnet50", "and Torchreid's OSNets, such as osnet_x1_0"),
        ("a" * 100_000, "1", "unknown key 'aaa"),
    ],
)  # fmt: skip
def test_wrong_setting_is_told_in_one_short_line(name, value, told):
    with pytest.raises(UserError) as caught:
        load_config([], {name: value})
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


UNIFORM = {"nas.method": "uniform", "nas.held_out": "cameras"}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"train.compile": True, "train.recompute": "blocks"}, "does not go with train.compile True"),
        ({"nas.method": "uniform"}, "ranks sub-networks on held-out images; set nas.held_out cameras or source"),
        ({**UNIFORM, "train.compile": True}, "runs another network in each step; set train.compile False"),
        ({**UNIFORM, "test.evaluate": True, "model.load_weights": "x.pt"}, "set test.evaluate False"),
        ({**UNIFORM, "test.eval_freq": 5}, "set test.eval_freq -1 and test.eval_epochs []"),
        ({**UNIFORM, "test.eval_epochs": [5]}, "set test.eval_freq -1 and test.eval_epochs []"),
        ({**UNIFORM, "nas.method": "design", "nas.candidates": "shared"}, "nas.candidates shared has no effect"),
        ({"nas.alpha_data": "held_out", "nas.held_out": "cameras", "train.fixbase_epoch": 2}, "from the first step on"),
        ({"model.name": "osnet_child", "nas.alpha_data": "held_out"}, "is a search's, and model.name names a child"),
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
    [
        ("train: [", "not valid YAML"),
        ("- 1\n", "must hold groups of settings, not a list"),
        ("null\n", "must hold groups of settings, not one value"),
        ("train:\n  max_epoch: 3\n  lr: x\n", r"train.lr = 'x': must be a number \(.*bad.yaml, line 3\)"),
        ("train:\n  lr:\n", r"train.lr has no value \(.*bad.yaml, line 2\)"),
        ("train:\n  lr: ~\n", "train.lr has no value"),
        ("train: 3\n", "unknown key 'train'"),
        ("data:\n  norm_mean: [.inf, 0.5, 0.5]\n", "must be finite"),
    ],
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
    text = "\n".join(
        p.read_text()
        for p in sources
        if p.name not in ("config_keys.py", "default_config.py") and "tests" not in p.parts and ".venv" not in p.parts
    )
    code = _code_only(text)
    # "train = cfg.train" followed by "train.lr" reads train.lr; so does "cfg.train.lr"
    unread = [
        name for name in KEYS if not name.startswith("synthetic.") and not re.search(rf"\b{re.escape(name)}\b", code)
    ]
    assert not unread
    assert re.search(r"\bcfg\.synthetic\b", code)


def _code_only(code: str) -> str:
    """Takes out strings and comments, where a key is only mentioned."""
    code = re.sub(r'"""(?:.|\n)*?"""', "", code)
    code = re.sub(r'f?"[^"\n]*"', "", code)
    return re.sub(r"#.*", "", code)


@pytest.mark.parametrize(
    "file", ["child.yaml", *sorted(f"configs/{p.name}" for p in (ROOT / "configs").glob("*.yaml"))]
)
def test_the_classifier_learns_alone_at_first_only_on_weights_that_were_loaded(file):
    """On a body of random weights it would learn nothing of use; the published recipe's ten epochs can be asked for."""

    def num_epochs(**changed):
        settings = {key.replace("__", "."): value for key, value in changed.items()}
        return load_config([ROOT / file], settings).train.fixbase_epoch

    assert num_epochs() == 0
    assert num_epochs(model__load_weights="imagenet.pth") == 10
    assert num_epochs(model__load_weights="imagenet.pth", train__max_epoch=5) == 2
    assert num_epochs(train__fixbase_epoch=10) == 10
    assert num_epochs(train__fixbase_epoch=3, model__load_weights="imagenet.pth") == 3


@pytest.mark.parametrize(
    ("name", "genotype", "stem_norm", "width"),
    [
        ("osnet_x1_0", "osnet", "batch", 1.0),
        ("osnet_x0_75", "osnet", "batch", 0.75),
        ("osnet_x0_5", "osnet", "batch", 0.5),
        ("osnet_x0_25", "osnet", "batch", 0.25),
        ("osnet_ibn_x1_0", "osnet_ibn", "instance", 1.0),
        ("osnet_ain_x1_0", "osnet_ain", "instance", 1.0),
        ("osnet_ain_x0_75", "osnet_ain", "instance", 0.75),
        ("osnet_ain_x0_5", "osnet_ain", "instance", 0.5),
        ("osnet_ain_x0_25", "osnet_ain", "instance", 0.25),
    ],
)
def test_torchreids_names_mean_genotype_and_width(name, genotype, stem_norm, width):
    for given_settings in (
        {"model.name": name},
        {"model.name": "osnet_child", "model.genotype": name},
        {"model.name": name, "model.genotype": genotype, "model.width": width, "model.stem_norm": stem_norm},
    ):
        model = load_config([], given_settings).model
        assert (model.name, model.genotype) == ("osnet_child", genotype)
        assert (model.stem_norm, model.width) == (stem_norm, width)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model.width": 0.5}, "model.name osnet_x0_25 means model.width 0.25, but model.width is set to 0.5"),
        ({"model.width": 1.0}, "model.width is set to 1.0"),
        ({"model.genotype": "osnet_ain"}, "means model.genotype osnet, but model.genotype is set to osnet_ain"),
        ({"model.genotype": "osnet_x0_5"}, "means model.width 0.25, but model.width is set to 0.5"),
        ({"model.stem_norm": "instance"}, "model.genotype osnet means model.stem_norm batch, but"),
        ({"model.name": "osnet_nas", "model.genotype": "osnet_x0_25"}, "set model.name osnet_child"),
    ],
)
def test_settings_at_odds_with_a_name_are_refused(settings, told):
    with pytest.raises(UserError) as caught:
        load_config([], {"model.name": "osnet_x0_25", **settings})
    assert told in str(caught.value)


# The settings in which Torchreid's files for its OSNets differ from each other
# (configs/im_osnet_*.yaml): network, epochs, batch size, learning rate, decay, transforms, targets, distance
FLIP, COLOUR, M, D = "random_flip", "color_jitter", "market1501", "dukemtmcreid"
TORCHREID_OSNETS = [
    ("osnet_ain_x1_0", 100, 64, 0.0015, None, [FLIP, COLOUR], [M, D], "cosine"),
    ("osnet_ibn_x1_0", 150, 64, 0.0015, [60], [FLIP, COLOUR], [D], "euclidean"),
    ("osnet_x0_25", 180, 128, 0.003, [80], [FLIP], [M], "euclidean"),
    ("osnet_x0_5", 180, 128, 0.003, [80], [FLIP], [M], "euclidean"),
    ("osnet_x0_75", 150, 64, 0.0015, [60], [FLIP], [M], "euclidean"),
    ("osnet_x1_0", 150, 64, 0.0015, [60], [FLIP], [M], "euclidean"),
    ("osnet_x1_0", 250, 64, 0.0015, None, [FLIP], [M], "euclidean"),
]


@pytest.mark.parametrize("recipe", TORCHREID_OSNETS, ids=lambda recipe: f"{recipe[0]}-{recipe[1]}")
def test_torchreids_own_files_for_its_osnets_load_unchanged(tmp_path, recipe):
    name, max_epoch, batch_size, lr, stepsize, transforms, targets, metric = recipe
    decay = {"lr_scheduler": "single_step", "stepsize": stepsize} if stepsize else {"lr_scheduler": "cosine"}
    settings = {
        "model": {"name": name, "pretrained": True},
        "data": {"type": "image", "sources": ["market1501"], "targets": targets, "height": 256, "width": 128,
                 "combineall": False, "transforms": transforms, "save_dir": f"log/{name}"},
        "loss": {"name": "softmax", "softmax": {"label_smooth": True}},
        "train": {"optim": "amsgrad", "lr": lr, "max_epoch": max_epoch, "batch_size": batch_size, "fixbase_epoch": 10,
                  "open_layers": ["classifier"], **decay},
        "test": {"batch_size": 300, "dist_metric": metric, "normalize_feature": False, "evaluate": False,
                 "eval_freq": -1, "rerank": False},
    }  # fmt: skip
    path = tmp_path / "theirs.yaml"
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match=r"no weights are downloaded; give a file as model.load_weights"):
        load_config([path])
    from_weights = load_config([path], {"model.load_weights": "imagenet.pth"})
    from_scratch = load_config([path], {"model.pretrained": "False"})
    same = {key: v for key, v in flatten(settings).items() if key not in REFUSED and key != "model.name"}
    for cfg in (from_weights, from_scratch):
        assert cfg.model.name == "osnet_child"
        assert {**flatten(cfg), **same} == flatten(cfg)


def test_texts_stay_as_they_are_written(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data: {root: 2024_05, save_dir: 12:30}\nmodel: {name: osnet_child, genotype: 007}\n"
                    "train: {lr: 1e-3, max_epoch: 007, amp: off}\n")  # fmt: skip
    cfg = load_config([path], {"model.resume": "2024-13-45", "data.targets": "0x_,1_0"})
    assert (cfg.data.root, cfg.data.save_dir, cfg.model.genotype) == ("2024_05", "12:30", "007")
    assert (cfg.train.lr, cfg.train.max_epoch, cfg.train.amp) == (0.001, 7, "off")
    assert (cfg.model.resume, cfg.data.targets) == ("2024-13-45", ["0x_", "1_0"])


@pytest.mark.parametrize("word", ["True", "true", "TRUE", "yes", "on", "False", "false", "no", "off"])
def test_truth_values_have_yamls_words(tmp_path, word):
    path = tmp_path / "c.yaml"
    path.write_text(f"data:\n  combineall: {word}\n")
    assert load_config([path]).data.combineall is (word.lower() in ("true", "yes", "on"))


def test_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.yaml").write_text("data: {root: ~/data}\n")
    (tmp_path / "own.yaml").write_text("base: ~/base.yaml\nmodel: {load_weights: ~/x.pt}\n")
    cfg = load_config(["~/own.yaml"], {"data.save_dir": "~/log", "model.resume": "a~b", "nas.design.recipe": "~"})
    assert (cfg.data.root, cfg.data.save_dir) == (str(tmp_path / "data"), str(tmp_path / "log"))
    assert (cfg.model.load_weights, cfg.model.resume) == (str(tmp_path / "x.pt"), "a~b")
    assert cfg.nas.design.recipe == str(tmp_path)


def test_a_group_without_keys_is_empty(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("train:\n  # lr: 0.1\nloss:\n  softmax:\ndata: {}\ntest: {rerank: True}\n")
    assert flatten(load_config([path])) == {**flatten(load_config()), "test.rerank": True}


@given(given_settings=st.fixed_dictionaries({}, optional={
    "data.root": st.text(min_size=1), "model.resume": st.text(), "data.targets": st.lists(st.text()),
    "train.lr": st.floats(1e-12, 1e12), "train.seed": st.integers(0, 2**63 - 1), "test.flip": st.booleans(),
    "data.norm_mean": st.lists(st.floats(-10, 10), min_size=3, max_size=3),
}))  # fmt: skip
def test_what_a_run_writes_as_its_config_reads_back_the_same(tmp_path_factory, given_settings):
    try:
        cfg = load_config([], given_settings)
    except UserError:
        return
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    path.write_text(cfg.dump(), encoding="utf-8")
    assert flatten(load_config([path])) == flatten(cfg)


def test_continuing_under_other_settings_is_refused_with_the_difference():
    saved = flatten(load_config([], {"train.lr": 0.5}))
    check_same_run(saved, load_config([], {"train.lr": 0.5, "data.workers": 0}), "last.pt")
    with pytest.raises(UserError, match=r"train.lr: 0.5 then, 0.25 now"):
        check_same_run(saved, load_config([], {"train.lr": 0.25}), "last.pt")


def test_defaults_pass_their_own_checks():
    defaults = flatten(default_config())
    assert set(defaults) == set(KEYS)
    load_config([], defaults)
