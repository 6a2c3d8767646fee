"""Shared candidates against separate ones with tied weights, and running one path alone."""

import random

import pytest
import torch
from torch.nn import functional as F

from genotype import BLOCK_PATHS, Genotype
from osnet_child import build_child
from osnet_nas import MixedBlock, SharedMixedBlock, build_supernet, sample_path_weights
from utils.errors import UserError

KINDS = ["separate", "shared"]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def draw_images(batch=3, seed=0):
    return torch.randn(batch, 3, 32, 16, dtype=torch.float64, generator=seeded(seed))


def make_supernet(candidates, num_classes=5):
    torch.manual_seed(0)
    return build_supernet(num_classes, 0.25, candidates=candidates).double()


def make_tied(in_channels, out_channels):
    """A shared block and four separate candidates with its weights and statistics."""
    torch.manual_seed(0)
    shared, separate = (kind(in_channels, out_channels).double() for kind in (SharedMixedBlock, MixedBlock))
    shared.shared.gate.fc1.weight.data.abs_()  # one hidden unit at this width: keep it awake
    for k, candidate in enumerate(separate.candidates):
        state = shared.child_state(k)  # with a scale and shift that the super-network's norms lack
        candidate.load_state_dict({name: state[name] for name in candidate.state_dict()})
    return shared, separate


# ---- one trunk, four tails


@pytest.mark.parametrize("in_channels", [32, 64])
def test_shared_block_is_four_separate_ones_with_tied_weights(in_channels):
    """Outputs, gradients (the sum over the tied ones), statistics after two batches, then evaluation."""
    shared, separate = make_tied(in_channels, 64)
    weights = [torch.rand(4, dtype=torch.float64, generator=seeded(1)).requires_grad_() for _ in range(2)]
    for step in range(2):
        maps = [torch.randn(3, in_channels, 8, 6, dtype=torch.float64, generator=seeded(step)) for _ in range(2)]
        outputs = [block(x.requires_grad_(), w) for block, x, w in zip((shared, separate), maps, weights, strict=True)]
        assert_close(*outputs)
        upstream = torch.randn(outputs[0].shape, dtype=torch.float64, generator=seeded(9))
        for output in outputs:
            output.backward(upstream)
        assert_close(maps[0].grad, maps[1].grad)
    assert_close(weights[0].grad, weights[1].grad)
    for name, parameter in shared.shared.named_parameters():
        tied = [candidate.get_parameter(name).grad for candidate in separate.candidates]
        assert_close(parameter.grad, sum(gradient for gradient in tied if gradient is not None))
        assert parameter.grad is not None and parameter.grad.any(), name
    num_compared = 0
    for candidate in separate.candidates:
        for name, buffer in candidate.named_buffers():
            assert_close(shared.shared.get_buffer(name), buffer)
            num_compared += 1
    assert num_compared > 100
    for block in (shared, separate):
        block.eval()
    assert_close(shared(maps[0], weights[0]), separate(maps[0], weights[0]))


@pytest.mark.parametrize("candidate", range(4))
@pytest.mark.parametrize("training", [True, False])
def test_one_path_of_a_shared_block_is_that_of_a_separate_one(candidate, training):
    shared, separate = make_tied(32, 64)
    x = torch.randn(3, 32, 8, 6, dtype=torch.float64, generator=seeded(1))
    expected = separate.train(training).candidates[candidate](x)
    assert_close(shared.train(training).forward_path(x, candidate), expected)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_child_equals_the_path_of_shared_candidates(training):
    model = make_supernet("shared")
    for images in (draw_images(seed=3), draw_images(seed=4)):  # statistics of their own
        model(images, torch.rand(6, 4, dtype=torch.float64, generator=seeded(5)))
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rng = random.Random(0)
    for _ in range(8):
        genotype = Genotype.from_digits("".join(rng.choice("0123") for _ in range(6)))
        child = build_child(5, genotype, 0.25).double().train(training)
        child.load_state_dict(model.child_state(genotype))
        weights = F.one_hot(torch.tensor(genotype.indices), 4).double()
        outputs = model.train(training)(draw_images(), weights), child(draw_images())
        assert outputs[1].abs().max() > 0
        assert_close(*outputs)
        torch.testing.assert_close(
            dict(child.state_dict()), model.child_state(genotype), rtol=1e-9, atol=1e-9, check_dtype=False
        )
        model.load_state_dict(start)


