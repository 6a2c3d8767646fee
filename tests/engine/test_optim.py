"""Optimisers: groups, schedules against their closed forms, and which layers learn."""

import copy
import math

import pytest
import torch
from torch import nn

from default_config import load_config
from engine.optim import build_optimizers, build_scheduler, continue_schedule, group_parameters
from engine.parameters import freeze_all_but, unfreeze
from utils.errors import UserError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.classifier = nn.Linear(4, 3)
        self.alphas = nn.Parameter(torch.ones(2, 2))

    def forward(self, x):
        return self.classifier(self.body(x)) * self.alphas.sum()


def rates(settings, epochs):
    """The learning rate of every epoch, of the last group."""
    cfg = load_config(overrides={"train.lr": 0.1, "train.optim": "sgd", **settings})
    optimizer = build_optimizers(cfg, Net())["weights"]
    scheduler = build_scheduler(cfg, optimizer)
    values = []
    for _ in range(epochs):
        values.append(optimizer.param_groups[-1]["lr"])
        optimizer.step()
        scheduler.step()
    return values


def test_single_step_is_its_closed_form():
    values = rates({"train.lr_scheduler": "single_step", "train.stepsize": [3], "train.gamma": 0.5}, 10)
    assert values == pytest.approx([0.1 * 0.5 ** (epoch // 3) for epoch in range(10)])


def test_multi_step_is_its_closed_form():
    values = rates({"train.lr_scheduler": "multi_step", "train.stepsize": [2, 5], "train.gamma": 0.1}, 8)
    assert values == pytest.approx([0.1 * 0.1 ** ((epoch >= 2) + (epoch >= 5)) for epoch in range(8)])


def test_cosine_is_its_closed_form():
    values = rates({"train.lr_scheduler": "cosine", "train.max_epoch": 12}, 12)
    assert values == pytest.approx([0.05 * (1 + math.cos(math.pi * epoch / 12)) for epoch in range(12)])


@pytest.mark.parametrize("schedule", ["single_step", "multi_step", "cosine"])
def test_a_schedule_goes_on_where_it_was(schedule):
    settings = {"train.lr_scheduler": schedule, "train.stepsize": [3], "train.max_epoch": 8}
    assert continue_rates(settings, {}, 4, 4) == rates(settings, 8)[4:]


def test_a_longer_cosine_goes_on_at_its_own_rates(caplog):
    settings = {"train.lr_scheduler": "cosine", "train.max_epoch": 4}
    found = continue_rates(settings, {"train.max_epoch": 8}, 4, 4)
    assert found == pytest.approx(rates({**settings, "train.max_epoch": 8}, 8)[4:])
    assert "the learning rate goes on at 0.05, as in a run of 8 epochs" in caplog.text


def continue_rates(settings, changes, num_before, num_after):
    """The rates of the epochs after a change of settings between two starts of a run."""

    def start(more):
        words = {"train.lr": 0.1, "train.optim": "sgd", **settings, **more}
        cfg = load_config(overrides=words)
        optimizer = build_optimizers(cfg, Net())["weights"]
        return optimizer, build_scheduler(cfg, optimizer)

    def run(optimizer, scheduler, count):
        values = []
        for _ in range(count):
            values.append(optimizer.param_groups[-1]["lr"])
            optimizer.step()
            scheduler.step()
        return values

    first, second = start({}), start(changes)
    run(*first, num_before)
    second[0].load_state_dict(first[0].state_dict())
    saved = {**first[1].state_dict(), "gamma": 7.0}  # settings are this run's own
    continue_schedule(second[1], saved)
    return run(*second, num_after)


def test_groups_hold_every_parameter_once():
    net = Net()
    base, new = group_parameters(net.named_parameters(), 0.2, ["classifier", "alphas"], 0.1)
    assert (base["lr"], new["lr"]) == (pytest.approx(0.02), 0.2)
    assert {id(p) for p in new["params"]} == {id(net.alphas), id(net.classifier.weight), id(net.classifier.bias)}
    everything = [id(p) for group in (base, new) for p in group["params"]]
    assert sorted(everything) == sorted(id(p) for p in net.parameters())
    assert len(group_parameters(net.named_parameters(), 0.2)) == 1
    assert len(group_parameters(net.named_parameters(), 0.2, ["body", "classifier", "alphas"])) == 1


def test_staged_rates_both_follow_the_schedule():
    cfg = load_config(overrides={"train.staged_lr": True, "train.base_lr_mult": 0.5, "train.lr_scheduler": "cosine",
                                 "train.max_epoch": 2, "train.lr": 0.1})  # fmt: skip
    optimizer = build_optimizers(cfg, Net())["weights"]
    scheduler = build_scheduler(cfg, optimizer)
    optimizer.step()
    scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.025, 0.05])


def test_alphas_that_held_out_images_teach_have_an_optimiser_of_their_own():
    settings = {
        "nas.held_out": "cameras",
        "nas.alpha_data": "held_out",
        "nas.alpha_lr": 0.02,
        "train.weight_decay": 0.1,
    }
    net = Net()
    optimizers = build_optimizers(load_config(overrides=settings), net)
    assert list(optimizers) == ["weights", "alphas"]
    (group,) = optimizers["alphas"].param_groups
    assert group["params"] == [net.alphas]
    assert (group["lr"], group["weight_decay"]) == (0.02, 0)
    assert all(p is not net.alphas for g in optimizers["weights"].param_groups for p in g["params"])


@pytest.mark.parametrize(
    ("name", "kind", "amsgrad"),
    [("adam", "Adam", False), ("amsgrad", "Adam", True), ("sgd", "SGD", None), ("rmsprop", "RMSprop", None),
     ("radam", "RAdam", None)],
)  # fmt: skip
def test_optimisers_take_their_settings(name, kind, amsgrad):
    words = {"train.optim": name, "train.weight_decay": 0.01, "sgd.momentum": 0.8, "sgd.nesterov": True,
             "rmsprop.alpha": 0.9, "adam.beta1": 0.7, "adam.beta2": 0.8}  # fmt: skip
    group = (optimizer := build_optimizers(load_config(overrides=words), Net())["weights"]).param_groups[0]
    assert type(optimizer).__name__ == kind
    assert group["weight_decay"] == 0.01
    expected = {"SGD": {"momentum": 0.8, "nesterov": True}, "RMSprop": {"momentum": 0.8, "alpha": 0.9}}
    for key, value in expected.get(kind, {"betas": (0.7, 0.8)}).items():
        assert group[key] == value
    assert amsgrad is None or group["amsgrad"] is amsgrad


@pytest.mark.parametrize("name", ["adam", "amsgrad"])
def test_steps_in_one_pass_are_those_of_the_plain_optimiser(name):
    """The parameters of all layers change in one call, which rounds otherwise but computes the same."""
    words = {"train.optim": name, "train.lr": 0.001, "train.weight_decay": 0.01}
    net = Net().double()
    plain = copy.deepcopy(net)
    quick = build_optimizers(load_config(overrides=words), net)["weights"]
    keys = {k: v for k, v in quick.param_groups[0].items() if k not in ("params", "fused", "foreach")}
    slow = type(quick)(plain.parameters(), **keys, foreach=False)
    assert quick.param_groups[0]["fused"]
    for _ in range(5):
        images = torch.randn(8, 4, dtype=torch.float64)
        for model, optimizer in ((net, quick), (plain, slow)):
            optimizer.zero_grad()
            model(images).square().sum().backward()
            optimizer.step()
    for own, expected in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-12)


