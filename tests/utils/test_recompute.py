"""Recomputation changes no loss, no gradient and no statistic, and needs a fraction of the memory."""

import copy

import pytest
import torch

from engine.footprint import LiveBytes
from engine.mixed_precision import MixedPrecision
from genotype import Genotype
from osnet_child import build_child
from osnet_nas import build_supernet
from tests.same import assert_same
from utils.batch_norm import hold_statistics

KINDS = ("blocks", "candidates")


def build(kind):
    torch.manual_seed(0)
    if kind == "child":
        return build_child(5, Genotype.named("osnet_ain"), 0.25).to(memory_format=torch.channels_last)
    return build_supernet(5, 0.25, candidates=kind).to(memory_format=torch.channels_last)


def draw_choice(kind, method):
    generator = torch.Generator().manual_seed(1)
    if kind == "child":
        return ()
    if method == "uniform":
        return (torch.randint(4, (6,), generator=generator),)
    return (torch.rand(6, 4, generator=generator).requires_grad_(),)


def run_twice(model, choice, amp):
    """Two passes, the second with held statistics; returns outputs, gradients and the network's state."""
    network = MixedPrecision(model, torch.bfloat16) if amp else model
    images = torch.randn(4, 3, 64, 32, generator=torch.Generator().manual_seed(2))
    outputs = [network(images, *choice)]
    outputs[0].square().sum().backward()
    with hold_statistics(network):
        outputs.append(network(images.flip(0), *choice))
        outputs[1].square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {
        "outputs": [o.detach() for o in outputs],
        "gradients": gradients,
        "of_choice": [c.grad for c in choice if c.requires_grad],
        "state": dict(model.state_dict()),
    }


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("method", ["gumbel", "uniform"])
@pytest.mark.parametrize("kind", ["separate", "shared", "child"])
def test_same_to_the_last_bit(kind, method, amp):
    expected = run_twice(build(kind), draw_choice(kind, method), amp)
    assert int(expected["state"]["fc.1.num_batches_tracked"]) == 1
    for recomputed in KINDS:
        model = build(kind)
        model.choose_recomputed(recomputed)
        assert_same(run_twice(model, draw_choice(kind, method), amp), expected)


def measure_peak(model, choice):
    images = torch.zeros(4, 3, 128, 64).contiguous(memory_format=torch.channels_last)
    with LiveBytes([*model.parameters(), *model.buffers(), images, *choice]) as live:
        model(images, *choice).sum().backward()
    return live.peak


def test_memory_of_candidates_is_a_fifth():
    model = build("separate")
    plain = measure_peak(model, draw_choice("separate", "gumbel"))
    model.choose_recomputed("blocks")
    blocks = measure_peak(model, draw_choice("separate", "gumbel"))
    model.choose_recomputed("candidates")
    candidates = measure_peak(model, draw_choice("separate", "gumbel"))
    assert candidates <= plain / 5
    assert candidates < blocks <= plain / 2


def test_choice_is_taken_back():
    model = build("separate")
    for recomputed in (*KINDS, "none"):
        model.choose_recomputed(recomputed)
    assert not model.recomputes
    assert not any(block.recomputes for block in model.blocks)


def test_evaluation_keeps_nothing():
    model = build("separate").eval()
    model.choose_recomputed("candidates")
    before = copy.deepcopy(dict(model.state_dict()))
    with torch.no_grad():
        assert not model(torch.zeros(2, 3, 64, 32), *draw_choice("separate", "gumbel")).requires_grad
    assert_same(dict(model.state_dict()), before)
