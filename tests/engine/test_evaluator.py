"""The evaluator's options: each changes the scores as it should, against distances in float64."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from default_config import load_config
from engine.evaluator import (
    LabelledFeatures,
    ScoringRules,
    build_scoring_rules,
    compute_features,
    evaluate_targets,
    score_rankings,
)
from utils.distributed import Runtime, choose_runtime
from utils.ranking import evaluate_distmat
from utils.rerank import rerank

ALONE = Runtime(torch.device("cpu"))


class Corner(nn.Module):
    """Features that tell left from right and top from bottom."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images[:, :, 0, 0], 2 * images[:, :, -1, 0]], dim=1)


class OneBatch:
    """All images in one batch."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images
        self.samples = [SimpleNamespace(path=str(i)) for i in range(len(images))]

    def __iter__(self):
        numbers = torch.arange(len(self.images))
        yield SimpleNamespace(images=self.images, indices=numbers, pids=numbers + 10, camids=numbers + 20)

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("flip", [False, True])
def test_flip_is_the_mean_with_the_mirror_image(flip):
    images = torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    network = Corner().train()
    features, pids, camids = compute_features(
        network, OneBatch(images), lambda batch: batch.images, choose_runtime(False), flip=flip
    )
    expected = torch.cat([images[:, :, 0, 0], 2 * images[:, :, -1, 0]], dim=1)
    if flip:
        expected = (expected + torch.cat([images[:, :, 0, -1], 2 * images[:, :, -1, -1]], dim=1)) / 2
    assert torch.allclose(features, expected)
    assert (pids.tolist(), camids.tolist()) == ([10, 11, 12, 13, 14], [20, 21, 22, 23, 24])
    assert network.training


def draw_found(count: int, seed: int) -> LabelledFeatures:
    """Features of very different lengths, so that every way to compare them gives another ranking."""
    rng = np.random.default_rng(seed)
    pids = rng.integers(6, size=count)
    features = np.random.default_rng(99).normal(size=(6, 8))[pids] + rng.normal(size=(count, 8))
    features *= rng.uniform(0.5, 2, (count, 1))
    return LabelledFeatures(torch.from_numpy(features.astype(np.float32)), pids, rng.integers(3, size=count))


def compute_reference(query: torch.Tensor, gallery: torch.Tensor, metric: str, normalize: bool) -> torch.Tensor:
    query, gallery = query.double(), gallery.double()
    if normalize or metric == "cosine":
        query, gallery = (features / features.norm(dim=1, keepdim=True) for features in (query, gallery))
    return torch.cdist(query, gallery).square()


def test_metric_normalisation_and_reranking_are_those_asked_for():
    query, gallery = draw_found(40, 1), draw_found(120, 2)
    labels = (query[1], gallery[1], query[2], gallery[2])
    seen = set()
    for metric, normalize in itertools.product(("euclidean", "cosine"), (False, True)):
        rules = ScoringRules(metric=metric, normalize=normalize, ranks=(1, 5), rerank=True)
        found = score_rankings("t", SimpleNamespace(), query, gallery, rules, False, ALONE)
        plain = evaluate_distmat(compute_reference(query[0], gallery[0], metric, normalize), *labels)
        unit = normalize or metric == "cosine"
        scaled = [f / f.norm(dim=1, keepdim=True) if unit else f for f in (query[0].double(), gallery[0].double())]
        reranked = evaluate_distmat(rerank(*scaled), *labels)
        assert list(found) == ["", "+rerank"]
        for scores, expected in ((found[""], plain), (found["+rerank"], reranked)):
            assert scores.mAP == pytest.approx(expected.mAP, abs=1e-6)
            assert scores.ranks == pytest.approx({1: expected.cmc[0], 5: expected.cmc[4]}, abs=1e-6)
        seen |= {(unit, round(found[""].mAP, 6)), (unit, round(found["+rerank"].mAP, 6))}
    assert len({mAP for _, mAP in seen}) == 4  # what is compared differs: scaled or not, re-ranked or not


def test_single_gallery_shot_and_pairs_of_cameras_reach_the_scores():
    query, gallery = draw_found(40, 1), draw_found(120, 2)
    plain, single = (
        score_rankings("t", SimpleNamespace(), query, gallery, ScoringRules(camera_pairs=shot), shot, ALONE)[""]
        for shot in (False, True)
    )
    labels = (query[1], gallery[1], query[2], gallery[2])
    distmat = compute_reference(query[0], gallery[0], "euclidean", False)
    expected = evaluate_distmat(distmat, *labels, single_gallery_shot=True, camera_pairs=True)
    assert single.ranks == pytest.approx({k: expected.cmc[k - 1] for k in (1, 5, 10, 20)})
    assert single.ranks != plain.ranks
    assert single.mAP == plain.mAP
    assert plain.camera_pairs is None
    assert np.allclose(single.camera_pairs.mAP, expected.camera_pairs.mAP, equal_nan=True)


def test_rank_beyond_the_gallery_is_1_and_takes_no_memory():
    query, gallery = draw_found(40, 1), draw_found(120, 2)
    rules = ScoringRules(ranks=(1, 120, 121, 10**10))
    scores = score_rankings("t", SimpleNamespace(), query, gallery, rules, False, ALONE)[""]
    assert scores.ranks[1] < 1
    assert [scores.ranks[k] for k in (120, 121, 10**10)] == [1, 1, 1]


def test_observer_sees_the_whole_curve_that_is_drawn():
    class Observer:
        def watch(self, name, target, blocks, labels, distance):
            return blocks

        def finish(self, name, result):
            lengths.append(len(result.cmc))

    lengths: list[int] = []
    query, gallery = draw_found(40, 1), draw_found(120, 2)
    score_rankings("t", SimpleNamespace(), query, gallery, ScoringRules(ranks=(1,)), False, ALONE, Observer())
    score_rankings("t", SimpleNamespace(), query, gallery, ScoringRules(ranks=(60,)), False, ALONE, Observer())
    assert lengths == [50, 60]


def test_what_takes_long_is_in_the_log(monkeypatch, caplog):
    """Every part of an evaluation, where all take long."""
    monkeypatch.setattr("utils.log.LOG_EVERY_SEC", 0)
    caplog.set_level("INFO")
    query, gallery = draw_found(600, 1), draw_found(900, 2)

    class Half(OneBatch):
        def __iter__(self):
            numbers = torch.arange(len(self.images))
            for part in numbers.chunk(2):
                yield SimpleNamespace(
                    images=self.images[part], indices=part, pids=self.pids[part], camids=self.camids[part]
                )

        def __len__(self):
            return 2

        def __init__(self, found):
            super().__init__(found.features)
            self.pids, self.camids = torch.from_numpy(found.pids), torch.from_numpy(found.camids)

    target = SimpleNamespace(query=Half(query), gallery=Half(gallery), splits={})
    rules = ScoringRules(rerank=True)
    evaluate_targets(nn.Identity(), {"market": target}, lambda batch: batch.images, ALONE, rules)
    lines = [record.getMessage() for record in caplog.records]
    for start in (
        "market, features of query: 1 of 2 (50%) done, 0:00:",
        "market, features of gallery: 1 of 2 (50%) done",
        "market, ranking: 1 of 3 (33%) done",
        "re-ranking, neighbours: 5 of 6 (83%) done",
        "market+rerank, ranking: 2 of 3 (66%) done",
    ):
        assert any(line.startswith(start) for line in lines), (start, lines)


def test_settings_become_rules():
    assert build_scoring_rules(load_config()) == ScoringRules()
    settings = {
        "test.dist_metric": "cosine", "test.normalize_feature": True, "test.ranks": [5, 1, 5], "test.flip": True,
        "test.rerank": True, "test.camera_pairs": True, "cuhk03.use_metric_cuhk03": True,
    }  # fmt: skip
    expected = ScoringRules(
        metric="cosine", normalize=True, ranks=(1, 5), flip=True, rerank=True, camera_pairs=True,
        single_gallery_shot=frozenset({"cuhk03"}),
    )  # fmt: skip
    assert build_scoring_rules(load_config([], settings)) == expected
