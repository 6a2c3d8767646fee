"""The child network: shapes, counts, initialisation, mistakes."""

import itertools
import random
from pathlib import Path

import pytest
import torch
from torch import nn

import osnet_child
from genotype import CANDIDATE_NAMES, NAMED_STEM_NORMS, Genotype
from osnet_blocks import WIDTHS, ConvNormReLU, InstanceNorm, OSBlock
from osnet_child import GENOTYPE, build_child, fold_batch_norms
from utils.batch_norm import find_batch_norms
from utils.errors import UserError

FEATURE_DIM = 512


def count_parameters(model: nn.Module) -> int:
    """Without the classifier, as the published numbers are counted."""
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith("classifier."))


def draw_images(height: int = 64, width: int = 32, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("width", WIDTHS)
def test_channels_of_every_stage(width: float) -> None:
    model = build_child(5, width=width)
    sizes: list[tuple[int, ...]] = []
    parts = [model.conv1, model.pool2, model.pool3, model.conv5, *model.blocks]
    for part in parts:
        part.register_forward_hook(lambda _module, _inputs, output: sizes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        model.eval()(draw_images(64, 32))
    stem, first, second, third = WIDTHS[width]
    assert sizes == [
        (stem, 32, 16),
        *[(first, 16, 8)] * 3,
        *[(second, 8, 4)] * 3,
        *[(third, 4, 2)] * 3,
    ]
    assert [channels / 4 for channels in WIDTHS[width]] == [width * c / 4 for c in (64, 256, 384, 512)]


@pytest.mark.parametrize(
    ("name", "width", "count"),
    [
        ("osnet", 1.0, 2_169_508),
        ("osnet_ain", 1.0, 2_169_508),
        ("osnet_ibn", 1.0, 2_169_508 + 2 * 2 * 256),
        ("osnet", 0.25, 201_864),
        ("osnet_ain", 0.25, 201_864),
        ("osnet_ibn", 0.25, 201_864 + 2 * 2 * 64),
    ],
)
def test_parameter_counts(name: str, width: float, count: int) -> None:
    model = build_child(751, Genotype.named(name), width, NAMED_STEM_NORMS[name])
    assert count_parameters(model) == count
    assert sum(p.numel() for p in model.classifier.parameters()) == FEATURE_DIM * 751 + 751


def test_each_outside_norm_adds_its_channels_twice() -> None:
    channels = [c for c in WIDTHS[0.25][1:] for _ in (1, 2)]
    rng = random.Random(0)
    for _ in range(6):
        genotype = Genotype.from_blocks(rng.choices(CANDIDATE_NAMES, k=6))
        outside = sum(2 * c for c, name in zip(channels, genotype.blocks, strict=True) if name in CANDIDATE_NAMES[2:])
        assert count_parameters(build_child(2, genotype, width=0.25)) == 201_864 + outside


def test_published_count_has_the_shared_gate_four_times() -> None:
    model = build_child(2, width=1.0)
    gates = [p.numel() for name, p in model.named_parameters() if ".gate." in name]
    assert count_parameters(model) + 3 * sum(gates) == 2_193_616


@pytest.mark.parametrize("stem_norm", ["batch", "instance"])
def test_stem_norm(stem_norm: str) -> None:
    model = build_child(2, width=0.25, stem_norm=stem_norm)
    assert isinstance(model.conv1.norm, {"batch": nn.BatchNorm2d, "instance": InstanceNorm}[stem_norm])
    assert model.stem_norm == stem_norm


def test_default_is_osnet_ain() -> None:
    model = build_child(2)
    assert GENOTYPE == Genotype.named("osnet_ain") == model.genotype
    assert model.stem_norm == "instance"
    assert model.conv1.conv.out_channels == 64


@pytest.mark.parametrize("digits", ["333333", "012301"])
def test_the_line_that_a_search_prints_is_pasted_over_one_line(digits: str) -> None:
    genotype, own = Genotype.from_digits(digits), Path(osnet_child.__file__).read_text().splitlines()
    (number,) = [number for number, line in enumerate(own) if line.startswith("GENOTYPE")]
    pasted: dict[str, object] = {"__name__": "pasted"}
    exec("\n".join([*own[:number], f"GENOTYPE = {genotype!r}", *own[number + 1 :]]), pasted)
    assert pasted["GENOTYPE"] == genotype


def test_blocks_follow_the_genotype() -> None:
    genotype = Genotype.from_blocks(["OSBlockINv3", "OSBlockINv2", "OSBlock", "OSBlockINv1", "OSBlockINv2", "OSBlock"])
    placements = [
        block.placement for block in build_child(2, genotype, width=0.25).blocks if isinstance(block, OSBlock)
    ]
    assert [tuple(p) for p in placements] == [(1, 1), (0, 1), (0, 0), (1, 0), (0, 1), (0, 0)]


def test_triplet_loss_takes_logits_and_features() -> None:
    torch.manual_seed(0)
    softmax, triplet = build_child(4, width=0.25), build_child(4, width=0.25, loss="triplet")
    triplet.load_state_dict(softmax.state_dict())
    images = draw_images(batch=3)
    triplet.train()
    logits, features = triplet(images)
    torch.testing.assert_close(logits, softmax.train()(images))
    torch.testing.assert_close(triplet.classifier.forward(features), logits)
    assert features.shape == (3, FEATURE_DIM)
    torch.testing.assert_close(triplet.eval()(images), softmax.eval()(images))


def test_initialisation() -> None:
    torch.manual_seed(0)
    model = build_child(100, width=1.0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d | InstanceNorm):
            assert module.weight is not None and module.bias is not None
            assert (module.weight == 1).all() and (module.bias == 0).all()
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            assert (module.bias == 0).all()
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            expected = (2 / fan_out) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.06)
    for name in ("classifier.weight", "fc.0.weight"):
        assert model.get_parameter(name).std().item() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"width": 0.3}, "width 0.3: allowed are 1.0, 0.75, 0.5, 0.25"),
        ({"stem_norm": "layer"}, "norm 'layer': allowed are batch, instance"),
        ({"loss": "arcface"}, "loss 'arcface': allowed are softmax, triplet"),
        ({"genotype": Genotype(("OSBlok", "OSBlock"), ("OSBlock",) * 2, ("OSBlock",) * 2)}, "did you mean 'OSBlock'"),
        ({"genotype": Genotype(("OSBlock",), ("OSBlock",) * 2, ("OSBlock",) * 2)}, "conv2 needs two"),  # type: ignore[arg-type]
    ],
)
def test_mistakes_are_told(arguments: dict, words: str) -> None:
    with pytest.raises(UserError) as caught:
        build_child(2, **arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_convolutions_before_a_norm_have_no_bias() -> None:
    layers = [m for m in build_child(2, width=0.25).modules() if isinstance(m, ConvNormReLU)]
    assert len(layers) == 10  # stem, two transitions, conv5, six blocks' first
    assert all(layer.conv.bias is None for layer in layers)


def test_state_dicts_of_genotypes_differ_only_in_the_norms() -> None:
    names = [set(build_child(2, Genotype.from_blocks([c] * 6), 0.25).state_dict()) for c in CANDIDATE_NAMES]
    for first, second in itertools.combinations(names, 2):
        assert all(".norm_inside." in name or ".norm_outside." in name for name in first ^ second)


# all four candidates, so that all places of a norm are there
ALL_FOUR = Genotype(("OSBlockINv3", "OSBlock"), ("OSBlockINv2", "OSBlockINv1"), ("OSBlock", "OSBlockINv1"))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("genotype", "stem_norm"), [(ALL_FOUR, "instance"), (Genotype.named("osnet"), "batch")], ids=["all four", "osnet"]
)
def test_folding_keeps_features_layout_and_type(genotype, stem_norm, layout):
    """Judged in float64; weights folded in float32 are rounded to it once."""
    torch.manual_seed(0)
    child = build_child(5, genotype, 0.25, stem_norm).to(memory_format=layout)
    for norm in find_batch_norms(child):
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.2)
    before = {name: tensor.clone() for name, tensor in child.state_dict().items()}
    folded = fold_batch_norms(child)
    assert not find_batch_norms(folded)
    assert not folded.training
    assert child.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in child.state_dict().items())
    assert folded.conv1.conv.weight.is_contiguous(memory_format=layout)
    assert {p.dtype for p in folded.parameters()} == {torch.float32}
    images = draw_images().double()
    with torch.no_grad():
        features, expected = folded.double()(images), child.double().eval()(images)
        exact = fold_batch_norms(child)(images)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-6 * float(expected.max()))
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-12 * float(expected.max()))


def test_folding_takes_norms_that_share_statistics():
    """As they are after training under torchrun with train.sync_bn."""
    child = build_child(5, width=0.25)
    features = fold_batch_norms(child)(draw_images())
    folded = fold_batch_norms(nn.SyncBatchNorm.convert_sync_batchnorm(child))
    assert not find_batch_norms(folded)
    torch.testing.assert_close(folded(draw_images()), features)
