"""What every network must do, child or super-network, of every kind and width: one suite for all."""

import io
import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genotype import CANDIDATE_NAMES, NAMED_STEM_NORMS, Genotype
from osnet_blocks import FEATURE_DIM, WIDTHS
from osnet_child import build_child
from osnet_nas import build_supernet
from search.paths import sample_path_weights

NUM_CLASSES = 5


class Case(NamedTuple):
    """A network and what it takes beside the images."""

    build: Callable[[], nn.Module]
    arguments: Callable[[nn.Module], tuple[Tensor, ...]] = lambda model: ()


def child(genotype: Genotype, width: float = 0.25, stem_norm: str = "instance") -> Case:
    return Case(lambda: build_child(NUM_CLASSES, genotype, width, stem_norm))


def draw_weights(model: nn.Module) -> tuple[Tensor]:
    alphas = model.get_parameter("alphas")
    return (sample_path_weights(alphas, 5.0, torch.Generator().manual_seed(1)),)


def supernet(width: float = 0.25, candidates: str = "separate") -> Case:
    return Case(lambda: build_supernet(NUM_CLASSES, width, candidates=candidates), draw_weights)


def list_cases() -> dict[str, Case]:
    cases = {name: child(Genotype.named(name), stem_norm=norm) for name, norm in NAMED_STEM_NORMS.items()}
    cases |= {f"{name} throughout": child(Genotype.from_blocks([name] * 6)) for name in CANDIDATE_NAMES}
    drawn = random.Random(0)
    for _ in range(3):
        digits = "".join(drawn.choices("0123", k=6))
        cases[f"random {digits}"] = child(Genotype.from_digits(digits))
    for width in WIDTHS:
        cases[f"osnet_ain x{width:g}"] = child(Genotype.named("osnet_ain"), width)
        cases[f"shared super-network x{width:g}"] = supernet(width, candidates="shared")
    for width in (min(WIDTHS), max(WIDTHS)):
        cases[f"separate super-network x{width:g}"] = supernet(width)
    return cases


CASES = list_cases()
every_network = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def build(case: Case, *, wake_gates: bool = False) -> nn.Module:
    """Builds a network from a fixed seed, in float64.

    ``wake_gates`` makes gates' hidden units positive: narrow gates have one or two, and a dead one stops gradients.
    """
    torch.manual_seed(0)
    model = case.build().double()
    for name, parameter in model.named_parameters():
        if wake_gates and name.endswith("gate.fc1.weight"):
            parameter.data.abs_()
    return model


def draw_images(batch: int = 3, height: int = 64, width: int = 32) -> Tensor:
    return torch.randn(batch, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@every_network
@pytest.mark.parametrize("size", [(64, 32), (51, 37)])
def test_shapes_and_no_nan(case, size):
    model, images = build(case), draw_images(2, *size)
    with torch.no_grad():
        logits = model.train()(images, *case.arguments(model))
        features = model.eval()(images, *case.arguments(model))
    assert logits.shape == (2, NUM_CLASSES)
    assert features.shape == (2, FEATURE_DIM)
    assert torch.isfinite(logits).all()
    assert torch.isfinite(features).all()
    assert (features >= 0).all()


@every_network
def test_a_gradient_in_every_parameter(case):
    model = build(case, wake_gates=True).train()
    F.cross_entropy(model(draw_images(8), *case.arguments(model)), torch.arange(8) % NUM_CLASSES).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@every_network
def test_channels_last_is_kept_and_changes_no_number(case):
    model, images = build(case), draw_images()
    contiguous = model.eval()(images, *case.arguments(model))
    model.to(memory_format=torch.channels_last)
    wrong = []

    def look(name):
        def hook(module, inputs, output):
            is_map = isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[1:]) > 1
            if is_map and not output.is_contiguous(memory_format=torch.channels_last):
                wrong.append(name)

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(look(name))
    inputs = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(inputs, *case.arguments(model)), contiguous, rtol=1e-9, atol=1e-9)
    assert wrong == []


@every_network
def test_state_dict_goes_through_a_file(case):
    model, images = build(case), draw_images()
    model.train()(images, *case.arguments(model))  # running statistics that are not the first ones
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    torch.manual_seed(1)
    other = case.build().double()
    other.load_state_dict(torch.load(file, weights_only=True))
    arguments = case.arguments(model)
    assert torch.equal(model.eval()(images, *arguments), other.eval()(images, *arguments))


@every_network
def test_evaluation_is_deterministic_and_judges_each_image_alone(case):
    model, images = build(case).eval(), draw_images()
    arguments = case.arguments(model)
    state, before = torch.get_rng_state(), {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        features = model(images, *arguments)
        assert torch.equal(model(images, *arguments), features)
        torch.testing.assert_close(model(images[1:2], *arguments), features[1:2], rtol=1e-9, atol=1e-9)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


@every_network
def test_same_seed_gives_the_same_network(case):
    first, second = build(case).state_dict(), build(case).state_dict()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@every_network
def test_segments_in_a_row_are_the_network(case):
    model, images = build(case).eval(), draw_images()
    choices = [(row,) for row in case.arguments(model)[0]] if case.arguments(model) else [()] * 6
    x = model.stem(images)
    for segment, choice in zip(model.segments, choices, strict=True):
        x = segment(x, *choice)
    assert torch.equal(model.head(x), model(images, *case.arguments(model)))


@pytest.mark.parametrize("name", ["osnet_ain", "separate super-network x0.25", "shared super-network x0.25"])
@pytest.mark.parametrize("size", [(32, 16), (16, 16)])
def test_smallest_inputs(name, size):
    model, images = build(CASES[name]), draw_images(2, *size)
    with torch.no_grad():
        assert model.train()(images, *CASES[name].arguments(model)).shape == (2, NUM_CLASSES)
        assert torch.isfinite(model.eval()(images, *CASES[name].arguments(model))).all()
