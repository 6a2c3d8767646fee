"""From settings to trainers: what the devices rule out, and what mixed precision wraps."""

from types import SimpleNamespace

import pytest
import torch

from build import build_evaluated, build_network, build_scorer, build_step, build_trainer, load_weights
from default_config import flatten, list_explicit, load_config
from engine.interrupt import StopRequest
from engine.mixed_precision import MixedPrecision
from tests.same import assert_same
from utils.checkpoint import save_checkpoint
from utils.distributed import Runtime
from utils.errors import UserError
from utils.network_file import read_network_file
from utils.torchreid_weights import export_torchreid_weights

CPU = torch.device("cpu")


def make_trainer(runtime, **settings):
    names = {name.replace("__", "."): value for name, value in settings.items()}
    cfg = load_config([], {"model.name": "osnet_child", "model.width": 0.25, **names})
    data = SimpleNamespace(
        train=SimpleNamespace(samples=[]),
        preparer=None,
        targets={},
        held_out=None,
        taught=None,
        hash_training_images=lambda: "",
    )
    network = build_network(cfg, 4)
    step = build_step(cfg, runtime, data, network)
    scorer = build_scorer(cfg, runtime, data, network)
    return build_trainer(cfg, runtime, data, network, step, scorer, StopRequest(None), {})


def test_compiling_under_data_parallel_is_refused():
    with pytest.raises(UserError, match=r"train.compile True does nothing under DataParallel \(2 GPUs\).*torchrun"):
        make_trainer(Runtime(CPU, replicas=2), train__compile=True)


def test_mixed_precision_is_inside_of_what_data_parallel_copies():
    trainer = make_trainer(Runtime(CPU, replicas=2), train__amp="bf16")
    wrapped = trainer.step.wrap()
    assert isinstance(wrapped, torch.nn.DataParallel)
    assert isinstance(wrapped.module, MixedPrecision)
    assert wrapped.module.network is trainer.step.model
    assert make_trainer(Runtime(CPU)).step.wrap().__class__.__name__ == "ChildNet"


def make_network(num_classes=4, **settings):
    names = {name.replace("__", "."): value for name, value in settings.items()}
    cfg = load_config([], {"model.name": "osnet_child", "model.width": 0.25, **names})
    return build_network(cfg, num_classes)


def test_weights_of_torchreid_with_other_settings_say_those_that_fit(tmp_path):
    theirs = make_network(model__genotype="osnet").model
    torch.save(export_torchreid_weights(theirs), tmp_path / "osnet.pth")
    told = r"set: model\.genotype osnet model\.width 0\.25$"
    with pytest.raises(UserError, match=told):
        load_weights(make_network(model__genotype="osnet_ain"), read_network_file(tmp_path / "osnet.pth"))
    with pytest.raises(UserError, match=told):
        load_weights(make_network(model__genotype="osnet", model__width=1.0), read_network_file(tmp_path / "osnet.pth"))
    network = make_network(model__genotype="osnet")
    load_weights(network, read_network_file(tmp_path / "osnet.pth"))
    assert_same(dict(network.model.state_dict()), dict(theirs.state_dict()))


def test_weights_of_a_super_network_given_to_a_child(tmp_path):
    search = make_network(model__name="osnet_nas")
    save_checkpoint(tmp_path / "best.pt", {"identity": search.identity, "model": search.model.state_dict()})
    with pytest.raises(UserError, match="holds a super-network, as a search leaves it"):
        load_weights(make_network(), read_network_file(tmp_path / "best.pt"))


def test_weights_that_are_not_whole(tmp_path):
    network = make_network()
    state = network.model.state_dict()
    del state["conv3.1.expand.weight"], state["classifier.bias"]
    save_checkpoint(tmp_path / "best.pt", {"identity": network.identity, "model": state})
    with pytest.raises(UserError, match=r"2 missing: conv3\.1\.expand\.weight, classifier\.bias"):
        load_weights(network, read_network_file(tmp_path / "best.pt"))


