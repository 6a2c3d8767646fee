"""The settings that a file of weights stands for, and those that were asked for beside them."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from genotype import CANDIDATE_NAMES, Genotype
from network_settings import LARGEST_SIDE, find_settings, settings_at_odds, settings_of
from osnet_child import build_child
from osnet_nas import build_supernet
from trained_child import load_trained_child
from utils.checkpoint import save_checkpoint
from utils.errors import UserError
from utils.network_file import NetworkFile, read_network_file
from utils.torchreid_weights import export_torchreid_weights

OWN = Genotype.from_blocks([CANDIDATE_NAMES[i] for i in (3, 0, 2, 0, 0, 1)])
CONFIG = {"data.height": 96, "data.width": 48, "data.norm_mean": [0.4, 0.5, 0.6], "data.norm_std": [0.2, 0.25, 0.3]}
IDENTITY = {"name": "osnet_child", "width": 0.25, "stem_norm": "batch", "genotype": list(OWN.blocks), "num_classes": 5}
NETWORK = {"model.name": "osnet_child", "model.width": 0.25, "model.stem_norm": "batch", "model.genotype": OWN}


@pytest.fixture(scope="module")
def state():
    return build_child(5, OWN, 0.25, "batch").state_dict()


def write(path: Path, **content: object) -> Path:
    save_checkpoint(path / "best.pt", content)
    return path / "best.pt"


def find(path: Path) -> dict[str, object]:
    return find_settings(read_network_file(path))


def find_in(**content: Any) -> dict[str, object]:
    """Returns what a checkpoint of this content stands for."""
    return find_settings(NetworkFile("best.pt", content["model"], content))


def test_a_checkpoint_of_ours_says_all(tmp_path, state):
    config = {**CONFIG, "train.lr": 0.1}
    assert find(write(tmp_path, identity=IDENTITY, config=config, model=state)) == {**NETWORK, **CONFIG}
    assert find_in(model=state) == NETWORK
    assert find_in(identity=IDENTITY, model=state) == NETWORK
    assert settings_of(IDENTITY) == NETWORK


def test_a_super_network(tmp_path):
    model = build_supernet(3, 0.5)
    expected = {"model.name": "osnet_nas", "model.width": 0.5}
    whole = {**expected, "nas.candidates": "separate", **CONFIG}
    identity = {"name": "osnet_nas", "width": 0.5, "num_classes": 3}
    assert find(write(tmp_path, identity=identity, config=CONFIG, model=model.state_dict())) == whole
    torch.save(export_torchreid_weights(model), tmp_path / "theirs.pth")
    assert find(tmp_path / "theirs.pth") == expected


@pytest.mark.parametrize(
    ("name", "stem_norm"), [("osnet", "batch"), ("osnet_ibn", "instance"), ("osnet_ain", "instance")]
)
def test_torchreids_weights_say_their_network(tmp_path, name, stem_norm):
    genotype = Genotype.named(name)
    torch.save({"state_dict": export_torchreid_weights(build_child(4, genotype, 0.5, stem_norm))}, tmp_path / "t.pth")
    assert find(tmp_path / "t.pth") == {
        "model.name": "osnet_child",
        "model.width": 0.5,
        "model.stem_norm": stem_norm,
        "model.genotype": genotype,
    }


def test_weights_of_nothing_known(tmp_path):
    torch.save({"conv1.weight": torch.ones(3)}, tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"resnet\.pth: not the weights of one of Torchreid's OSNets"):
        find(tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"best\.pt: not the weights"):
        find(write(tmp_path, model={"conv1.weight": torch.ones(3)}))


def test_weights_that_are_not_whole_have_their_identitys_settings(tmp_path, state):
    part = {name: tensor for name, tensor in state.items() if not name.startswith("conv4")}
    assert find(write(tmp_path, identity=IDENTITY, model=part)) == NETWORK
    with pytest.raises(UserError, match=r"missing: conv4\.0\.reduce\.conv\.weight"):
        load_trained_child(tmp_path / "best.pt")


SPOILT: dict[str, list[object]] = {
    "data.height": [None, "256", 256.0, True, 0, 31, LARGEST_SIDE + 1, 10**6, [256]],
    "data.width": [None, "128", 15, 10**12],
    "data.norm_mean": [None, 0.5, "abc", [0.5] * 2, [0.5] * 4, ["a"] * 3, [math.nan, 0.5, 0.5], [1e300] * 3],
    "data.norm_std": [[0.2, 0.0, 0.2], [0.2, -0.2, 0.2], [0.2] * 2, [math.inf] * 3, [1e-300] * 3, {}],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in SPOILT.items() for value in values])
def test_damaged_input_settings_are_one_line(state, key, value):
    with pytest.raises(UserError, match=rf"best\.pt is damaged: its {key} is .*, expected are") as caught:
        find_in(config={**CONFIG, key: value}, model=state)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [None, [], "text", 3])
def test_a_config_that_is_none(state, config):
    with pytest.raises(UserError, match=r"its config is a \w+, not named settings"):
        find_in(config=config, model=state)


def test_a_damaged_checkpoint_gives_no_child(tmp_path, state):
    with pytest.raises(UserError, match="its config is a list"):
        load_trained_child(write(tmp_path, config=[], model=state))


@pytest.mark.parametrize(
    "identity",
    [
        None,
        [],
        "osnet_child",
        {"name": "osnet_child"},
        {**IDENTITY, "name": "resnet"},
        {**IDENTITY, "name": ["osnet_child"]},
        {**IDENTITY, "width": 0.3},
        {**IDENTITY, "width": None},
        {**IDENTITY, "width": [0.25]},
        {**IDENTITY, "stem_norm": "layer"},
        {**IDENTITY, "genotype": ["OSBlock"] * 5},
        {**IDENTITY, "genotype": ["OSBlok"] * 6},
        {**IDENTITY, "genotype": [["OSBlock"]] * 6},
        {**IDENTITY, "genotype": 3},
        {key: value for key, value in IDENTITY.items() if key != "genotype"},
        {**IDENTITY, "num_classes": 6},
        {**IDENTITY, "num_classes": "five"},
    ],
)
def test_damaged_identity_is_one_line(state, identity):
    with pytest.raises(UserError, match=r"best\.pt is damaged: its identity is not that of its network") as caught:
        find_in(identity=identity, model=state)
    assert "\n" not in str(caught.value)


def test_a_classifier_that_the_identity_has_must_be_there(state):
    body = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
    with pytest.raises(UserError, match="num_classes is 5, there is no classifier"):
        find_in(identity=IDENTITY, model=body)
    assert find_in(identity={**IDENTITY, "num_classes": None}, model=body) == NETWORK


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"width": 0.5}, "it says model.width 0.5, its weights are of 0.25"),
        ({"stem_norm": "instance"}, "it says model.stem_norm instance, its weights are of batch"),
        ({"genotype": ["OSBlock"] * 6}, "it says model.genotype osnet, its weights are of 302001"),
        ({"name": "osnet_nas"}, "its identity is not that of its network"),
    ],
)
def test_identity_at_odds_with_the_weights(state, change, told):
    with pytest.raises(UserError, match="is damaged") as caught:
        find_in(identity={**IDENTITY, **change}, model=state)
    assert told in str(caught.value)


# ---- settings asked for


def test_what_agrees_or_is_not_known_is_nothing():
    found = {**NETWORK, **CONFIG}
    assert settings_at_odds({}, found, "best.pt") == ""
    assert settings_at_odds({**found, "test.flip": True, "data.norm_mean": (0.4, 0.5, 0.6)}, found, "best.pt") == ""
    assert settings_at_odds({"data.height": 3}, NETWORK, "theirs.pth") == ""


def test_all_that_differs_and_what_fits_stands_in_one_line():
    ain = {"model.genotype": Genotype.named("osnet_ain"), "model.width": 0.5, "data.height": 256}
    assert settings_at_odds(ain, {**NETWORK, **CONFIG}, "best.pt") == (
        "best.pt is of model.genotype 302001 and not osnet_ain, model.width 0.25 and not 0.5, data.height 96 and not "
        "256; set: model.genotype 302001 model.width 0.25 model.stem_norm batch data.height 96"
    )
    osnet = {**NETWORK, "model.genotype": Genotype.named("osnet")}
    told = "t.pth is of model.genotype osnet and not osnet_ain, model.width 0.25 and not 0.5; "
    assert settings_at_odds(ain, osnet, "t.pth") == f"{told}set: model.genotype osnet model.width 0.25"
    assert settings_at_odds({"data.norm_std": [1.0, 1.0, 1.0]}, {**NETWORK, **CONFIG}, "best.pt") == (
        'best.pt is of data.norm_std [0.2, 0.25, 0.3] and not [1.0, 1.0, 1.0]; set: data.norm_std "[0.2, 0.25, 0.3]"'
    )


def test_a_published_genotype_with_another_stem_has_no_name():
    osnet = {**NETWORK, "model.genotype": Genotype.named("osnet"), "model.stem_norm": "instance"}
    told = settings_at_odds({"model.width": 1.0}, osnet, "best.pt")
    assert told.endswith("set: model.genotype 000000 model.width 0.25 model.stem_norm instance")


def test_a_super_network_given_to_a_child_is_called_that():
    supernet = {"model.name": "osnet_nas", "model.width": 0.25}
    told = settings_at_odds({"model.name": "osnet_child"}, supernet, "best.pt")
    assert told.startswith("best.pt holds a super-network, as a search leaves it, and the network asked for is a child")
    told = settings_at_odds({"model.name": "osnet_nas"}, NETWORK, "best.pt")
    assert told == "best.pt holds a child, and the network asked for is a super-network; set model.name osnet_child"
