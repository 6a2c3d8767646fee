"""The ranking of all sub-networks: against each child alone, what it computes once, progress that is gone on with."""

import os
import random

import numpy as np
import pytest
import torch

from engine.recalibration import recalibrate_batch_norm
from genotype import Genotype
from osnet_blocks import OSBlock
from osnet_child import build_child
from osnet_nas import build_supernet
from search.ranking import Ranker, SubnetTree, compare_features, compute_fingerprint
from utils.distance import normalize_features
from utils.distributed import Runtime
from utils.errors import UserError
from utils.ranking import evaluate_distmat, evaluate_ranking

CPU = torch.device("cpu")


def make_supernet(candidates):
    torch.manual_seed(0)
    return build_supernet(5, 0.25, candidates=candidates, learns_alphas=False).double()


def draw_images(count, seed, people=None):
    """Images (count, 3, 32, 32) that show people, each of a colour."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 3, 32, 32, dtype=torch.float64, generator=generator)
    if people is None:
        return noise
    colours = torch.randn(int(people.max()) + 1, 3, 8, 1, dtype=torch.float64, generator=generator)
    return noise + colours[people].repeat_interleave(4, dim=2)


@pytest.mark.parametrize(("candidates", "part"), [("separate", 6), ("shared", 9)])
def test_ranking_is_that_of_each_child_alone(candidates, part):
    """Built from the super-network, recalibrated with one batch, scored in evaluation: 24 random genotypes."""
    model = make_supernet(candidates)
    pids = torch.arange(16) // 4
    camids = torch.arange(16) % 4
    calibration, held_out = draw_images(8, 1), draw_images(16, 2, pids)
    rng = random.Random(0)
    genotypes = [divmod(part, 4) + tuple(rng.randrange(4) for _ in range(4)) for _ in range(24)]

    def score(features):
        distances = compare_features(features[:8], features, "cosine", normalize=False)
        return evaluate_distmat(distances, pids[:8], pids, camids[:8], camids).average_precision

    expected = {}
    for indices in genotypes:
        genotype = Genotype.from_digits("".join(map(str, indices)))
        child = build_child(5, genotype, 0.25).double()
        child.load_state_dict(model.child_state(genotype))
        assert recalibrate_batch_norm(child, [calibration]) == 1
        with torch.no_grad():
            expected[genotype.digits] = child(held_out)
    tree = SubnetTree(model, calibration, held_out)
    for number, features in enumerate(tree.iterate_features(part), 256 * part):
        alone = expected.pop(np.base_repr(number, 4).zfill(6), None)
        if alone is not None:
            assert alone.abs().max() > 0.1
            torch.testing.assert_close(features, alone, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(score(features), score(alone), rtol=0, atol=1e-5)
    assert number == 256 * part + 255
    assert not expected


@pytest.mark.parametrize(
    ("candidates", "per_part"), [("separate", 2 + 4 + 16 + 64 + 256), ("shared", 2 + 1 + 4 + 16 + 64)]
)
def test_what_sub_networks_share_is_computed_once(candidates, per_part, monkeypatch):
    tree = SubnetTree(make_supernet(candidates).float(), draw_images(2, 1).float(), draw_images(2, 2).float())
    branch, calls = OSBlock.branch, []
    monkeypatch.setattr(OSBlock, "branch", lambda self, x: calls.append(1) or branch(self, x))
    assert sum(1 for _ in tree.iterate_features(6)) == 256
    assert len(calls) == 2 * per_part  # for both sets of images


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("normalize", [False, True])
def test_scores_are_those_of_the_projects_ranking(metric, normalize):
    """Also where two images are alike."""
    generator = torch.Generator().manual_seed(0)
    people, cameras = torch.arange(40) // 4, torch.arange(40) % 4
    features = torch.rand(10, 32, generator=generator)[people] + 1.6 * torch.rand(40, 32, generator=generator)
    features[12] = features[13]
    labels = (people[:20], people, cameras[:20], cameras)
    distances = compare_features(features[:20], features, metric, normalize)
    found = evaluate_distmat(distances, *labels).average_precision
    scaled = normalize_features(features) if normalize else features
    expected = evaluate_ranking(scaled[:20], scaled, *labels, metric=metric).average_precision
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


# ---- in parts


class FakeTree:
    """Gives numbers in place of features; is killed before a part if asked to."""

    num_images = (3, 2)

    def __init__(self, dies_before=None):
        self.dies_before, self.done = dies_before, []

    def iterate_features(self, part):
        if part == self.dies_before:
            raise KeyboardInterrupt
        self.done.append(part)
        for number in range(256):
            yield torch.tensor([256.0 * part + number, 1.0])


def make_ranker(tmp_path, tree, fingerprint="a"):
    return Ranker(tree, lambda features: features.numpy() / 5000, np.array([7, 8]), Runtime(CPU),
                  tmp_path / "progress.npz", fingerprint)  # fmt: skip


def test_scores_stand_by_the_genotypes_number(tmp_path):
    ranking = make_ranker(tmp_path, FakeTree()).run()
    assert ranking.average_precision.shape == (4096, 2)
    assert ranking.average_precision.dtype == np.float32
    np.testing.assert_allclose(ranking.scores, (np.arange(4096) + 1) / 10_000, rtol=1e-6)


def test_killed_ranking_goes_on_to_the_same_end(tmp_path):
    whole = make_ranker(tmp_path, FakeTree()).run()
    (tmp_path / "progress.npz").unlink()
    with pytest.raises(KeyboardInterrupt):
        make_ranker(tmp_path, FakeTree(dies_before=5)).run()
    tree = FakeTree()
    ranking = make_ranker(tmp_path, tree).run()
    assert tree.done == list(range(5, 16))
    assert ranking.average_precision.tobytes() == whole.average_precision.tobytes()
    again = FakeTree()
    make_ranker(tmp_path, again).run()
    assert again.done == []


def cut_queries(path):
    """Leaves out a query's scores, as a file of the same weights never does."""
    with np.load(path) as file:
        arrays = {**file}
    np.savez(path, fingerprint=np.array("a"), ap=arrays["ap"][..., 1:])


@pytest.mark.parametrize(
    "break_it", [lambda path: None, lambda path: path.write_bytes(path.read_bytes()[:500]), cut_queries]
)
def test_progress_of_other_weights_or_damaged_is_not_gone_on_with(tmp_path, caplog, break_it):
    make_ranker(tmp_path, FakeTree(), "b").run()
    break_it(tmp_path / "progress.npz")
    tree = FakeTree()
    make_ranker(tmp_path, tree).run()
    assert tree.done == list(range(16))
    assert "progress.npz is of other weights, images or settings, or damaged: ranking anew" in caplog.text


def test_a_pipe_in_the_place_of_progress_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "progress.npz")
    with pytest.raises(UserError, match="there is a pipe"):
        make_ranker(tmp_path, FakeTree()).run()


def test_fingerprint_stands_for_weights_and_facts():
    model, same, other = make_supernet("shared"), make_supernet("shared"), make_supernet("shared")
    other.conv5.get_parameter("conv.weight").data[0, 0] += 1e-9
    model.train()(draw_images(2, 0), torch.zeros(6, dtype=torch.int64))  # running statistics do not count
    assert compute_fingerprint(model, "x", 1) == compute_fingerprint(same, "x", 1)
    assert compute_fingerprint(model, "x", 1) != compute_fingerprint(other, "x", 1)
    assert compute_fingerprint(model, "x", 1) != compute_fingerprint(model, "x", 2)
