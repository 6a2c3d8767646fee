"""The super-network, the draw of path weights and the derivation of a genotype."""

import itertools
import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genotype import CANDIDATE_NAMES, Genotype
from osnet_blocks import CANDIDATES
from osnet_child import build_child
from osnet_nas import (
    NUM_BLOCKS,
    NUM_CANDIDATES,
    MixedBlock,
    SuperNet,
    build_supernet,
    sample_path_weights,
)
from search.paths import GumbelSoftmax
from utils.errors import UserError


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_images(batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, 64, 32, dtype=torch.float64, generator=seeded(seed))


def one_hot(genotype: Genotype) -> Tensor:
    return F.one_hot(torch.tensor(genotype.indices), NUM_CANDIDATES).double()


def randomise_statistics(model: nn.Module) -> None:
    """Gives the running statistics values of their own, so that a mix-up shows."""
    generator = seeded(5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)


@pytest.fixture(scope="module")
def full_supernet() -> SuperNet:
    """At width 1.0 in float64."""
    torch.manual_seed(0)
    model = build_supernet(5).double()
    randomise_statistics(model)
    return model


# ---- path weights


def test_path_weights_follow_the_papers_formula() -> None:
    alphas = torch.tensor([[0.5, 2.0, 1.0, 0.1]], dtype=torch.float64)
    uniform = torch.tensor([[0.2, 0.7, 0.4, 0.9]], dtype=torch.float64)
    z = [torch.log(a + 1e-12) - torch.log(-torch.log(u + 1e-12)) for a, u in zip(alphas[0], uniform[0], strict=True)]
    powers = torch.stack([torch.exp(value / 2.5) for value in z])
    weights = sample_path_weights(alphas, 2.5, uniform=uniform)
    torch.testing.assert_close(weights[0], powers / powers.sum(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("temperature", [1e-3, 1.0, 10.0, 1e6])
def test_rows_are_distributions(temperature: float) -> None:
    generator = seeded(1)
    for alphas in (torch.ones(6, 4), torch.rand(6, 4, generator=generator), torch.randn(6, 4, generator=generator)):
        for _ in range(50):
            weights = sample_path_weights(alphas, temperature, generator)
            assert weights.shape == (6, 4)
            assert torch.isfinite(weights).all() and (weights >= 0).all()
            torch.testing.assert_close(weights.sum(1), torch.ones(6), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        sample_path_weights(torch.ones(6, 4), temperature)


@pytest.mark.parametrize("extreme", [0.0, 1.0 - 2**-24])
@pytest.mark.parametrize("temperature", [0.1, 10.0])
def test_extreme_noise_stays_finite(extreme: float, temperature: float) -> None:
    """The ends of what torch.rand gives in float32."""
    alphas = torch.ones(6, 4, requires_grad=True)
    uniform = torch.full((6, 4), 0.5)
    uniform[:, 0] = extreme
    weights = sample_path_weights(alphas, temperature, uniform=uniform)
    weights[:, 1].sum().backward()
    assert torch.isfinite(weights).all()
    assert alphas.grad is not None and torch.isfinite(alphas.grad).all()


def test_argmax_follows_the_probabilities() -> None:
    """Gumbel-max: P(candidate k is the largest) = relu(α_k) / Σ relu(α), whatever the temperature; χ² over 20,000."""
    alphas = torch.tensor([1.0, 2.0, 0.5, 4.0])
    expected = alphas / alphas.sum()
    count = 20_000
    for temperature in (0.05, 5.0):
        weights = sample_path_weights(alphas.repeat(count, 1), temperature, seeded(2))
        seen = torch.bincount(weights.argmax(1), minlength=4)
        chi_square = ((seen - count * expected) ** 2 / (count * expected)).sum()
        assert chi_square < 16.3  # three degrees of freedom, p = 0.001


def test_candidates_without_probability_are_never_drawn() -> None:
    alphas = torch.tensor([1.0, 0.0, -3.0, 1.0]).repeat(5000, 1)
    seen = torch.bincount(sample_path_weights(alphas, 0.1, seeded(3)).argmax(1), minlength=4)
    assert seen[1] == seen[2] == 0
    assert seen[0] > 2000 and seen[3] > 2000


def test_limits_of_the_temperature() -> None:
    alphas = torch.rand(6, 4, dtype=torch.float64, generator=seeded(4)) + 0.1
    uniform = torch.rand(6, 4, dtype=torch.float64, generator=seeded(5))
    hot = sample_path_weights(alphas, 1e9, uniform=uniform)
    torch.testing.assert_close(hot, torch.full((6, 4), 0.25, dtype=torch.float64), rtol=0, atol=1e-7)
    cold = sample_path_weights(alphas, 1e-4, uniform=uniform)
    winners = (torch.log(alphas) - torch.log(-torch.log(uniform))).argmax(1)
    torch.testing.assert_close(cold, F.one_hot(winners, 4).double(), rtol=0, atol=1e-9)


def test_path_weights_are_differentiable_in_the_alphas() -> None:
    alphas = (torch.rand(6, 4, dtype=torch.float64, generator=seeded(6)) + 0.2).requires_grad_()
    uniform = torch.rand(6, 4, dtype=torch.float64, generator=seeded(7))
    assert torch.autograd.gradcheck(lambda a: sample_path_weights(a, 0.7, uniform=uniform), (alphas,))


def test_draws_are_the_generators() -> None:
    alphas = torch.ones(6, 4)
    first, second = (sample_path_weights(alphas, 1.0, seeded(8)) for _ in range(2))
    assert torch.equal(first, second)
    generator = seeded(8)
    drawn = [sample_path_weights(alphas, 1.0, generator) for _ in range(2)]
    assert torch.equal(drawn[0], first)
    assert not torch.equal(drawn[1], first)
    uniform = torch.rand(6, 4, generator=seeded(8))
    assert torch.equal(sample_path_weights(alphas, 1.0, uniform=uniform), first)
    torch.manual_seed(9)
    expected = sample_path_weights(alphas, 1.0)
    torch.manual_seed(9)
    assert torch.equal(sample_path_weights(alphas, 1.0), expected)


def test_probabilities_and_argmax() -> None:
    alphas = torch.tensor([[1.0, 3.0, 0.0, -2.0], [-1.0, 0.0, -5.0, -2.0], [0.5, 0.5, 0.5, 0.5]], requires_grad=True)
    probabilities = GumbelSoftmax().probabilities(alphas)
    expected = torch.tensor([[0.25, 0.75, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]])
    torch.testing.assert_close(probabilities, expected, rtol=1e-6, atol=1e-9)
    assert not probabilities.requires_grad
    weights = GumbelSoftmax().most_probable(alphas)
    assert weights.tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    assert weights.dtype == alphas.dtype and not weights.requires_grad
    assert GumbelSoftmax().most_probable(alphas.double()).dtype == torch.float64


# ---- the mixed block


def test_mixed_block_is_the_weighted_sum() -> None:
    torch.manual_seed(0)
    block = MixedBlock(32, 64).double()
    x = torch.randn(2, 32, 8, 6, dtype=torch.float64)
    outputs = torch.stack([candidate(x) for candidate in block.candidates])
    weights = torch.tensor([0.1, 0.6, 0.05, 0.25], dtype=torch.float64)
    torch.testing.assert_close(
        block(x, weights), torch.einsum("k,knchw->nchw", weights, outputs), rtol=1e-10, atol=1e-10
    )


def test_mixed_block_has_the_candidates_in_the_tables_order() -> None:
    placements = [candidate.placement for candidate in MixedBlock(16, 64).candidates]
    assert placements == list(CANDIDATES.values())


# ---- the super-network


@pytest.mark.parametrize(("width", "count"), [(1.0, 6_878_329), (0.25, 492_210 + 1031 * 513)])
def test_parameter_counts(width: float, count: int) -> None:
    assert sum(p.numel() for p in build_supernet(1041, width).parameters()) == count


def test_alphas_are_one_tensor_of_ones_in_the_state() -> None:
    model = build_supernet(3, width=0.25)
    assert model.alphas.shape == (NUM_BLOCKS, NUM_CANDIDATES) == (6, 4)
    assert model.alphas.dtype == torch.float32
    assert (model.alphas == 1).all()
    assert "alphas" in model.state_dict()
    assert "alphas" in dict(model.named_parameters())


def test_no_norm_has_scale_or_shift() -> None:
    names = [name for name, _ in build_supernet(3, width=0.25).named_parameters()]
    assert not [name for name in names if "norm" in name or name.startswith("fc.1.")]


def test_alphas_act_through_the_path_weights_alone() -> None:
    model = build_supernet(3, width=0.25).eval()
    images, path_weights = draw_images().float(), sample_path_weights(model.alphas, 1.0, seeded(0)).detach()
    first = model(images, path_weights)
    with torch.no_grad():
        model.alphas.fill_(9.0)
    assert torch.equal(model(images, path_weights), first)


def test_replica_row_of_data_parallel() -> None:
    """Scatter hands each replica one row of (replicas, 6, 4)."""
    model = build_supernet(3, width=0.25).eval()
    images, rows = draw_images().float(), torch.rand(2, 6, 4, generator=seeded(0))
    for row in rows.split(1):
        assert row.shape == (1, 6, 4)
        torch.testing.assert_close(model(images, row), model(images, row[0]), rtol=0, atol=0)
    with pytest.raises(RuntimeError):
        model(images, rows)


def test_triplet_loss_takes_logits_and_features() -> None:
    softmax, triplet = build_supernet(4, width=0.25), build_supernet(4, width=0.25, loss="triplet")
    triplet.load_state_dict(softmax.state_dict())
    images, path_weights = draw_images(batch=3).float(), torch.full((6, 4), 0.25)
    logits, features = triplet.train()(images, path_weights)
    torch.testing.assert_close(logits, softmax.train()(images, path_weights))
    torch.testing.assert_close(triplet.classifier.forward(features), logits)
    torch.testing.assert_close(triplet.eval()(images, path_weights), softmax.eval()(images, path_weights))


@pytest.mark.parametrize(
    ("arguments", "words"), [({"width": 2.0}, "width 2.0: allowed"), ({"loss": "center"}, "loss 'center': allowed")]
)
def test_mistakes_are_told(arguments: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_supernet(3, **arguments)


def test_path_of_weight_zero_gets_no_gradient_but_its_statistics_move() -> None:
    model = build_supernet(5, width=0.25).double().train()
    genotype = Genotype.named("osnet_ain")
    model(draw_images(batch=4), one_hot(genotype)).sum().backward()
    for row, block in enumerate(model.blocks):
        for k, candidate in enumerate(block.get_submodule("candidates").children()):
            moved = max(float(p.grad.abs().max()) for p in candidate.parameters() if p.grad is not None)
            assert (moved > 0) == (k == genotype.indices[row])
            statistics = candidate.get_buffer("reduce.norm.running_mean")
            assert statistics.abs().max() > 0


def test_gradient_of_a_mixture_by_finite_differences() -> None:
    """Weights, path weights and alphas of the whole network against central differences in float64."""
    torch.manual_seed(1)
    model = build_supernet(3, width=0.25).double().eval()
    randomise_statistics(model)
    images, labels = draw_images(batch=2)[:, :, :32, :16], torch.tensor([0, 2])
    uniform = torch.rand(6, 4, dtype=torch.float64, generator=seeded(2))

    def compute_loss() -> Tensor:
        path_weights = sample_path_weights(model.alphas, 2.0, uniform=uniform)
        features = model(images, path_weights)
        return F.cross_entropy(model.classifier(features), labels)

    compute_loss().backward()
    names = ["alphas", "classifier.weight", "fc.0.weight", "conv1.conv.weight", "pool3.conv.weight"]
    names += [f"conv{s}.{i}.candidates.{k}.expand.weight" for s, i, k in ((2, 0, 0), (2, 1, 1), (3, 0, 2), (4, 1, 3))]
    names += ["conv3.1.candidates.1.streams.3.2.depthwise.weight", "conv4.0.candidates.2.gate.fc2.bias"]
    step = 1e-6
    for name in names:
        parameter = model.get_parameter(name)
        assert parameter.grad is not None
        index = int(parameter.grad.abs().argmax())
        values = parameter.data.view(-1)
        losses = []
        for sign in (1, -1):
            values[index] += sign * step
            with torch.no_grad():
                losses.append(compute_loss().item())
            values[index] -= sign * step
        expected = (losses[0] - losses[1]) / (2 * step)
        assert parameter.grad.view(-1)[index].item() == pytest.approx(expected, rel=1e-5, abs=1e-9), name


# ---- derivation


def test_derive_takes_the_most_probable() -> None:
    model = build_supernet(3, width=0.25)
    rng = random.Random(0)
    for _ in range(20):
        chosen = [rng.randrange(4) for _ in range(6)]
        alphas = torch.rand(6, 4, generator=seeded(rng.randrange(999)))
        alphas[range(6), chosen] = 1.5
        model.alphas.data.copy_(alphas)
        assert model.derive().indices == tuple(chosen)
        assert GumbelSoftmax().most_probable(model.alphas).argmax(1).tolist() == chosen


def test_derive_takes_the_first_of_equals() -> None:
    model = build_supernet(3, width=0.25)
    assert model.derive() == Genotype.named("osnet")


def test_derived_and_argmax_agree_where_alphas_are_dead() -> None:
    """All α ≤ 0 are equally improbable; what evaluation runs and what is printed must still be the same network."""
    model = build_supernet(3, width=0.25)
    model.alphas.data.copy_(torch.tensor([-1.0, -0.5, -3.0, -0.1]).repeat(6, 1))
    assert list(model.derive().indices) == GumbelSoftmax().most_probable(model.alphas).argmax(1).tolist()


GENOTYPES = [
    Genotype.named("osnet_ibn"),
    Genotype.from_blocks(["OSBlockINv3", "OSBlockINv2", "OSBlockINv1", "OSBlock", "OSBlockINv3", "OSBlockINv2"]),
    Genotype.from_blocks(["OSBlock", "OSBlockINv3", "OSBlockINv2", "OSBlockINv3", "OSBlockINv2", "OSBlockINv1"]),
]


@pytest.mark.parametrize("genotype", GENOTYPES, ids=["ibn", "mixed", "mixed2"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_child_equals_the_supernets_path(full_supernet: SuperNet, genotype: Genotype, training: bool) -> None:
    """At width 1.0: outputs, gradients and updated statistics of a one-hot path and of the child with its weights."""
    start = {name: tensor.clone() for name, tensor in full_supernet.state_dict().items()}
    child = build_child(5, genotype).double()
    child.load_state_dict(full_supernet.child_state(genotype))
    images = draw_images(batch=3)
    full_supernet.train(training).zero_grad()
    outputs = full_supernet(images, one_hot(genotype)), child.train(training)(images)
    assert outputs[1].abs().max() > 0
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-9, atol=1e-9)
    if training:
        upstream = torch.randn(outputs[0].shape, dtype=torch.float64, generator=seeded(3))
        for output in outputs:
            output.backward(upstream)
        gradients = [model.conv1.conv.weight.grad for model in (full_supernet, child)]
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-8)
        moved, expected = child.state_dict(), full_supernet.child_state(genotype)
        torch.testing.assert_close(dict(moved), expected, rtol=1e-9, atol=1e-9, check_dtype=False)
    full_supernet.load_state_dict(start)


def test_child_state_holds_every_tensor_of_the_child(full_supernet: SuperNet) -> None:
    for name in CANDIDATE_NAMES:
        genotype = Genotype.from_blocks([name] * 6)
        state, child = full_supernet.child_state(genotype), build_child(5, genotype).state_dict()
        assert state.keys() == child.keys()
        assert all(state[key].shape == child[key].shape for key in child)


def test_child_state_of_a_network_with_shared_statistics() -> None:
    """``train.sync_bn`` replaces the norms of the network in training."""
    supernet = build_supernet(5, 0.25)
    expected = supernet.child_state(Genotype.named("osnet_ain"))
    state = nn.SyncBatchNorm.convert_sync_batchnorm(supernet).child_state(Genotype.named("osnet_ain"))
    assert state.keys() == expected.keys()
    build_child(5, Genotype.named("osnet_ain"), 0.25).load_state_dict(state)


def test_child_state_is_a_copy() -> None:
    model = build_supernet(3, width=0.25)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for tensor in model.child_state(Genotype.named("osnet_ain")).values():
        tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_paths_differ() -> None:
    """The four candidates are not the same function, so a mix-up of the order would show."""
    model = build_supernet(3, width=0.25).double().eval()
    randomise_statistics(model)
    with torch.no_grad():
        features = [model(draw_images(), one_hot(Genotype.from_blocks([name] * 6))) for name in CANDIDATE_NAMES]
    for first, second in itertools.combinations(features, 2):
        assert (first - second).abs().max() > 1e-3
