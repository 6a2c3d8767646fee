"""From settings to trainers: what the devices rule out, and what mixed precision wraps."""

from types import SimpleNamespace

import pytest
import torch

from build import build_network, build_scorer, build_step, build_trainer, load_weights
from default_config import load_config
from engine.interrupt import StopRequest
from engine.mixed_precision import MixedPrecision
from tests.same import assert_same
from utils.checkpoint import save_checkpoint
from utils.distributed import Runtime
from utils.errors import UserError
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
    return build_trainer(
        cfg, runtime, data, network, step, build_scorer(cfg, runtime, data, network), StopRequest(None)
    )


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
        load_weights(make_network(model__genotype="osnet_ain"), str(tmp_path / "osnet.pth"))
    with pytest.raises(UserError, match=told):
        load_weights(make_network(model__genotype="osnet", model__width=1.0), str(tmp_path / "osnet.pth"))
    network = make_network(model__genotype="osnet")
    load_weights(network, str(tmp_path / "osnet.pth"))
    assert_same(dict(network.model.state_dict()), dict(theirs.state_dict()))


def test_weights_of_a_super_network_given_to_a_child(tmp_path):
    search = make_network(model__name="osnet_nas")
    save_checkpoint(tmp_path / "best.pt", {"identity": search.identity, "model": search.model.state_dict()})
    with pytest.raises(UserError, match="holds a super-network, as a search leaves it"):
        load_weights(make_network(), str(tmp_path / "best.pt"))


def test_weights_that_are_not_whole(tmp_path):
    network = make_network()
    state = network.model.state_dict()
    del state["conv3.1.expand.weight"], state["classifier.bias"]
    save_checkpoint(tmp_path / "best.pt", {"identity": network.identity, "model": state})
    with pytest.raises(UserError, match=r"2 missing: conv3\.1\.expand\.weight, classifier\.bias"):
        load_weights(network, str(tmp_path / "best.pt"))


def test_classifier_of_the_same_identities_must_be_there(tmp_path):
    """A checkpoint that says it has one."""
    network = make_network()
    state = {name: t for name, t in network.model.state_dict().items() if not name.startswith("classifier.")}
    save_checkpoint(tmp_path / "best.pt", {"identity": network.identity, "model": state})
    for num_classes in (4, 9):
        with pytest.raises(UserError, match="num_classes is 4, there is no classifier"):
            load_weights(make_network(num_classes), str(tmp_path / "best.pt"))
