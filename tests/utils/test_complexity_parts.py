"""Costs by part: hand-counted for some parts, and in sum the whole network's."""

import pytest
import torch
from torch import nn

from genotype import CANDIDATE_NAMES, NAMED_STEM_NORMS, Genotype
from osnet_child import build_child
from utils.complexity import compute_complexity, compute_part_complexities, count_parameters, measure_latency

PARTS = ["conv1", "conv2", "pool2", "conv3", "pool3", "conv4", "conv5", "fc"]


@pytest.mark.parametrize("name", NAMED_STEM_NORMS)
@pytest.mark.parametrize("width", [1.0, 0.25])
def test_parts_sum_to_the_whole(name, width):
    child = build_child(9, Genotype.named(name), width, NAMED_STEM_NORMS[name])
    parts, whole = compute_part_complexities(child, 64, 32), compute_complexity(child, 64, 32)
    assert list(parts) == PARTS
    assert sum(part.num_parameters for part in parts.values()) == whole.num_parameters
    assert sum(part.num_madds for part in parts.values()) == whole.num_madds
    assert child.training


def test_the_published_total_by_part():
    """OSNet x1.0 at 256×128: 978.9 M multiply-adds (arXiv 1905.00953); parts counted by hand from its table."""
    child = build_child(9, Genotype.named("osnet"), 1.0, "batch")
    parts = compute_part_complexities(child, 256, 128)
    assert sum(part.num_madds for part in parts.values()) == pytest.approx(978.9e6, abs=0.05e6)
    assert sum(part.num_parameters for part in parts.values()) == 2_169_508
    by_hand = {
        "conv1": (7 * 7 * 3 * 64 + 2 * 64, 7 * 7 * 3 * 64 * 128 * 64),
        "pool2": (256 * 256 + 2 * 256, 256 * 256 * 64 * 32),
        "pool3": (384 * 384 + 2 * 384, 384 * 384 * 32 * 16),
        "conv5": (512 * 512 + 2 * 512, 512 * 512 * 16 * 8),
        "fc": (512 * 512 + 512 + 2 * 512, 512 * 512),
    }
    assert {name: (parts[name].num_parameters, parts[name].num_madds) for name in by_hand} == by_hand


@pytest.mark.parametrize("candidate", CANDIDATE_NAMES)
def test_only_an_outer_instance_norm_adds_parameters(candidate):
    child = build_child(1, Genotype.from_blocks([candidate] * 6), 0.25)
    parts = compute_part_complexities(child, 64, 32)
    added = sum(part.num_parameters for part in parts.values()) - 201_864
    assert added == (2 * 2 * (64 + 96 + 128) if candidate in ("OSBlockINv2", "OSBlockINv3") else 0)


class Sleeper(nn.Module):
    """Takes a known time of a clock that nothing else moves."""

    clock = 0.0

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Sleeper.clock += self.seconds
        return x


class Slow(nn.Module):
    """Three parts of which one is a list of modules, and a classifier that is not run."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Sleeper(0.02)
        self.blocks = nn.ModuleList([Sleeper(0.02), Sleeper(0.03)])
        self.last = Sleeper(0.005)
        self.classifier = Sleeper(1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks[1](self.blocks[0](self.first(x)))
        Sleeper.clock += 0.01  # counts for the part before
        return self.last(x)


def test_latency_is_given_to_the_part_that_takes_it(monkeypatch):
    monkeypatch.setattr("utils.complexity.time.perf_counter", lambda: Sleeper.clock)
    model = Slow()
    latency = measure_latency(model, torch.zeros(1), num_runs=3, num_warmup=1)
    expected = {"first": 0.02, "blocks": 0.06, "last": 0.005}
    assert list(latency.parts) == list(expected)
    assert latency.parts == pytest.approx(expected)
    assert latency.total == pytest.approx(0.085)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_hooks_go_when_the_model_fails():
    child = build_child(1, width=0.25)
    with pytest.raises(RuntimeError):
        measure_latency(child, torch.zeros(1, 4, 32, 32), num_runs=1)
    assert not any(module._forward_pre_hooks for module in child.modules())
    assert child.training


def test_the_classifier_alone_is_left_out():
    model = nn.ModuleDict({"classifier": nn.Linear(2, 3), "classifier2": nn.Linear(2, 3)})
    assert count_parameters(model) == 9
