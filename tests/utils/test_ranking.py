"""utils.ranking and utils.match_ranks against sorting in float64, golden scores and cases worked out by hand."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils import match_ranks
from utils.distance import compute_distmat
from utils.errors import UserError
from utils.ranking import (
    RankingResult,
    evaluate_blocks,
    evaluate_distmat,
    evaluate_ranking,
    score_queries,
    summarise_scores,
)
from utils.work_share import WorkShare

GOLDEN = Path(__file__).parents[1] / "golden" / "ranking.npz"
Problem = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def rank_by_sorting(problem: Problem, max_rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorts everything, query by query; returns CMC, AP and INP, NaN for queries without a match."""
    distmat, query_pids, gallery_pids, query_camids, gallery_camids = problem
    precisions, penalties, curves = [], [], []
    for distances, pid, camid in zip(distmat.astype(np.float64), query_pids, query_camids, strict=True):
        order = sorted(range(len(distances)), key=list(zip(distances, range(len(distances)), strict=True)).__getitem__)
        kept = [
            i for i in order if gallery_pids[i] != -1 and not (gallery_pids[i] == pid and gallery_camids[i] == camid)
        ]
        ranks = [rank for rank, image in enumerate(kept, start=1) if gallery_pids[image] == pid]
        if not ranks:
            precisions.append(np.nan)
            penalties.append(np.nan)
            continue
        precisions.append(sum(found / rank for found, rank in enumerate(ranks, start=1)) / len(ranks))
        penalties.append(len(ranks) / ranks[-1])
        curves.append([float(ranks[0] <= k) for k in range(1, max_rank + 1)])
    return np.mean(curves, axis=0), np.array(precisions), np.array(penalties)


def check_against_sorting(result: RankingResult, problem: Problem, max_rank: int = 50) -> None:
    cmc, precisions, penalties = rank_by_sorting(problem, max_rank)
    np.testing.assert_allclose(result.cmc, cmc, atol=1e-12)
    np.testing.assert_allclose(result.average_precision, precisions, atol=1e-12)
    assert result.mAP == pytest.approx(np.nanmean(precisions), abs=1e-12)
    assert result.mINP == pytest.approx(np.nanmean(penalties), abs=1e-12)
    assert result.num_valid == np.count_nonzero(~np.isnan(precisions))


def draw_features(num_query: int, num_gallery: int, levels: int = 3) -> tuple[torch.Tensor, ...]:
    """Draws small integer features, so that distances are exact and many are equal, and labels with junk."""
    generator = torch.Generator().manual_seed(0)

    def draw(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=generator)

    features = draw(0, levels, num_query, 6).float(), draw(0, levels, num_gallery, 6).float()
    pids = draw(0, 30, num_query), draw(-1, 30, num_gallery)
    return (*features, *pids, draw(0, 4, num_query), draw(0, 4, num_gallery))


@st.composite
def draw_problems(draw: st.DrawFn) -> Problem:
    num_query, num_gallery = draw(st.integers(1, 6)), draw(st.integers(1, 24))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    distmat = generator.integers(0, draw(st.integers(1, 40)), (num_query, num_gallery)).astype(np.float32)
    num_pids, num_cameras = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    pids = generator.integers(-1, num_pids, num_query), generator.integers(-1, num_pids, num_gallery)
    return (
        distmat,
        *pids,
        generator.integers(0, num_cameras, num_query),
        generator.integers(0, num_cameras, num_gallery),
    )


@pytest.mark.parametrize("sorted_per_match", [0, 2, 10**6], ids=["counted", "both", "sorted"])
def test_scores_are_those_of_sorting(monkeypatch: pytest.MonkeyPatch, sorted_per_match: int) -> None:
    monkeypatch.setattr(match_ranks, "SORTED_PER_MATCH", sorted_per_match)

    @settings(max_examples=150, derandomize=True)
    @given(problem=draw_problems(), max_rank=st.integers(1, 30))
    def check(problem: Problem, max_rank: int) -> None:
        _, query_pids, gallery_pids, query_camids, gallery_camids = problem
        same = query_pids[:, None] == gallery_pids
        right = same & (query_camids[:, None] != gallery_camids) & (gallery_pids != -1)
        if not right.any():
            with pytest.raises(UserError, match="has a gallery image of its identity under another camera"):
                evaluate_distmat(*problem)
            return
        check_against_sorting(evaluate_distmat(*problem, max_rank=max_rank), problem, max_rank)

    check()


