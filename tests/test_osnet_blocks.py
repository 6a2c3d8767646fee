"""The layers and blocks that both networks are made of."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osnet_blocks import CANDIDATES, WIDTHS, ChannelGate, ConvNormReLU, InstanceNorm, LightConv, OSBlock, make_norm
from utils.errors import UserError


def draw(*shape: int, seed: int = 0, requires_grad: bool = False) -> Tensor:
    tensor = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return tensor.requires_grad_(requires_grad)


def randomise(model: nn.Module, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5)


def normalise(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """To mean 0 and variance 1 over the axes, written out."""
    centred = x - x.mean(axes, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(axes, keepdim=True) + 1e-5)


# ---- instance norm


def test_instance_norm_is_the_same_in_training_and_evaluation_and_keeps_no_statistics() -> None:
    norm = InstanceNorm(3)
    x = draw(2, 3, 4, 4).float()
    assert torch.equal(norm.train()(x), norm.eval()(x))
    assert not list(norm.buffers())
    assert not list(InstanceNorm(3, affine=False).state_dict())


def test_instance_norm_judges_each_image_alone() -> None:
    norm, x = InstanceNorm(4).double(), draw(3, 4, 5, 5)
    torch.testing.assert_close(norm(x)[1:2], norm(x[1:2]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm(x * 5 + 3), norm(x), rtol=1e-4, atol=1e-4)  # blind to contrast and brightness


def test_make_norm() -> None:
    assert isinstance(make_norm("batch", 4, True), nn.BatchNorm2d)
    assert isinstance(make_norm("instance", 4, True), InstanceNorm)
    assert not list(make_norm("batch", 4, affine=False).parameters())
    with pytest.raises(UserError, match="norm 'group': allowed are batch, instance"):
        make_norm("group", 4, True)


# ---- small layers


def test_conv_norm_relu_is_its_equation() -> None:
    layer = ConvNormReLU(3, 5, kernel=7, stride=2).double()
    x = draw(2, 3, 12, 10)
    expected = F.relu(normalise(F.conv2d(x, layer.conv.weight, stride=2, padding=3), (0, 2, 3)))
    torch.testing.assert_close(layer(x), expected, rtol=1e-10, atol=1e-10)


def test_light_conv_is_pointwise_then_depthwise() -> None:
    layer = LightConv(4, 6, affine=False).double()
    x = draw(2, 4, 5, 5)
    y = torch.einsum("oi,nihw->nohw", layer.pointwise.weight[:, :, 0, 0], x)
    depthwise = torch.cat(
        [F.conv2d(y[:, c : c + 1], layer.depthwise.weight[c : c + 1], padding=1) for c in range(6)], 1
    )
    torch.testing.assert_close(layer(x), F.relu(normalise(depthwise, (0, 2, 3))), rtol=1e-10, atol=1e-10)


def test_channel_gate_is_its_equation() -> None:
    gate = ChannelGate(32).double()
    randomise(gate)
    x = draw(2, 32, 4, 3)
    pooled = x.mean((2, 3))
    weights = {name: p.flatten(1) if p.ndim == 4 else p for name, p in gate.named_parameters()}
    hidden = F.relu(pooled @ weights["fc1.weight"].T + weights["fc1.bias"])
    scale = 1 / (1 + torch.exp(-(hidden @ weights["fc2.weight"].T + weights["fc2.bias"])))
    assert gate.fc1.weight.shape == (2, 32, 1, 1)
    torch.testing.assert_close(gate(x), x * scale[:, :, None, None], rtol=1e-12, atol=1e-12)


# ---- the omni-scale block


def run_by_hand(block: OSBlock, x: Tensor, inside: bool, outside: bool) -> Tensor:
    """The block's equation in training mode, without scale and shift, from its convolutions and its gate."""
    weights = dict(block.named_parameters())

    def conv(name: str, y: Tensor, groups: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        return F.conv2d(y, weight, padding=weight.shape[-1] // 2, groups=groups)

    batch_axes, image_axes = (0, 2, 3), (2, 3)
    y = F.relu(normalise(conv("reduce.conv", x), batch_axes))
    total = torch.zeros_like(y)
    for t in range(4):
        stream = y
        for depth in range(t + 1):
            name = f"streams.{t}.{depth}"
            stream = conv(f"{name}.depthwise", conv(f"{name}.pointwise", stream), groups=y.shape[1])
            stream = F.relu(normalise(stream, batch_axes))
        total = total + block.gate(stream)
    residual = normalise(conv("expand", total), image_axes if inside else batch_axes)
    identity = normalise(conv("downsample.0", x), batch_axes) if "downsample.0.weight" in weights else x
    output = residual + identity
    return F.relu(normalise(output, image_axes) if outside else output)


@pytest.mark.parametrize("channels", [(64, 64), (32, 64)], ids=["identity", "downsample"])
@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [("OSBlock", 0, 0), ("OSBlockINv1", 1, 0), ("OSBlockINv2", 0, 1), ("OSBlockINv3", 1, 1)],
)
def test_block_is_its_equation(name: str, inside: int, outside: int, channels: tuple[int, int]) -> None:
    torch.manual_seed(0)
    block = OSBlock(*channels, CANDIDATES[name], affine=False).double().train()
    x = draw(3, channels[0], 8, 6)
    torch.testing.assert_close(block(x), run_by_hand(block, x, bool(inside), bool(outside)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", list(CANDIDATES))
def test_block_has_the_norms_of_its_candidate(name: str) -> None:
    placement = CANDIDATES[name]
    block = OSBlock(64, 64, placement)
    assert isinstance(block.norm_inside, InstanceNorm if placement.inside else nn.BatchNorm2d)
    assert isinstance(block.norm_outside, InstanceNorm if placement.outside else nn.Identity)
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d | InstanceNorm)]
    assert len(norms) == 12 + placement.outside  # reduce, 10 light convs, the inside one


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", list(CANDIDATES))
def test_outside_norm_adds_two_parameters_a_channel(width: float, name: str) -> None:
    stem, channels = WIDTHS[width][:2]
    counts = [
        sum(p.numel() for p in OSBlock(stem, channels, CANDIDATES[candidate]).parameters())
        for candidate in ("OSBlock", name)
    ]
    assert counts[1] - counts[0] == (2 * channels if CANDIDATES[name].outside else 0)


@pytest.mark.parametrize("name", list(CANDIDATES))
@pytest.mark.parametrize("affine", [True, False])
def test_every_parameter_of_a_block_gets_a_gradient(name: str, affine: bool) -> None:
    torch.manual_seed(0)
    block = OSBlock(64, 128, CANDIDATES[name], affine=affine).double()
    block.gate.fc1.weight.data.abs_()  # two hidden units: keep them awake
    (block(draw(3, 64, 8, 6)) * draw(3, 128, 8, 6, seed=1)).sum().backward()
    for parameter_name, parameter in block.named_parameters():
        gradient = parameter.grad
        assert gradient is not None, parameter_name
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", list(CANDIDATES))
def test_block_keeps_channels_last(name: str) -> None:
    block = OSBlock(64, 128, CANDIDATES[name]).double().to(memory_format=torch.channels_last)
    x = draw(2, 64, 8, 6)
    y = block(x.contiguous(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, block.to(memory_format=torch.contiguous_format)(x), rtol=1e-10, atol=1e-10)
