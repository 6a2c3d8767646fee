"""Weighted sums of maps against the sums as they are written, forward and backward, in every layout and type."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from osnet_blocks import ChannelGate
from utils.weighted_maps import gated_sum, weighted_sum

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def draw_maps(num_maps, shape, layout="channels_last", dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(num_maps, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return [x.contiguous(memory_format=LAYOUTS[layout]).requires_grad_() for x in maps]


def draw_weights(num_maps, dtype=torch.float64):
    return torch.rand(num_maps, generator=torch.Generator().manual_seed(1), dtype=dtype).requires_grad_()


def make_gate(num_channels, dtype=torch.float64, reduction=2):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return ChannelGate(num_channels, reduction).to(dtype)


def write_out(weights, maps):
    return sum(w * x for w, x in zip(weights, maps, strict=True))


of_any_maps = given(
    shape=st.tuples(st.integers(1, 5), st.integers(2, 6), st.integers(1, 5), st.integers(1, 5)),
    num_maps=st.integers(1, 4),
    layout=st.sampled_from(sorted(LAYOUTS)),
    chunk=st.sampled_from([1, 50, 2**17]),
    seed=st.integers(0, 99),
)


@settings(max_examples=40, deadline=None)
@of_any_maps
def test_weighted_sum_and_its_gradients_are_those_of_the_written_sum(shape, num_maps, layout, chunk, seed):
    maps, weights = draw_maps(num_maps, shape, layout, seed=seed), draw_weights(num_maps)
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.layout.CHUNK", chunk)
        results = [f(weights, maps) for f in (weighted_sum, write_out)]
        gradients = [torch.autograd.grad(y, [weights, *maps], gradient) for y in results]
    assert torch.equal(*results)
    for own, written in zip(*gradients, strict=True):
        torch.testing.assert_close(own, written, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@of_any_maps
def test_gated_sum_and_its_gradients_are_those_of_the_written_sum(shape, num_maps, layout, chunk, seed):
    maps, gate = draw_maps(num_maps, shape, layout, seed=seed), make_gate(shape[1])
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.layout.CHUNK", chunk)
        results = [gated_sum(gate, maps), sum(gate(x) for x in maps)]
        gradients = [torch.autograd.grad(y, [*gate.parameters(), *maps], gradient) for y in results]
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
    for own, written in zip(*gradients, strict=True):
        torch.testing.assert_close(own, written, rtol=1e-11, atol=1e-12)


def test_gradients_are_the_slopes():
    maps, gate = draw_maps(3, (2, 4, 3, 2)), make_gate(4)
    assert torch.autograd.gradcheck(lambda w, *xs: weighted_sum(w, xs), (draw_weights(3), *maps))
    assert torch.autograd.gradcheck(lambda *xs: gated_sum(gate, xs), tuple(maps))


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_weights_gradients_have_the_weights_strides(layout):
    """DistributedDataParallel copies others, and warns."""
    gate = make_gate(4).to(memory_format=LAYOUTS[layout])
    gated_sum(gate, draw_maps(2, (2, 4, 3, 2))).sum().backward()
    for parameter in gate.parameters():
        assert parameter.grad.stride() == parameter.stride()


def test_second_derivative_is_refused():
    maps, gate = draw_maps(2, (2, 4, 3, 2)), make_gate(4)
    for y in (gated_sum(gate, maps), weighted_sum(draw_weights(2), maps)):
        (first,) = torch.autograd.grad(y.pow(3).sum(), maps[0], create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_type_and_layout_are_those_of_the_written_sum(dtype):
    """In mixed precision maps are of another type than weights; sums over pixels are then those of float32."""
    gate, weights = make_gate(8, torch.float32), draw_weights(3, torch.float32)
    maps = draw_maps(3, (2, 8, 64, 32), dtype=dtype)
    exact = [x.detach().double().requires_grad_() for x in maps]
    exact_gate, exact_weights = make_gate(8), weights.detach().double().requires_grad_()
    gradient = torch.rand(2, 8, 64, 32).contiguous(memory_format=torch.channels_last).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        own = gated_sum(gate, maps), weighted_sum(weights, maps)
        written = sum(gate(x) for x in maps), write_out(weights, maps)
    defined = sum(exact_gate(x) for x in exact), write_out(exact_weights, exact)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    learning = [*gate.parameters(), *maps], [weights, *maps]
    exactly = [*exact_gate.parameters(), *exact], [exact_weights, *exact]
    for y, z, e, inputs, exact_inputs in zip(own, written, defined, learning, exactly, strict=True):
        assert y.dtype == z.dtype
        assert y.is_contiguous(memory_format=torch.channels_last)
        pairs = zip([y, *torch.autograd.grad(y, inputs, gradient)],
                    [e, *torch.autograd.grad(e, exact_inputs, gradient.double())], strict=True)  # fmt: skip
        for number, (one, other) in enumerate(pairs):
            assert not number or one.dtype == inputs[number - 1].dtype
            assert (one.double() - other).abs().max() < tolerance * other.abs().max()


def test_gradient_in_any_layout_is_taken():
    maps, gate = draw_maps(2, (3, 4, 6, 5)), make_gate(4)
    gradient = torch.randn(3, 4, 5, 6, dtype=torch.float64).transpose(2, 3)
    own, written = (torch.autograd.grad(y, maps, gradient) for y in (gated_sum(gate, maps), sum(gate(x) for x in maps)))
    torch.testing.assert_close(own, written, rtol=1e-11, atol=1e-12)


def test_without_gradients_one_map_after_the_other_is_taken():
    """So that no more of them live at a time."""
    taken = []

    def compute():
        for number, x in enumerate(draw_maps(3, (2, 4, 3, 2))):
            taken.append(number)
            yield x.detach()

    class Watched(ChannelGate):
        def forward(self, x):
            assert len(taken) == len(seen) + 1
            seen.append(1)
            return super().forward(x)

    seen = []
    with torch.no_grad():
        gated_sum(Watched(4, 2).double(), compute())
    assert len(seen) == 3


def test_same_values_when_compiled_away(monkeypatch):
    """A compiler and an exporter get the plain operations."""
    maps, gate, weights = draw_maps(3, (2, 4, 6, 3)), make_gate(4), draw_weights(3)
    own = gated_sum(gate, maps), weighted_sum(weights, maps)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for compiled, expected in zip((gated_sum(gate, maps), weighted_sum(weights, maps)), own, strict=True):
        assert "GatedSum" not in compiled.grad_fn.name()
        torch.testing.assert_close(compiled, expected, rtol=1e-12, atol=1e-12)