def test_classifier_of_the_same_identities_must_be_there(tmp_path):
    """A checkpoint that says it has one."""
    network = make_network()
    state = {name: t for name, t in network.model.state_dict().items() if not name.startswith("classifier.")}
    save_checkpoint(tmp_path / "best.pt", {"identity": network.identity, "model": state})
    for num_classes in (4, 9):
        with pytest.raises(UserError, match="num_classes is 4, there is no classifier"):
            load_weights(make_network(num_classes), read_network_file(tmp_path / "best.pt"))


@pytest.fixture
def trained_file(tmp_path):
    """A checkpoint of an IBN that was trained on images of another size and normalisation than the default."""
    overrides = {"model.name": "osnet_ibn_x0_5", "data.height": 64, "data.width": 32, "data.norm_mean": [0.5, 0.5, 0.5]}
    cfg = load_config([], overrides)
    network = build_network(cfg, 4)
    document = {"identity": network.identity, "config": flatten(cfg), "model": network.model.state_dict()}
    save_checkpoint(tmp_path / "best.pt", document)
    return read_network_file(tmp_path / "best.pt")


def evaluate(file, **overrides):
    words = {name.replace("__", "."): value for name, value in overrides.items()} | {"model.name": "osnet_child"}
    return build_evaluated(load_config([], words), file, list_explicit(words))


def test_what_is_evaluated_is_what_was_trained(trained_file):
    cfg, (line,) = evaluate(trained_file, test__rerank=True)
    model, data = cfg.model, cfg.data
    assert (model.genotype, model.width, model.stem_norm) == ("osnet_ibn", 0.5, "instance")
    assert (data.height, data.width, data.norm_mean) == (64, 32, [0.5, 0.5, 0.5])
    assert cfg.test.rerank
    assert cfg.is_frozen()
    assert line.startswith(f"as {trained_file.path} was trained: ")
    for told in ("model.genotype osnet_ibn", "model.width 0.5", "data.height 64", "data.norm_mean [0.5, 0.5, 0.5]"):
        assert told in line
    assert "data.norm_std" not in line
    load_weights(build_network(cfg, 4), trained_file)


def test_a_genotype_without_a_name_is_evaluated_too(tmp_path):
    network = make_network(model__genotype="012301", model__stem_norm="batch")
    save_checkpoint(tmp_path / "best.pt", {"identity": network.identity, "model": network.model.state_dict()})
    cfg, _ = evaluate(read_network_file(tmp_path / "best.pt"))
    assert (cfg.model.genotype, cfg.model.stem_norm) == ("012301", "batch")
    assert cfg.data.height == 256  # the file does not know


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"data__height": 128}, "is of data.height 64 and not 128; set: data.height 64"),
        (
            {"model__genotype": "osnet_x0_5"},
            "is of model.stem_norm instance and not batch, model.genotype osnet_ibn and",
        ),
        (
            {"model__width": 1.0, "data__norm_mean": "0.4,0.5,0.5"},
            "set: model.genotype osnet_ibn model.width 0.5 data.n",
        ),
    ],
)
def test_what_the_command_line_says_must_agree(trained_file, overrides, told):
    with pytest.raises(UserError) as caught:
        evaluate(trained_file, **overrides)
    assert told in str(caught.value)


def test_what_the_command_line_repeats_agrees(trained_file):
    cfg, lines = evaluate(trained_file, model__genotype="osnet_ibn_x0_5", data__height=64, data__width=32)
    assert (cfg.model.width, lines[0].count("data.")) == (0.5, 1)  # the mean


def test_only_what_is_given_is_explicit():
    assert list_explicit({"train.lr": "0.1", "model.genotype": ""}) == {"train.lr"}
    implied = {"model.genotype", "model.width", "model.stem_norm"}
    assert list_explicit({"model.genotype": "osnet_x0_25"}) == implied
    assert list_explicit({"model.name": "osnet_x0_25"}) == {*implied, "model.name"}