def test_state_of_a_shared_path_is_a_copy():
    model = make_supernet("shared")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in ("osnet_ain", "osnet_ibn"):
        state = model.child_state(Genotype.named(name))
        assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
        for tensor in state.values():
            tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("candidates", KINDS)
def test_gradients_of_the_alphas_by_finite_differences(candidates):
    """All 24, of the loss's mean over a few draws of the relaxed path weights."""
    model = make_supernet(candidates, num_classes=3).eval()
    model.alphas.data.copy_(torch.rand(6, 4, dtype=torch.float64, generator=seeded(1)) + 0.5)
    images, labels = draw_images(2), torch.tensor([0, 2])
    draws = torch.rand(3, 6, 4, dtype=torch.float64, generator=seeded(2))

    def compute_loss():
        features = [model(images, sample_path_weights(model.alphas, 2.0, uniform=uniform)) for uniform in draws]
        return sum(F.cross_entropy(model.classifier(f), labels) for f in features) / len(draws)

    compute_loss().backward()
    expected = torch.empty(6, 4, dtype=torch.float64)
    step, values = 1e-6, model.alphas.data.view(-1)
    with torch.no_grad():
        for i in range(len(values)):
            losses = []
            for sign in (1, -1):
                values[i] += sign * step
                losses.append(compute_loss().item())
                values[i] -= sign * step
            expected.view(-1)[i] = (losses[0] - losses[1]) / (2 * step)
    assert expected.abs().min() > 0
    torch.testing.assert_close(model.alphas.grad, expected, rtol=1e-5, atol=1e-9)


# ---- one path alone


@pytest.mark.parametrize("candidates", KINDS)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_path_is_what_its_one_hot_weights_give(candidates, training):
    model = make_supernet(candidates).train(training)
    rng = random.Random(1)
    for _ in range(4):
        path = torch.tensor([rng.randrange(4) for _ in range(6)])
        expected = model(draw_images(), F.one_hot(path, 4).double())
        assert_close(model(draw_images(), path), expected)
        assert_close(model(draw_images(), path[None]), expected)


def test_two_replicas_paths_are_a_defect():
    with pytest.raises(RuntimeError):
        make_supernet("separate")(draw_images(), torch.zeros(2, 6, dtype=torch.int64))


@pytest.mark.parametrize("candidates", KINDS)
def test_a_path_uses_what_gets_a_gradient(candidates):
    model = make_supernet(candidates)
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    path = (0, 1, 2, 3, 1, 2)
    F.cross_entropy(model(draw_images(), torch.tensor(path)), torch.tensor([0, 1, 2])).backward()
    for name, parameter in model.named_parameters():
        if name != "alphas":
            assert (parameter.grad is not None) == model.uses(name, path), name
    for block, candidate in zip(BLOCK_PATHS, path, strict=True):
        for name, buffer in model.get_submodule(block).named_buffers():
            if candidates == "separate" and not name.startswith(f"candidates.{candidate}."):
                assert torch.equal(buffer, statistics[f"{block}.{name}"]), f"{block}.{name}"


@pytest.mark.parametrize("candidates", KINDS)
def test_path_in_mixed_precision_and_channels_last(candidates):
    model = make_supernet(candidates).float().to(memory_format=torch.channels_last).eval()
    images, path = draw_images().float(), torch.tensor([3, 2, 1, 0, 1, 2])
    expected = model(images, path)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(images, path).float(), expected, rtol=0.1, atol=0.1)


# ---- building


def test_unknown_candidates_are_refused():
    with pytest.raises(UserError, match="candidates 'tied': allowed are separate, shared"):
        build_supernet(3, 0.25, candidates="tied")


@pytest.mark.parametrize("candidates", KINDS)
def test_alphas_that_nothing_learns_are_a_buffer(candidates):
    model = build_supernet(3, 0.25, candidates=candidates, learns_alphas=False)
    assert "alphas" not in dict(model.named_parameters())
    build_supernet(3, 0.25, candidates=candidates).load_state_dict(model.state_dict())
    assert model.derive() == Genotype.named("osnet")


def test_shared_candidates_have_a_quarter_of_the_blocks_weights():
    def count(model):
        return sum(p.numel() for stage in ("conv2", "conv3", "conv4") for p in getattr(model, stage).parameters())

    assert 4 * count(make_supernet("shared")) == count(make_supernet("separate"))