def test_only_open_layers_learn_and_the_others_keep_their_statistics():
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1, weight_decay=0.1)
    freeze_all_but(net, ["classifier"])
    before = {name: t.clone() for name, t in net.state_dict().items()}
    net(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()
    moved = {name for name, t in net.state_dict().items() if not torch.equal(t, before[name])}
    assert moved == {"classifier.weight", "classifier.bias"}
    assert net.training
    unfreeze(net)
    net(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(t, before[name]) for name, t in net.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"train.staged_lr": True, "train.new_layers": ["clasifier"]}, "did you mean 'classifier'"),
        ({"train.fixbase_epoch": 1, "train.open_layers": ["heads"]}, "no layer 'heads'"),
    ],
)
def test_unknown_layers_are_told(settings, told):
    with pytest.raises(UserError, match=told):
        build_optimizers(load_config(overrides=settings), Net())


def test_wrong_steps_are_told():
    optimizer = torch.optim.SGD(Net().parameters(), lr=0.1)
    with pytest.raises(UserError, match="takes one number"):
        build_scheduler(load_config(overrides={"train.stepsize": [1, 2]}), optimizer)
    with pytest.raises(UserError, match="rising epochs"):
        cfg = load_config(overrides={"train.stepsize": [2, 2], "train.lr_scheduler": "multi_step"})
        build_scheduler(cfg, optimizer)
