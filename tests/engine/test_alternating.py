"""Weights and alphas that learn in turn, from batches of their own."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engine.interrupt import StopRequest
from engine.step import TrainStep
from engine.task import Task, TrainSettings
from engine.trainer import Trainer
from tests.toy_batches import Batches
from utils.checkpoint import load_checkpoint
from utils.distributed import Runtime
from utils.errors import UserError

CPU = torch.device("cpu")


class TwoGroups(nn.Module):
    """A network with architecture parameters that scale its hidden layer."""

    def __init__(self):
        super().__init__()
        self.body, self.classifier = nn.Linear(4, 8), nn.Linear(8, 3)
        self.alphas = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return self.classifier(self.body(x).relu() * self.alphas)


def make_alternating(tmp_path, alpha_batches, batches=None, **settings):
    torch.manual_seed(0)
    net = TwoGroups()
    weights = torch.optim.SGD([p for n, p in net.named_parameters() if n != "alphas"], lr=0.1, momentum=0.9)
    optimizers = {"weights": weights, "alphas": torch.optim.Adam([net.alphas], lr=0.01)}
    step = TrainStep(model=net, wrap=lambda: net, task=Task(), loss=F.cross_entropy, optimizers=optimizers,
                     prepare=lambda batch: batch.images, runtime=Runtime(CPU))  # fmt: skip
    return Trainer(
        step=step, schedulers={"weights": torch.optim.lr_scheduler.StepLR(weights, 1, 0.5)},
        batches=batches or Batches(), alpha_batches=alpha_batches, runtime=Runtime(CPU),
        settings=TrainSettings(max_epoch=2, batch_size=4, **settings), folder=tmp_path, identity={}, config={},
        images="", stop=StopRequest(None),
    )  # fmt: skip


def assert_equal(a, b):
    assert all(torch.equal(t, b.state_dict()[name]) for name, t in a.state_dict().items())


class HeldOutBatches(Batches):
    """Three batches per epoch, other images than the training ones."""

    def __len__(self):
        return 3

    def batches(self, epoch, first_batch=0):
        yield from itertools.islice(super().batches(1000 + epoch, first_batch), 3 - first_batch)


def test_alphas_learn_from_their_own_batches_and_weights_from_theirs(tmp_path):
    """Against a plain loop that takes the two gradients in turn."""
    (tmp_path / "checkpoints").mkdir()
    trainer = make_alternating(tmp_path, HeldOutBatches())
    trainer.fit()
    torch.manual_seed(0)
    net = TwoGroups()
    weights = torch.optim.SGD([p for n, p in net.named_parameters() if n != "alphas"], lr=0.1, momentum=0.9)
    alphas = torch.optim.Adam([net.alphas], lr=0.01)
    held_out = itertools.chain.from_iterable(HeldOutBatches().batches(epoch) for epoch in itertools.count())
    for epoch in range(2):
        for batch in Batches().batches(epoch):
            for optimizer, own in ((weights, batch), (alphas, next(held_out))):
                net.zero_grad()
                F.cross_entropy(net(own.images), own.pids).backward()
                optimizer.step()
        weights.param_groups[0]["lr"] *= 0.5
    assert_equal(trainer.step.model, net)
    assert trainer.image_passes == 2 * 2 * 5 * 4


def test_alternating_run_continues_exactly_from_the_middle(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    whole = make_alternating(tmp_path, HeldOutBatches())
    whole.fit()

    def fail(epoch, number):
        if (epoch, number) == (1, 2):
            raise UserError("broken image")

    with pytest.raises(UserError):
        make_alternating(tmp_path, HeldOutBatches(), Batches(fail)).fit()
    continued = make_alternating(tmp_path, HeldOutBatches())
    continued.load_state(load_checkpoint(tmp_path / "checkpoints" / "last.pt"))
    continued.fit()
    assert_equal(continued.step.model, whole.step.model)
