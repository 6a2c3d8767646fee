"""The search: temperature, noise over replicas, floor and warnings, statistics, state."""

import math

import pytest
import torch
from torch import nn

from engine.recalibration import recalibrate_batch_norm
from search.gumbel import GumbelSearch
from search.paths import GumbelSoftmax, compute_entropy, compute_margins, sample_path_weights, temperature_at
from utils.distributed import Runtime

CPU = torch.device("cpu")
FLOOR = GumbelSoftmax().floor


class Alphas(nn.Module):
    def __init__(self):
        super().__init__()
        self.alphas = nn.Parameter(torch.ones(6, 4))


def make_task(runtime=None, scope="global", seed=3, temperature=lambda epoch: 10.0):
    return GumbelSearch(
        Alphas(), relaxation=GumbelSoftmax(), temperature=temperature, repeats=1,
        seed=seed, runtime=runtime or Runtime(CPU), sample_scope=scope, block_names=[f"block{i}" for i in range(6)],
        candidate_names=["a", "b", "c", "d"],
    )  # fmt: skip


def test_temperature_follows_the_paper():
    """λ(epoch) = max(1, 10 · 0.5^⌊epoch / 20⌋)."""
    table = {0: 10, 19: 10, 20: 5, 39: 5, 40: 2.5, 60: 1.25, 79: 1.25, 80: 1, 119: 1}
    assert {epoch: temperature_at(epoch, 10, 1, 20, 0.5, False) for epoch in table} == table


def test_temperature_may_stay():
    assert temperature_at(119, 10, 1, 20, 0.5, True) == 10
    assert temperature_at(119, 10, 1, -1, 0.5, False) == 10


def test_entropy_of_open_and_settled_blocks():
    rows = torch.tensor([[0.25] * 4, [1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.7, 0.1, 0.1, 0.1]])
    mixed = -(0.7 * math.log(0.7) + 0.3 * math.log(0.1))
    assert compute_entropy(rows).tolist() == pytest.approx([math.log(4), 0, math.log(2), mixed], abs=1e-6)


def test_margins():
    rows = torch.tensor([[0.1, 0.6, 0.2, 0.1], [0.25] * 4])
    assert compute_margins(rows).tolist() == pytest.approx([0.4, 0.0])


def test_global_scope_gives_all_replicas_one_sample():
    weights = make_task(Runtime(CPU, replicas=3)).draw()
    assert weights.shape == (3, 6, 4)
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])
    assert torch.equal(weights[0], make_task(Runtime(CPU, rank=2, world_size=4)).draw()[0])


