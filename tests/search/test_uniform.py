"""One-shot training: which paths are drawn, by whom, and what a step lets learn."""

import pytest
import torch
from torch.nn import functional as F

from build import build_network, build_step
from default_config import load_config
from engine.step import TrainStep
from engine.task import Stopwatch
from osnet_nas import build_supernet
from search.uniform import UniformSearch
from utils.distributed import Runtime

CPU = torch.device("cpu")


def make_task(runtime=None, scope="global", seed=3, supernet=None):
    return UniformSearch(
        supernet, num_blocks=6, num_candidates=4, repeats=1, seed=seed, runtime=runtime or Runtime(CPU),
        sample_scope=scope,
    )  # fmt: skip


def test_candidates_are_drawn_uniformly_and_apart():
    """χ² of each block over its candidates, and of two blocks over their pairs; p = 0.0001."""
    task = make_task()
    paths = torch.cat([task.draw() for _ in range(4000)])
    assert paths.shape == (4000, 6)
    for block in range(6):
        seen = torch.bincount(paths[:, block], minlength=4)
        assert ((seen - 1000) ** 2 / 1000).sum() < 21.1
        pairs = torch.bincount(4 * paths[:, block] + paths[:, block - 1], minlength=16)
        assert ((pairs - 250) ** 2 / 250).sum() < 44.3


def test_global_scope_gives_all_replicas_one_path():
    paths = make_task(Runtime(CPU, replicas=3)).draw()
    assert paths.shape == (3, 6)
    assert paths.dtype == torch.int64
    assert (paths == paths[0]).all()
    assert torch.equal(paths[0], make_task(Runtime(CPU, rank=2, world_size=4)).draw()[0])


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_paths_do_not_depend_on_how_replicas_are_spread(world_size):
    whole = make_task(Runtime(CPU, replicas=6), "replica")
    spread = [make_task(Runtime(CPU, rank, world_size, 6 // world_size), "replica") for rank in range(world_size)]
    for _ in range(3):
        paths = whole.draw()
        assert torch.equal(torch.cat([task.draw() for task in spread]), paths)
    assert len(paths.unique(dim=0)) > 1


def test_paths_continue_after_their_state_is_restored():
    task, other = make_task(), make_task(seed=99)
    task.draw()
    other.load_state_dict(task.state_dict())
    assert torch.equal(other.draw(), task.draw())


@pytest.mark.parametrize("candidates", ["separate", "shared"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_step_changes_what_its_path_uses_and_nothing_else(candidates, weight_decay):
    torch.manual_seed(0)
    model = build_supernet(3, 0.25, candidates=candidates, learns_alphas=False)
    task = make_task(supernet=model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=weight_decay)
    step = TrainStep(
        model=model, wrap=lambda: model, task=task, loss=F.cross_entropy, optimizers={"weights": optimizer},
        prepare=lambda batch: batch.images, runtime=Runtime(CPU),
    )  # fmt: skip
    step.open_layers(None)
    step.run(make_batch(), Stopwatch())  # with a check that gradients reach all that must learn
    path = make_task().draw()[0].tolist()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    used = {name for name in before if model.uses(name, path)}
    assert {name for name in before if task.must_learn(name)} == used
    assert moved <= used
    assert len(used - moved) < 10  # but for a small gate whose ReLU is off
    assert (model.alphas == 1).all()


def make_batch():
    class Batch:
        images = torch.randn(6, 3, 32, 16, generator=torch.Generator().manual_seed(0))
        pids = torch.arange(6) % 3

    return Batch


def test_replicas_with_other_paths_must_learn_what_any_uses():
    model = build_supernet(3, 0.25, learns_alphas=False)
    task = make_task(Runtime(CPU, replicas=2), "replica", supernet=model)
    task.draw()
    paths = make_task(Runtime(CPU, replicas=2), "replica").draw().tolist()
    for name, _ in model.named_parameters():
        assert task.must_learn(name) == any(model.uses(name, path) for path in paths)


def test_built_from_the_settings():
    settings = {"model.width": 0.25, "nas.method": "uniform", "nas.held_out": "cameras", "nas.candidates": "shared",
                "nas.mc_iter": 2, "nas.sample_scope": "replica", "train.optim": "sgd"}  # fmt: skip
    cfg = load_config([], settings)
    network = build_network(cfg, 4)
    assert network.identity["candidates"] == "shared"

    class Data:
        preparer = None

    step = build_step(cfg, Runtime(CPU), Data, network)
    assert isinstance(step.task, UniformSearch)
    assert (step.task.repeats, step.task.sample_scope, step.task.reaches_all) == (2, "replica", False)
    (group,) = step.optimizers["weights"].param_groups
    assert len(group["params"]) == len(list(network.model.parameters()))
    assert "alphas" not in dict(network.model.named_parameters())