def test_scores_of_a_larger_gallery_are_those_of_sorting() -> None:
    query, gallery, *labels = draw_features(40, 3_000, levels=1_000)
    query_pids, gallery_pids, query_camids, gallery_camids = (label.numpy() for label in labels)
    distmat = (query.double()[:, None] - gallery.double()[None]).square().sum(dim=2).numpy()
    problem = distmat, query_pids, gallery_pids, query_camids, gallery_camids
    check_against_sorting(evaluate_ranking(query, gallery, *labels), problem)


def test_golden_scores() -> None:
    with np.load(GOLDEN) as golden:
        labels = [golden[key] for key in ("query_pids", "gallery_pids", "query_camids", "gallery_camids")]
        features = torch.from_numpy(golden["query_features"]), torch.from_numpy(golden["gallery_features"])
        from_features = evaluate_ranking(*features, *labels)
        reranked = evaluate_distmat(golden["reranked_distmat"], *labels)
        for result, prefix in ((from_features, ""), (reranked, "reranked_")):
            assert result.mAP == pytest.approx(float(golden[f"{prefix}mAP"]), abs=1e-6)
            np.testing.assert_allclose(result.cmc, golden[f"{prefix}cmc"], atol=1e-6)


def test_cosine_ranks_by_angle() -> None:
    query, gallery = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.9, 0.9], [100.0, 1.0]])
    labels = [5], [4, 5], [0], [1, 1]
    assert evaluate_ranking(query, gallery, *labels, metric="cosine").cmc[0] == 1
    assert evaluate_ranking(query, gallery, *labels).cmc[0] == 0


def test_equal_distances_rank_in_the_order_of_the_gallery() -> None:
    labels = [7], [1, 7, 2, 7, 3], [0], [1, 1, 1, 1, 1]
    result = evaluate_distmat(np.ones((1, 5)), *labels)
    assert result.mAP == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert result.cmc[:3].tolist() == [0, 1, 1]


def test_results_do_not_depend_on_the_chunk_size() -> None:
    arguments = draw_features(600, 700)
    arguments[0].mul_(1 / 3)  # no longer exact: equal distances now hang on equal rounding
    arguments[1].mul_(1 / 3)
    expected = evaluate_ranking(*arguments, camera_pairs=True, single_gallery_shot=True)
    for chunk_size in (1, 300, 10**6):
        result = evaluate_ranking(*arguments, camera_pairs=True, single_gallery_shot=True, chunk_size=chunk_size)
        assert (result.mAP, result.mINP, result.num_valid) == (expected.mAP, expected.mINP, expected.num_valid)
        assert np.array_equal(result.cmc, expected.cmc)
        assert np.array_equal(result.average_precision, expected.average_precision, equal_nan=True)
        assert result.camera_pairs is not None
        assert expected.camera_pairs is not None
        assert np.array_equal(result.camera_pairs.mAP, expected.camera_pairs.mAP, equal_nan=True)


def test_features_matrix_and_blocks_give_the_same() -> None:
    query, gallery, *labels = draw_features(600, 500)
    distmat = compute_distmat(query, gallery)
    before = distmat.clone()
    expected = evaluate_ranking(query, gallery, *labels)
    for result in (evaluate_distmat(distmat, *labels), evaluate_blocks(distmat.split(77), *labels)):
        assert np.array_equal(result.average_precision, expected.average_precision, equal_nan=True)
        assert np.array_equal(result.cmc, expected.cmc)
    assert torch.equal(distmat, before)


