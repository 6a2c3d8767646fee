"""What one process computes alone, or several share: a step's gradients, a ranking's scores. For test_torchrun.py.

Without torchrun's variables ``main`` does the whole; with them each process does its part, and rank 0 writes what came
of it. Everything is float64 where sums may be taken in another order.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from build import build_network, build_step
from build_search import build_gumbel_task
from default_config import load_config
from engine.evaluator import LabelledFeatures, ScoringRules, score_rankings
from engine.losses import build_loss
from engine.parameters import ARCHITECTURE, WEIGHTS
from engine.task import Stopwatch
from osnet_nas import SuperNet, build_supernet
from search.gumbel import GumbelSearch
from utils.distributed import Runtime, choose_runtime

BATCH, CLASSES = 12, 4


class TwoHeads(nn.Module):
    """Logits and features, as a network gives for the triplet loss."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.classifier = nn.Linear(6, 5), nn.Linear(5, CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images).tanh()
        return self.classifier(features), features


def take_share(runtime: Runtime, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Takes this process's part of a batch, as ``TrainLoader`` does."""
    return tuple(tensor.chunk(runtime.world_size)[runtime.rank] for tensor in tensors)


def fix_statistics(network: nn.Module) -> None:
    """Lets batch norms use their running statistics, so that an image's features do not depend on the others."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.eval()


def draw_batch(count: int = 8, height: int = 32, width: int = 16) -> tuple[Tensor, Tensor]:
    """Draws images (count, 3, height, width) with labels of all identities, the same in every process."""
    return torch.randn(count, 3, height, width, dtype=torch.float64), torch.arange(count) % CLASSES


def build_task(cfg: Any, runtime: Runtime, supernet: SuperNet) -> GumbelSearch:
    """Builds the task of the paper's search."""
    task = build_gumbel_task(cfg, runtime, supernet)
    assert isinstance(task, GumbelSearch)
    return task


def collect(runtime: Runtime, loss: Tensor, model: nn.Module) -> dict[str, Any]:
    """Returns the mean of the processes' losses, each of them, and the gradients after the backward pass."""
    loss.backward()
    losses = runtime.gather(float(loss))
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return {"loss": sum(losses) / len(losses), "losses": losses, "gradients": gradients}


def compute_triplet(runtime: Runtime, weight_x: str) -> dict[str, Any]:
    """Computes a step with the triplet loss; of two processes the first has images of one identity alone."""
    torch.manual_seed(3)
    model, images = TwoHeads().double(), torch.randn(BATCH, 6, dtype=torch.float64)
    labels = torch.tensor([0] * 6 + [1, 1, 2, 2, 0, 3])
    cfg = load_config(
        [], {"loss.name": "triplet", "loss.triplet.weight_x": float(weight_x), "loss.triplet.margin": 0.5}
    )
    network, loss = runtime.wrap(model), build_loss(cfg, runtime)
    images, labels = take_share(runtime, images, labels)
    return collect(runtime, loss(network(images), labels), model)


def compute_alphas(runtime: Runtime, scope: str) -> dict[str, Any]:
    """Computes a step of the search; batch norms use fixed statistics, so that an image does not see the others.

    One process alone with ``scope`` replica does what DataParallel does on two GPUs: each half of the batch passes
    through a sample of its own.
    """
    torch.manual_seed(3)
    cfg = load_config([], {"nas.sample_scope": scope, "train.seed": 5})
    supernet = build_supernet(CLASSES, width=0.25).double()
    with torch.no_grad():
        supernet.alphas.add_(torch.rand_like(supernet.alphas))
    fix_statistics(supernet)
    images, labels = draw_batch()
    loss = build_loss(cfg, runtime)
    if scope == "replica" and runtime.world_size == 1:
        weights = build_task(cfg, Runtime(runtime.device, replicas=2), supernet).draw()
        logits = torch.cat([supernet(half, w) for half, w in zip(images.chunk(2), weights.split(1), strict=True)])
        return collect(runtime, loss(logits, labels), supernet)
    task, network = build_task(cfg, runtime, supernet), runtime.wrap(supernet)
    images, labels = take_share(runtime, images, labels)
    return collect(runtime, loss(network(images, task.draw()), labels), supernet)


def compute_alternating(runtime: Runtime, last: str) -> dict[str, Any]:
    """Takes the run's own steps with the triplet loss where held-out images teach the alphas, up to one for ``last``.

    SGD, since Adam would make steps of a rate's size of gradients that are rounding alone.
    """
    torch.manual_seed(3)
    settings = {"loss.name": "triplet", "loss.triplet.margin": 5.0, "train.optim": "sgd", "train.batch_size": 8}
    held_out = {"nas.alpha_data": "held_out", "nas.held_out": "cameras", "data.targets": []}
    cfg = load_config([], {"model.width": 0.25, **settings, **held_out})
    network = build_network(cfg, CLASSES)
    network.model.double()
    data: Any = SimpleNamespace(preparer=lambda batch, device: batch.images)
    step = build_step(cfg, runtime, data, network)
    step.open_layers(None)
    fix_statistics(network.model)
    for learning in (WEIGHTS, ARCHITECTURE, WEIGHTS, ARCHITECTURE)[: 3 if last == WEIGHTS else 4]:
        images, labels = take_share(runtime, *draw_batch())
        loss = step.run(SimpleNamespace(images=images, pids=labels), Stopwatch(), learning).loss
    losses = runtime.gather(loss)
    gradients = {name: p.grad for name, p in network.model.named_parameters() if p.grad is not None}
    return {"loss": sum(losses) / len(losses), "losses": losses, "gradients": gradients}


def compute_parts(runtime: Runtime, setting: str) -> dict[str, Any]:
    """Takes two of the run's own steps in parts of four images, a sample for each part.

    At a rate so low that rounding does not grow: a drawn network multiplies it 50-fold at each larger step.
    """
    torch.manual_seed(3)
    by_kind: dict[str, dict[str, Any]] = {
        "gumbel": {"train.recompute": "candidates"},
        "triplet": {"loss.name": "triplet", "loss.triplet.margin": 5.0, "loss.triplet.weight_x": 0.5},
        "uniform": {"train.recompute": "blocks", "nas.method": "uniform", "nas.held_out": "cameras"},
    }
    steps = {"train.batch_size": 16, "train.device_batch": 4, "nas.sample_scope": "replica", "train.optim": "sgd"}
    cfg = load_config([], {"model.width": 0.25, "train.lr": 1e-8, "data.targets": [], **steps, **by_kind[setting]})
    network = build_network(cfg, CLASSES)
    network.model.double()
    data: Any = SimpleNamespace(preparer=lambda batch, device: batch.images)
    step = build_step(cfg, runtime, data, network)
    step.open_layers(None)
    for _ in range(2):
        images, labels = take_share(runtime, *draw_batch(16, 64, 32))
        loss = step.run(SimpleNamespace(images=images, pids=labels), Stopwatch()).loss
    losses = runtime.gather(loss)
    gradients = {name: p.grad for name, p in network.model.named_parameters() if p.grad is not None}
    buffers = dict(network.model.named_buffers())
    return {"loss": sum(losses) / len(losses), "losses": losses, "gradients": gradients, "buffers": buffers}


def compute_scores(runtime: Runtime, watched: str) -> dict[str, Any]:
    """Scores rankings of several tiles of queries, with ties, by everything that can be asked for."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> LabelledFeatures:
        pids, camids = rng.integers(0, 60, count), rng.integers(0, 4, count)
        features = torch.from_numpy(rng.integers(-3, 4, (count, 8)).astype(np.float32))
        return LabelledFeatures(features + 0.5 * torch.from_numpy(pids % 5)[:, None], pids, camids)

    class Observer:
        rows = 0

        def watch(self, name: str, target: Any, blocks: Any, labels: Any, distance: str) -> Any:
            for block in blocks:
                self.rows += len(block)
                yield block

        def finish(self, name: str, result: Any) -> None: ...

    query, gallery = draw(700), draw(900)
    rules = ScoringRules(rerank=True, camera_pairs=True, ranks=(1, 5, 10**10))
    observer = Observer() if watched == "watched" and runtime.is_main else None
    scores = score_rankings("t", SimpleNamespace(), query, gallery, rules, True, runtime, observer)
    assert observer is None or observer.rows == 2 * 700
    everybodys = runtime.gather({kind: repr(s.as_document()) for kind, s in scores.items()})
    return {"equal": all(found == everybodys[0] for found in everybodys), "scores": everybodys[0]}


def measure_patience(runtime: Runtime, unused: str) -> dict[str, Any]:
    """Returns the limits in seconds: of the exchanges of a step, and of those that may wait long."""
    groups = torch.distributed.group.WORLD, runtime.group
    cpu = torch.device("cpu")
    limits = [group._get_backend(cpu).options._timeout for group in groups]  # type: ignore[union-attr]
    return {"limits": [limit.total_seconds() for limit in limits]}


WORK: dict[str, Callable[[Runtime, str], dict[str, Any]]] = {
    "triplet": compute_triplet, "alphas": compute_alphas, "alternating": compute_alternating,
    "parts": compute_parts, "scores": compute_scores, "patience": measure_patience,
}  # fmt: skip


def main(words: list[str]) -> int:
    """Does the work that the first word names, with the second as its setting, and saves its result to the third."""
    kind, setting, path = words
    with choose_runtime(False) as runtime:
        result = WORK[kind](runtime, setting)
        if runtime.is_main:
            torch.save(result, path)
    return 0
