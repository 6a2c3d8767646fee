"""Parameters and multiply-adds as published."""

import pytest
import torch
from torch import nn

from genotype import NAMED_STEM_NORMS, Genotype
from osnet_child import build_child
from utils.complexity import compute_complexity, count_parameters_at_each_use

PUBLISHED_MADDS = {1.0: (978.9e6, 0.05e6), 0.75: (0.57e9, 0.005e9), 0.5: (0.27e9, 0.005e9), 0.25: (82.3e6, 0.05e6)}


@pytest.mark.parametrize("width", PUBLISHED_MADDS)
def test_multiply_adds_are_the_published_ones(width):
    child = build_child(1000, Genotype.named("osnet"), width, NAMED_STEM_NORMS["osnet"])
    value, rounding = PUBLISHED_MADDS[width]
    assert compute_complexity(child, 256, 128).num_madds == pytest.approx(value, abs=rounding)
    assert child.training


@pytest.mark.parametrize(("width", "count"), [(1.0, 2_169_508), (0.25, 201_864)])
def test_parameters_without_classifier(width, count):
    assert compute_complexity(build_child(7, width=width), 64, 32).num_parameters == count


@pytest.mark.parametrize(("width", "published"), [(1.0, 2_193_616), (0.25, 203_568)])
@pytest.mark.parametrize("name", ["osnet", "osnet_ain"])
def test_parameters_as_published(name, width, published):
    child = build_child(7, Genotype.named(name), width, NAMED_STEM_NORMS[name])
    assert count_parameters_at_each_use(child, torch.zeros(1, 3, 64, 32)) == published
    assert child.training
    assert not any(module._forward_pre_hooks for module in child.modules())


def test_a_module_counts_as_often_as_it_runs():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(2, 1))
    assert count_parameters_at_each_use(model, torch.zeros(1, 2)) == 6 + 6 + 3