def test_junk_never_counts_and_distractors_do() -> None:
    distmat = np.array([[0.1, 0.2, 0.3, 0.4]])
    assert evaluate_distmat(distmat, [3], [-1, -1, 8, 3], [0], [1, 1, 1, 1]).mAP == pytest.approx(1 / 2)
    assert evaluate_distmat(distmat, [3], [0, 0, 8, 3], [0], [1, 1, 1, 1]).mAP == pytest.approx(1 / 4)


def test_queries_without_a_match_are_left_out_and_counted() -> None:
    distmat = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    # in turn: right at rank 2; only under its own camera; nobody; itself junk
    result = evaluate_distmat(distmat, [3, 4, 5, -1], [4, 3], [0, 1, 0, 0], [1, 1])
    assert result.num_valid == 1
    assert result.mAP == pytest.approx(1 / 2)
    assert np.isnan(result.average_precision).tolist() == [False, True, True, True]


def test_cmc_past_the_size_of_the_gallery_stays_at_one() -> None:
    result = evaluate_distmat(np.array([[0.5]]), [3], [3], [0], [1], max_rank=20)
    assert result.cmc.tolist() == [1.0] * 20


def test_single_gallery_shot_with_one_image_an_identity_is_the_plain_cmc() -> None:
    generator = np.random.default_rng(0)
    arguments = generator.random((40, 40)), np.arange(40), generator.permutation(40), np.zeros(40), np.ones(40)
    expected = evaluate_distmat(*arguments)
    assert np.array_equal(evaluate_distmat(*arguments, single_gallery_shot=True).cmc, expected.cmc)


def test_single_gallery_shot_draws_every_image_of_an_identity_equally_often() -> None:
    # Somebody else's three images lie before, between and behind the query's two; its own camera's image never shows.
    distmat = np.array([[0.0, 0.1, 0.2, 0.3, 0.4, 0.5]])
    arguments = distmat, [3], [3, 8, 3, 8, 3, 8], [0], [0, 1, 1, 1, 1, 1]
    first = [evaluate_distmat(*arguments, single_gallery_shot=True, seed=seed).cmc[:2] for seed in range(300)]
    assert np.mean(first, axis=0) == pytest.approx([1 / 2, 1.0], abs=0.03)  # 3,000 draws: 3.3 standard deviations
    again = evaluate_distmat(*arguments, single_gallery_shot=True, seed=5).cmc[:2]
    assert np.array_equal(again, first[5])
    assert len({tuple(cmc) for cmc in first}) > 3


def test_single_gallery_shot_leaves_junk_out() -> None:
    arguments = np.array([[0.0, 0.1]]), [3], [-1, 3], [0], [1, 1]
    assert evaluate_distmat(*arguments, single_gallery_shot=True).cmc[0] == 1


def test_camera_pairs_are_the_scores_of_each_camera_alone() -> None:
    query, gallery, *labels = draw_features(60, 400)
    pairs = evaluate_ranking(query, gallery, *labels, camera_pairs=True).camera_pairs
    assert pairs is not None
    distmat = compute_distmat(query, gallery).numpy()
    query_pids, gallery_pids, query_camids, gallery_camids = (label.numpy() for label in labels)
    assert pairs.query_camids.tolist() == pairs.gallery_camids.tolist() == [0, 1, 2, 3]
    for a in range(4):
        for b in range(4):
            rows, columns = query_camids == a, gallery_camids == b
            if a == b:
                assert pairs.num_queries[a, b] == 0
                assert np.isnan([pairs.mAP[a, b], pairs.rank1[a, b]]).all()
                continue
            part = (distmat[rows][:, columns], query_pids[rows], gallery_pids[columns], query_camids[rows])
            cmc, precisions, _ = rank_by_sorting((*part, gallery_camids[columns]), 1)
            assert pairs.num_queries[a, b] == np.count_nonzero(~np.isnan(precisions))
            assert pairs.mAP[a, b] == pytest.approx(np.nanmean(precisions), abs=1e-12)
            assert pairs.rank1[a, b] == pytest.approx(cmc[0], abs=1e-12)


