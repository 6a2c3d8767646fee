"""Networks on a GPU: numbers against the CPU's, layout, compilation, DataParallel."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from genotype import Genotype
from osnet_child import build_child
from osnet_nas import build_supernet
from utils.distributed import Runtime

AIN = Genotype.named("osnet_ain")


def make(kind, width=0.25):
    torch.manual_seed(0)
    if kind == "child":
        return build_child(10, AIN, width), ()
    return build_supernet(10, width, candidates=kind), (torch.full((6, 4), 0.25),)


def draw(batch=8, height=128, width=64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, height, width, generator=generator), torch.arange(batch) % 10


def run_step(model, arguments, images, labels):
    model.zero_grad()
    loss = F.cross_entropy(model(images, *arguments), labels)
    loss.backward()
    return loss.detach(), {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["child", "separate", "shared"])
def test_loss_and_gradients_are_the_cpu_s_in_float64(device, kind):
    images, labels = draw()
    results = []
    for where in ("cpu", device):
        model, arguments = make(kind)
        model.double().to(where, memory_format=torch.channels_last)
        inputs = images.double().to(where, memory_format=torch.channels_last)
        results.append(run_step(model, [a.double().to(where) for a in arguments], inputs, labels.to(where)))
    (loss, gradients), (loss_there, gradients_there) = results
    assert loss_there.item() == pytest.approx(loss.item(), rel=1e-10)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_there[name].cpu(), gradient, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", ["child", "separate", "shared"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_channels_last_is_kept_through_the_whole_network(device, kind, dtype):
    model, arguments = make(kind)
    model.to(device, memory_format=torch.channels_last)
    wrong = []

    def look(name):
        def hook(module, inputs, output):
            is_map = isinstance(output, torch.Tensor) and output.dim() == 4 and min(output.shape[1:]) > 1
            if is_map and not output.is_contiguous(memory_format=torch.channels_last):
                wrong.append(name)

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(look(name))
    images, labels = draw()
    with torch.autocast("cuda", dtype, enabled=dtype is not None):
        loss = F.cross_entropy(
            model(images.to(device, memory_format=torch.channels_last), *(a.to(device) for a in arguments)),
            labels.to(device),
        )
    loss.backward()
    assert wrong == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_in_mixed_precision_follow_those_of_float32(device, dtype):
    images, labels = (t.to(device) for t in draw(32))
    curves = []
    for autocast in (None, dtype):
        model, _ = make("child")
        model.to(device, memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        scaler = torch.amp.GradScaler("cuda", enabled=autocast is torch.float16)
        losses = []
        for _ in range(100):
            with torch.autocast("cuda", autocast, enabled=autocast is not None):
                output = model(images.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(output.float(), labels)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
        curves.append(torch.tensor(losses))
    assert torch.isfinite(curves[1]).all()
    assert (curves[1] - curves[0]).abs().mean() < 0.1 * curves[0].mean()
    assert curves[1][-10:].mean() < 0.5 * curves[1][0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["child", "separate"])
def test_compiled_network_computes_the_same(device, kind):
    model, arguments = make(kind)
    model.to(device, memory_format=torch.channels_last).eval()
    images = draw()[0].to(device, memory_format=torch.channels_last)
    arguments = [a.to(device) for a in arguments]
    with torch.no_grad():
        plain, compiled = model(images, *arguments), torch.compile(model)(images, *arguments)
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_data_parallel_trains_as_one_device_does_on_each_half(device):
    """Gradients are those of two halves, each normalised by itself; running statistics are the first half's."""
    images, labels = (t.to(device) for t in draw(16))
    model, _ = make("child")
    model.to(device).train()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrapped = Runtime(device, replicas=2).wrap(model)
    assert isinstance(wrapped, nn.DataParallel)
    F.cross_entropy(wrapped(images), labels).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    statistics = model.get_buffer("conv5.norm.running_mean").clone()
    model.load_state_dict(start)
    model.zero_grad()
    expected = []
    for part, own in zip(images.chunk(2), labels.chunk(2), strict=True):
        (F.cross_entropy(model(part), own) / 2).backward()
        expected.append(model.get_buffer("conv5.norm.running_mean").clone())
    torch.testing.assert_close(statistics, expected[0], rtol=1e-4, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-4)