def test_replica_scope_gives_each_its_own():
    weights = make_task(Runtime(CPU, replicas=3), "replica").draw()
    assert all(not torch.allclose(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert torch.allclose(weights.sum(dim=-1), torch.ones(3, 6))


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_noise_does_not_depend_on_how_replicas_are_spread(world_size):
    whole, spread = make_task(Runtime(CPU, replicas=6), "replica"), [
        make_task(Runtime(CPU, rank, world_size, 6 // world_size), "replica") for rank in range(world_size)
    ]  # fmt: skip
    for _ in range(3):
        assert torch.equal(torch.cat([task.draw() for task in spread]), whole.draw())


@pytest.mark.parametrize("scope", ["global", "replica"])
def test_every_replica_adds_to_the_gradient_of_the_alphas(scope):
    task = make_task(Runtime(CPU, replicas=2), scope)
    factors = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    (task.draw() * factors).sum().backward()
    parts = []
    for row in range(2):
        alone = make_task(Runtime(CPU, replicas=2), scope)
        (alone.draw()[row] * factors[row]).sum().backward()
        parts.append(alone.supernet.alphas.grad)
    assert (task.supernet.alphas.grad != 0).all()
    torch.testing.assert_close(task.supernet.alphas.grad, parts[0] + parts[1])


def test_noise_continues_after_its_state_is_restored():
    task, other = make_task(), make_task(seed=99)
    task.draw()
    other.load_state_dict(task.state_dict())
    assert torch.equal(other.draw(), task.draw())


def test_alphas_stay_where_they_have_a_gradient():
    task = make_task()
    with torch.no_grad():
        task.supernet.alphas[2, 1] = -3.0
    task.after_step()
    assert float(task.supernet.alphas[2, 1].detach()) == pytest.approx(FLOOR)
    task.draw()[:, :, 0].sum().backward()
    assert float(task.supernet.alphas.grad[2, 1]) != 0


def test_dead_alphas_are_named(caplog):
    task = make_task()
    task.start_epoch(0)
    task.supernet.alphas.grad = torch.ones(6, 4)
    task.supernet.alphas.grad[4, 3] = 0
    with torch.no_grad():
        task.supernet.alphas[1, 2] = 0.0
    task.after_step()
    task.end_epoch(0)
    assert "block1: the alpha of c is at the floor of 0.01" in caplog.text
    assert "block4: the alpha of d got no gradient" in caplog.text
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 2
    caplog.clear()
    task.start_epoch(1)
    task.supernet.alphas.grad = torch.ones(6, 4)
    task.after_step()
    task.end_epoch(1)
    assert "no gradient" not in caplog.text


def steps(task, factors, count=2):
    for _ in range(count):
        task.supernet.alphas.grad = None
        (task.draw() * factors).sum().backward()
        task.after_step()


@pytest.mark.parametrize("repeat", range(5))
def test_alpha_out_of_reach_of_the_gradient_is_a_defect(repeat):
    task = make_task(seed=repeat)

    def sample(alphas, *arguments):
        detached = torch.zeros_like(alphas, dtype=torch.bool)
        detached[..., 4, 3] = True
        return sample_path_weights(torch.where(detached, alphas.detach(), alphas), *arguments)

    task.relaxation.sample = sample
    with pytest.raises(RuntimeError, match="no gradient reaches 1 alphas: block4 d"):
        steps(task, torch.randn(6, 4, generator=torch.Generator().manual_seed(repeat)))


@pytest.mark.parametrize("temperature", [10.0, 1.0, 0.1, 0.01, 1e-3])
def test_alphas_of_weights_that_underflow_are_no_defect(temperature):
    """Also where a run continues at a low temperature, some alphas at the floor."""
    for seed in range(20):
        task = make_task(seed=seed, temperature=lambda epoch: temperature)
        with torch.no_grad():
            task.supernet.alphas[::2, 1:3] = FLOOR
        steps(task, torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)), count=3)


def test_steps_without_any_gradient_tell_nothing_of_the_alphas():
    """As where the triplet loss is 0."""
    task = make_task()
    steps(task, torch.zeros(6, 4), count=4)


def test_scalars_of_an_epoch():
    task = make_task(temperature=lambda epoch: 10.0 - epoch)
    task.start_epoch(4)
    scalars = task.end_epoch(4)
    assert scalars["nas/temperature"] == 6.0
    assert scalars["nas/entropy"] == pytest.approx(math.log(4))
    assert scalars["nas/probability/block3/b"] == pytest.approx(0.25)
    assert len(scalars) == 2 + 6 + 2 * 24


def test_recalibration_is_the_mean_of_the_batches_statistics():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.BatchNorm2d(4))
    batches = [torch.randn(6, 3, 8, 8) * (1 + i) for i in range(3)]
    network(torch.randn(4, 3, 8, 8))  # statistics of before must not count
    means, variances = {1: [], 4: []}, {1: [], 4: []}
    with torch.no_grad():
        for x in batches:
            for i, layer in enumerate(network):
                if i in means:
                    means[i].append(x.mean(dim=(0, 2, 3)))
                    variances[i].append(x.transpose(0, 1).flatten(1).var(dim=1))  # unbiased
                    x = (x - x.mean(dim=(0, 2, 3), keepdim=True)) / (
                        x.transpose(0, 1).flatten(1).var(dim=1, unbiased=False)[:, None, None] + layer.eps
                    ).sqrt()
                else:
                    x = layer(x)
    assert recalibrate_batch_norm(network, iter(batches)) == 3
    for i in means:
        torch.testing.assert_close(network[i].running_mean, torch.stack(means[i]).mean(dim=0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network[i].running_var, torch.stack(variances[i]).mean(dim=0), rtol=1e-4, atol=1e-5)
        assert network[i].momentum == 0.1
    assert not network.training
