"""What a step will need is counted, compared with what is free, and changes nothing."""

import copy

import pytest
import torch
from torch import nn

from engine.footprint import Footprint, LiveBytes, forecast, measure_footprint
from tests.engine.test_parts import CPU, Toy, build_model, make_step, make_task, triplet
from tests.same import assert_same
from utils.distributed import Runtime
from utils.errors import UserError

GIB = 2**30
NEED = Footprint(GIB, GIB // 4)  # of 2 images 1.5 GiB, of 4 2 GiB, of 8 3 GiB, of 16 5 GiB


def test_bytes_that_live_are_counted_once_and_until_they_are_freed():
    weight = torch.zeros(1000)
    with LiveBytes([weight]) as live:
        a = torch.zeros(250)
        views = a[:100], a.view(50, 5), weight.view(10, 100)
        assert live.now == 1000
        a.add_(1)
        b = a + 1
        assert (live.now, live.peak) == (2000, 2000)
        del b
        c = torch.zeros(100)
        assert (live.now, live.peak) == (1400, 2000)
        del a, c, views
    assert (live.now, live.peak) == (0, 2000)


def test_a_step_needs_what_its_maps_take():
    """A ReLU chain keeps each map of the forward pass; the backward pass adds the gradients of two maps."""
    model = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), *(nn.Sigmoid() for _ in range(10)))
    need = measure_footprint(make_step(model, make_task(model, "child", "", Runtime(CPU)), Runtime(CPU)), 32, 16)
    maps = 32 * 16 * 4 * 8
    assert 11 * maps <= need.per_image <= 15 * maps
    assert need.fixed == 3 * 4 * 3 * 8


@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("method", ["gumbel", "uniform", "child"])
def test_counting_changes_nothing(method, amp):
    model = Toy(method == "gumbel")
    step = make_step(model, make_task(model, method, "replica", Runtime(CPU)), Runtime(CPU), triplet, amp=amp)
    before, random = copy.deepcopy(step.state_dict()), torch.get_rng_state()
    assert measure_footprint(step, 32, 16).per_image > 0
    assert_same(step.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in model.parameters())
    assert all(m.track_running_stats for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_super_network_needs_more_for_larger_images():
    model = build_model("supernet")
    step = make_step(model, make_task(model, "gumbel", "global", Runtime(CPU)), Runtime(CPU))
    small, large = (measure_footprint(step, height, height // 2).per_image for height in (64, 128))
    assert 3.5 < large / small < 4.5


@pytest.mark.parametrize(
    ("device_batch", "free", "chosen", "fits", "told"),
    [
        (0, 8, 0, True, "a step needs about 5 GiB of a device's memory for 16 images at a time, 8 GiB are free"),
        (0, 4, 0, False, "4 GiB are free, which may not be enough; train.device_batch 8 needs 3 GiB"),
        (4, 4, 4, True, "about 2 GiB of a device's memory for 4 images at a time, 4 GiB are free"),
        (4, 1.9, 4, False, "may not be enough; train.device_batch 2 needs 1.5 GiB"),
        (0, 1, 0, False, "may not be enough; lower data.height and data.width"),
        (-1, 8, 0, True, "for 16 images at a time"),
        (-1, 5, 8, True, "about 3 GiB of a device's memory for 8 images at a time"),
        (-1, 3, 4, True, "about 2 GiB of a device's memory for 4 images at a time"),
        (0, None, 0, True, "for 16 images at a time"),
    ],
)
def test_what_fits_is_said(device_batch, free, chosen, fits, told):
    found = forecast(NEED, 16, device_batch, None if free is None else int(free * GIB))
    assert (found.device_batch, found.fits) == (chosen, fits)
    assert told in found.text
    assert ("free" in found.text) == (free is not None)


@pytest.mark.parametrize(
    ("free", "told"),
    [
        (4, "; train.device_batch 8 needs 3 GiB, train.recompute candidates needs 2 GiB"),
        (2, "; train.device_batch 2 needs 1.5 GiB, with train.recompute candidates train.device_batch 8 needs 1.5 GiB"),
        (1.5, "; with train.recompute candidates train.device_batch 4 needs 1.25 GiB"),
        (1.3, "; lower data.height and data.width"),
    ],
)
def test_recomputation_that_would_fit_is_named(free, told):
    less = Footprint(GIB, GIB // 16)
    found = forecast(NEED, 16, 0, int(free * GIB), lambda: less)
    assert (found.device_batch, found.fits) == (0, False)
    assert told in found.text


def test_only_divisors_of_a_devices_share_are_chosen():
    assert forecast(NEED, 15, -1, 4 * GIB).device_batch == 5


@pytest.mark.parametrize(
    ("free", "told"),
    [
        (GIB, "-1: a step needs about 1.5 GiB of a device's memory for 2 images at a time, 1 GiB are free, which may"),
        (None, "set a number"),
    ],
)
def test_nothing_can_be_chosen(free, told):
    with pytest.raises(UserError, match=told):
        forecast(NEED, 16, -1, free)
