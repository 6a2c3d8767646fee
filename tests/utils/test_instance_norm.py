"""Instance normalisation against its definition, in every layout and type, forward and backward."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from utils.instance_norm import instance_norm

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def define(x, weight, bias, eps=1e-5):
    """The definition, word for word."""
    mean = x.mean(dim=(2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=(2, 3), keepdim=True)
    y = (x - mean) / (variance + eps).sqrt()
    return y if weight is None else y * weight[:, None, None] + bias[:, None, None]


def make(shape, layout="channels_last", affine=False, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = (3 * torch.randn(shape, generator=generator, dtype=torch.float64) + 1).to(dtype)
    x = x.contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
    scale = [torch.randn(shape[1], generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for _ in "wb"]
    return x, *(scale if affine else (None, None))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 5), st.integers(1, 5)),
    affine=st.booleans(),
    layout=st.sampled_from(sorted(LAYOUTS)),
    chunk=st.sampled_from([1, 40, 2**18]),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_the_definition(shape, affine, layout, chunk, seed):
    assume(shape[0] * shape[2] * shape[3] > 1)  # a single number is refused by PyTorch's norms
    inputs = make(shape, layout, affine, seed=seed)
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.layout.CHUNK", chunk)
        results = [f(*inputs) for f in (instance_norm, define)]
        learning = [t for t in inputs if t is not None]
        gradients = [torch.autograd.grad(y, learning, gradient) for y in results]
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
    for own, defined in zip(*gradients, strict=True):
        torch.testing.assert_close(own, defined, rtol=1e-11, atol=1e-11 * float(defined.abs().max().clamp(min=1)))


@pytest.mark.parametrize("affine", [False, True])
def test_gradient_is_the_slope(affine):
    inputs = make((2, 3, 3, 2), affine=affine)
    assert torch.autograd.gradcheck(lambda *t: instance_norm(*t) if affine else instance_norm(t[0]),
                                    [t for t in inputs if t is not None])  # fmt: skip


def test_second_derivative_is_refused():
    x, *_ = make((2, 3, 4, 2))
    (first,) = torch.autograd.grad(instance_norm(x).pow(3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_layout_and_type_stay_and_statistics_are_those_of_float32(layout, dtype, affine):
    x, weight, bias = make((2, 8, 32, 16), layout, affine, dtype)
    weight, bias = (t if t is None else t.detach().float().requires_grad_() for t in (weight, bias))
    with torch.no_grad():
        x += 50  # with statistics in 16 bits nothing would be left
    y = instance_norm(x, weight, bias)
    y.backward(torch.ones_like(y).to(memory_format=torch.contiguous_format))
    for tensor in (y, x.grad):
        assert tensor.dtype == dtype
        assert tensor.is_contiguous(memory_format=LAYOUTS[layout])
    exact = define(x.detach().double(), *(t if t is None else t.detach().double() for t in (weight, bias)))
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 3e-3}[dtype]
    assert (y.double() - exact).abs().max() < tolerance * exact.abs().max()
    assert weight is None or weight.grad.dtype == torch.float32


def test_gradient_in_any_layout_is_taken():
    x, *_ = make((3, 4, 6, 5))
    gradient = torch.randn(3, 4, 5, 6, dtype=torch.float64).transpose(2, 3)
    own, defined = (torch.autograd.grad(f(x, None, None), x, gradient)[0] for f in (instance_norm, define))
    torch.testing.assert_close(own, defined, rtol=1e-11, atol=1e-11)


def test_memory_for_the_gradient_is_one_map():
    x, *_ = make((4, 8, 16, 8), dtype=torch.float32)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.nelement()) or t, lambda t: t):
        instance_norm(x * 1.0)
    assert sum(saved) <= 1.1 * x.nelement() + x.nelement()  # the product's factor, and the normalised map


def test_same_values_when_compiled_away():
    """A compiler and an exporter get the plain operation."""
    x, weight, bias = make((2, 4, 6, 3), affine=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        compiled = instance_norm(x, weight, bias)
    torch.testing.assert_close(compiled, instance_norm(x, weight, bias), rtol=1e-12, atol=1e-12)
