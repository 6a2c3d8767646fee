"""Parameters and multiply-adds as published."""

import pytest

from genotype import NAMED_STEM_NORMS, Genotype
from osnet_child import build_child
from utils.complexity import compute_complexity

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