def test_mistakes_are_told() -> None:
    query, gallery, *labels = draw_features(4, 6)
    query_pids, gallery_pids, query_camids, gallery_camids = labels
    broken = gallery.clone()
    broken[2:5, 1] = torch.nan
    for features, message in (
        ((query, broken), "3 of 6 gallery features hold NaN"),
        ((query[:3], gallery), "3 query images but 4 query pids"),
        ((query, gallery[:, :2]), "6 dimensions, gallery features 2"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate_ranking(*features, *labels)
    with pytest.raises(UserError, match="unknown distance metric 'l1'"):
        evaluate_ranking(query, gallery, *labels, metric="l1")
    with pytest.raises(UserError, match="6 gallery pids but 5 gallery camids"):
        evaluate_ranking(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids[:5])
    with pytest.raises(UserError, match="no query images"):
        evaluate_ranking(query[:0], gallery, [], gallery_pids, [], gallery_camids)
    with pytest.raises(UserError, match="no gallery images"):
        evaluate_ranking(query, gallery[:0], query_pids, [], query_camids, [])
    with pytest.raises(UserError, match="the distance matrix holds NaN or infinite values"):
        evaluate_distmat(np.full((4, 6), np.nan), *labels)
    with pytest.raises(UserError, match=r"shape \(4,\); expected"):
        evaluate_distmat(np.zeros(4), *labels)
    with pytest.raises(UserError, match="none of the 1 queries"):
        evaluate_distmat(np.zeros((1, 2)), [-1], [-1, -1], [0], [1, 1])


def test_a_test_without_matches_is_refused_before_any_distance_is_computed() -> None:
    def blocks() -> Iterator[torch.Tensor]:
        raise AssertionError("a block was asked for")
        yield

    with pytest.raises(UserError, match="none of the 1 queries"):
        evaluate_blocks(blocks(), [3], [4, 3], [0], [1, 0])


def test_impossible_arguments_are_refused() -> None:
    query, gallery, *labels = draw_features(4, 600)
    with pytest.raises(ValueError, match="max_rank is 0"):
        evaluate_ranking(query, gallery, *labels, max_rank=0)
    distmat = compute_distmat(query, gallery)
    for blocks, message in (
        ([distmat[:3]], "3 rows of distances for 4 queries"),
        ([distmat, distmat], "a block of distances has shape"),
        ([distmat[:, :5]], "a block of distances has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_blocks(blocks, *labels)


@pytest.mark.parametrize("single_gallery_shot", [False, True])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_shared_out_scores_are_those_of_one_process(count: int, single_gallery_shot: bool) -> None:
    """Bit for bit, the sums of the camera table included."""
    query, gallery, *labels = draw_features(50, 400)
    distmat = compute_distmat(query, gallery)
    expected = evaluate_distmat(
        distmat, *labels, single_gallery_shot=single_gallery_shot, camera_pairs=True, max_rank=9
    )
    parts = []
    for index in range(count):
        rows = WorkShare(index, count).rows(len(query), 8)
        blocks = distmat[rows.start : rows.stop].split(5)
        parts.append(
            score_queries(blocks, *labels, rows=rows, single_gallery_shot=single_gallery_shot, camera_pairs=True)
        )
    result = summarise_scores(parts, *labels, max_rank=9, camera_pairs=True)
    assert (result.mAP, result.mINP, result.num_valid) == (expected.mAP, expected.mINP, expected.num_valid)
    assert result.cmc.tolist() == expected.cmc.tolist()
    assert np.array_equal(result.average_precision, expected.average_precision, equal_nan=True)
    assert result.camera_pairs
    assert expected.camera_pairs
    assert result.camera_pairs.as_rows() == expected.camera_pairs.as_rows()


def test_share_without_queries_has_no_scores() -> None:
    *_, query_pids, gallery_pids, query_camids, gallery_camids = draw_features(5, 40)
    scores = score_queries([], query_pids, gallery_pids, query_camids, gallery_camids, rows=range(5, 5))
    assert scores.queries == []
