"""From settings to trainers: what the devices rule out, and what mixed precision wraps."""

from types import SimpleNamespace

import pytest
import torch

from build import build_network, build_scorer, build_step, build_trainer
from default_config import load_config
from engine.interrupt import StopRequest
from engine.mixed_precision import MixedPrecision
from utils.distributed import Runtime
from utils.errors import UserError

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
