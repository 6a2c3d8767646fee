"""The losses against brute force in float64 and against their formulas."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.losses import build_loss, compute_triplet_loss, softmax_loss, triplet_loss
from utils.distributed import Runtime


def brute_force_triplet(features, labels, margin):
    """The definition, one anchor at a time, in Python's float64."""
    rows, total = features.double().tolist(), 0.0
    for i, anchor in enumerate(rows):
        distances = [math.dist(anchor, other) for other in rows]
        positive = max(d for d, label in zip(distances, labels, strict=True) if label == labels[i])
        negative = min(d for d, label in zip(distances, labels, strict=True) if label != labels[i])
        total += max(0.0, positive - negative + margin)
    return total / len(rows)


@given(seed=st.integers(0, 2**31), pids=st.integers(2, 6), images=st.integers(1, 5), margin=st.floats(0, 2))
@settings(max_examples=60)
def test_triplet_is_batch_hard(seed, pids, images, margin):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(pids).repeat_interleave(images)[torch.randperm(pids * images, generator=generator)]
    features = torch.randn(len(labels), 8, generator=generator)
    expected = brute_force_triplet(features, labels.tolist(), margin)
    assert float(compute_triplet_loss(features, labels, margin)) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_triplet_gradient_is_that_of_the_definition():
    features = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    compute_triplet_loss(features, labels, 0.3).backward()
    step = 1e-5
    for i, j in ((0, 0), (3, 2), (7, 1)):
        ends = []
        for sign in (1, -1):
            moved = features.detach().double()
            moved[i, j] += sign * step
            ends.append(brute_force_triplet(moved, labels.tolist(), 0.3))
        assert float(features.grad[i, j]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-3)


def test_mixed_precision_does_not_reach_the_distances():
    """Images of a person lie close together far from the origin, where rounding would swallow their distance."""
    generator = torch.Generator().manual_seed(4)
    features = 5 + 0.01 * torch.randn(8, 32, generator=generator)
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    with torch.autocast("cpu", torch.bfloat16):
        loss = compute_triplet_loss(features, labels, 0.3)
    assert float(loss) == pytest.approx(brute_force_triplet(features, labels.tolist(), 0.3), rel=1e-5)


def test_double_precision_is_kept():
    features = 1e8 + torch.randn(8, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    loss = compute_triplet_loss(features, labels, 0.3)
    assert loss.dtype == torch.float64
    assert float(loss) == pytest.approx(brute_force_triplet(features, labels.tolist(), 0.3), rel=1e-7)


def test_triplets_are_taken_from_what_is_joined():
    """An identity alone has none; with another process's images it has."""
    features, others = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.5], [9.0]])
    output = torch.zeros(2, 6), features

    def join(rows):
        return torch.cat([rows, others if rows.is_floating_point() else torch.tensor([5, 5])])

    alone, joined = (triplet_loss(0.3, 1.0, 0.0, False, *more) for more in ((), (join,)))
    labels = torch.tensor([4, 4])
    assert float(alone(output, labels)) == 0
    expected = brute_force_triplet(torch.cat([features, others]), [4, 4, 5, 5], 0.3)
    assert float(joined(output, labels)) == pytest.approx(expected, rel=1e-6)


def test_equal_features_give_finite_gradients():
    features = torch.ones(6, 4, requires_grad=True)
    loss = compute_triplet_loss(features, torch.tensor([0, 0, 1, 1, 2, 2]), 0.3)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.3)
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize(("label_smooth", "epsilon"), [(True, 0.1), (False, 0.0)])
def test_softmax_loss_is_its_formula(label_smooth, epsilon):
    """−Σ q log p with q = (1 − ε) · one-hot + ε / classes."""
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 6, 3, 3, 1])
    p = torch.exp(logits.double()) / torch.exp(logits.double()).sum(dim=1, keepdim=True)
    q = (1 - epsilon) * torch.eye(7, dtype=torch.float64)[labels] + epsilon / 7
    expected = float(-(q * p.log()).sum(dim=1).mean())
    assert float(softmax_loss(label_smooth)(logits, labels)) == pytest.approx(expected, rel=1e-6)


def test_weights_add_the_two_losses():
    generator = torch.Generator().manual_seed(2)
    logits, features = torch.randn(6, 3, generator=generator), torch.randn(6, 4, generator=generator)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    expected = 0.7 * compute_triplet_loss(features, labels, 0.5) + 0.2 * softmax_loss(True)(logits, labels)
    assert torch.allclose(triplet_loss(0.5, 0.7, 0.2, True)((logits, features), labels), expected)


def test_built_from_the_settings():
    triplet = SimpleNamespace(margin=0.3, weight_t=1.0, weight_x=0.0)
    cfg = SimpleNamespace(loss=SimpleNamespace(name="softmax", softmax=SimpleNamespace(label_smooth=False)))
    cfg.loss.triplet = triplet
    logits, features, labels = torch.eye(4), torch.eye(4), torch.tensor([0, 0, 1, 1])
    assert float(build_loss(cfg, Runtime(torch.device("cpu")))(logits, labels)) == pytest.approx(
        float(softmax_loss(False)(logits, labels))
    )
    cfg.loss.name = "triplet"
    assert float(build_loss(cfg, Runtime(torch.device("cpu")))((logits, features), labels)) == pytest.approx(0.3)
