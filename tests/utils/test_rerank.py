"""utils.rerank against the paper's formula written with sets and loops in float64, and golden values."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.shares import run_shares
from utils.distance import TILE_QUERIES, compute_distmat, normalize_features
from utils.errors import UserError
from utils.ranking import evaluate_blocks, evaluate_distmat
from utils.rerank import compute_reciprocal_sets, find_nearest, iterate_reranked, rerank
from utils.work_share import WorkShare

GOLDEN = Path(__file__).parents[1] / "golden" / "ranking.npz"


def rerank_by_formula(query: Tensor, gallery: Tensor, k1: int, k2: int, lambda_value: float) -> np.ndarray:
    """Follows the paper step by step on dense matrices and Python sets."""
    images = torch.cat([query, gallery]).double().numpy()
    distances = ((images[:, None] - images[None]) ** 2).sum(axis=2)
    distances /= np.maximum(distances.max(axis=0), np.finfo(float).tiny)
    distances = distances.T
    count = len(images)
    by_distance = distances - np.eye(count)  # an image comes first among copies of itself
    nearest = [np.argsort(row, kind="stable").tolist() for row in by_distance]

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in nearest[i][: k + 1] if i in nearest[j][: k + 1]}

    weights = np.zeros((count, count))
    for i in range(count):
        expanded = reciprocal(i, k1)
        for j in reciprocal(i, k1):
            candidates = reciprocal(j, round(k1 / 2))
            if 3 * len(candidates & reciprocal(i, k1)) > 2 * len(candidates):
                expanded = expanded | candidates
        members = sorted(expanded)
        weights[i, members] = np.exp(-distances[i, members])
        weights[i] /= weights[i].sum()
    weights = np.stack([weights[nearest[i][:k2]].mean(axis=0) for i in range(count)])
    final = np.empty((len(query), len(gallery)))
    for i in range(len(query)):
        for j in range(len(gallery)):
            pair = weights[i], weights[len(query) + j]
            jaccard = 1 - np.minimum(*pair).sum() / np.maximum(*pair).sum()
            final[i, j] = (1 - lambda_value) * jaccard + lambda_value * distances[i, len(query) + j]
    return final


def draw(num_query: int, num_gallery: int, num_identities: int = 6, num_dimensions: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_query)
    identities = torch.randn(num_identities, num_dimensions, generator=generator)
    pids = torch.randint(num_identities, (num_query + num_gallery,), generator=generator)
    features = identities[pids] + torch.randn(len(pids), num_dimensions, generator=generator) / 2
    return features[:num_query], features[num_query:]


@pytest.mark.parametrize(
    ("k1", "k2", "lambda_value"), [(20, 6, 0.3), (7, 3, 0.5), (5, 1, 0.0), (1, 8, 0.1), (500, 500, 0.3), (2, 2, 1.0)]
)
def test_distances_are_those_of_the_formula(k1: int, k2: int, lambda_value: float) -> None:
    query, gallery = draw(15, 70)
    expected = rerank_by_formula(query, gallery, k1, k2, lambda_value)
    distmat = rerank(query, gallery, k1, k2, lambda_value)
    assert distmat.dtype == torch.float32
    np.testing.assert_allclose(distmat.numpy(), expected, atol=2e-6)


def test_what_all_features_have_in_common_costs_no_digits() -> None:
    query, gallery = draw(10, 60)
    expected = rerank_by_formula(query, gallery, 20, 6, 0.3)
    for offset in (10, 100):
        assert np.abs(rerank(query + offset, gallery + offset).numpy() - expected).max() < 1e-4


def test_distances_of_a_larger_gallery_are_those_of_the_formula() -> None:
    query, gallery = draw(10, 590, num_identities=40)  # enough images for the search in lanes
    np.testing.assert_allclose(rerank(query, gallery).numpy(), rerank_by_formula(query, gallery, 20, 6, 0.3), atol=2e-6)


def test_golden_distances_and_scores() -> None:
    with np.load(GOLDEN) as golden:
        query, gallery = torch.from_numpy(golden["query_features"]), torch.from_numpy(golden["gallery_features"])
        labels = [golden[key] for key in ("query_pids", "gallery_pids", "query_camids", "gallery_camids")]
        distmat = rerank(query, gallery)
        np.testing.assert_allclose(distmat.numpy(), golden["reranked_distmat"], atol=1e-5)
        for result in (
            evaluate_distmat(distmat, *labels),
            evaluate_blocks(iterate_reranked(query, gallery), *labels),
        ):
            assert result.mAP == pytest.approx(float(golden["reranked_mAP"]), abs=1e-6)
            np.testing.assert_allclose(result.cmc, golden["reranked_cmc"], atol=1e-6)


def test_values_do_not_depend_on_the_chunk_size() -> None:
    query, gallery = draw(300, 700, num_identities=50, num_dimensions=33)
    expected = rerank(query, gallery)
    for chunk_size in (1, 257, 10**6):
        assert torch.equal(rerank(query, gallery, chunk_size=chunk_size), expected)


def test_cosine_is_the_euclidean_of_normalised_features() -> None:
    query, gallery = draw(10, 60)
    gallery = gallery * 7
    expected = rerank_by_formula(normalize_features(query), normalize_features(gallery), 20, 6, 0.3)
    np.testing.assert_allclose(rerank(query, gallery, metric="cosine").numpy(), expected, atol=2e-6)


@pytest.mark.parametrize(("num_query", "num_gallery"), [(5, 40), (5, 600)])
def test_many_copies_of_an_image_are_handled(num_query: int, num_gallery: int) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randint(0, 2, (num_query + num_gallery, 3), generator=generator).float()
    query, gallery = features[:num_query], features[num_query:]
    np.testing.assert_allclose(rerank(query, gallery).numpy(), rerank_by_formula(query, gallery, 20, 6, 0.3), atol=2e-6)


def test_equal_features_give_finite_distances() -> None:
    distmat = rerank(torch.ones(3, 4), torch.ones(30, 4))
    assert torch.isfinite(distmat).all()
    assert distmat.min() >= 0
    assert distmat.max() <= 1


def test_one_image_on_each_side() -> None:
    query, gallery = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 1.0]])
    np.testing.assert_allclose(rerank(query, gallery).numpy(), rerank_by_formula(query, gallery, 20, 6, 0.3), atol=1e-6)


def test_full_lambda_leaves_the_plain_distances() -> None:
    query, gallery = draw(10, 60)
    plain = compute_distmat(query, gallery)
    largest = compute_distmat(query, torch.cat([query, gallery])).amax(dim=1, keepdim=True)
    torch.testing.assert_close(rerank(query, gallery, lambda_value=1.0), plain / largest)


def test_reciprocal_sets_of_a_small_case() -> None:
    # 0, 1 and 2 know one another; 3 names 2, which does not name it back.
    neighbours = np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0], [3, 2, 1]], dtype=np.int32)
    sets = compute_reciprocal_sets(neighbours, k1=2).toarray() != 0
    assert [np.flatnonzero(row).tolist() for row in sets] == [[0, 1, 2], [0, 1, 2], [0, 1, 2], [3]]


@pytest.mark.parametrize(("num_columns", "count"), [(1, 1), (40, 21), (511, 5), (512, 21), (2_000, 1), (2_000, 300)])
@pytest.mark.parametrize("levels", [1, 3, 50, 10**6])
def test_find_nearest_is_the_head_of_a_stable_sort(num_columns: int, count: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    distances = torch.randint(levels, (30, num_columns + 9), generator=generator).float()[:, :num_columns]
    expected = np.argsort(distances.numpy(), axis=1, kind="stable")[:, :count]
    assert np.array_equal(find_nearest(distances, count).numpy(), expected)


def test_mistakes_are_told_at_the_call() -> None:
    query, gallery = draw(4, 9)
    broken = query.clone()
    broken[0, 0] = torch.inf
    with pytest.raises(UserError, match="1 of 4 query features hold NaN or infinite values"):
        iterate_reranked(broken, gallery)
    with pytest.raises(UserError, match="unknown distance metric 'l1'"):
        iterate_reranked(query, gallery, metric="l1")
    with pytest.raises(UserError, match="no gallery features"):
        iterate_reranked(query, gallery[:0])
    for arguments in ((0, 6, 0.3), (20, 0, 0.3), (20, 6, 1.5)):
        with pytest.raises(ValueError, match="need k1 ≥ 1, k2 ≥ 1, 0 ≤ lambda ≤ 1"):
            iterate_reranked(query, gallery, *arguments)
    with pytest.raises(ValueError, match="chunk_size is 0"):
        iterate_reranked(query, gallery, chunk_size=0)


@pytest.mark.parametrize("count", [2, 3])
def test_shared_out_values_are_those_of_one_process(count: int) -> None:
    query, gallery = draw(300, 700, num_identities=50, num_dimensions=33)
    expected = rerank(query, gallery)

    def work(share: WorkShare) -> Tensor:
        rows = share.rows(len(query), TILE_QUERIES)
        blocks = [block.clone() for block in iterate_reranked(query, gallery, rows=rows, share=share)]
        return torch.cat([torch.empty(0, len(gallery)), *blocks])

    assert torch.equal(torch.cat(run_shares(count, work)), expected)
