"""utils.distance: values against float64, and independence of the block size bit by bit."""

import os

import pytest
import torch
from torch import Tensor

from utils.distance import TILE_QUERIES, compute_distmat, iterate_distances, normalize_features
from utils.errors import UserError
from utils.work_share import WorkShare


def draw(num_query: int, num_gallery: int, num_dimensions: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(num_query + num_gallery, num_dimensions, generator=generator)
    return features[:num_query], features[num_query:]


def compute_reference(query: Tensor, gallery: Tensor, metric: str) -> Tensor:
    query, gallery = query.double()[:, None], gallery.double()[None]
    if metric == "euclidean":
        return (query - gallery).square().sum(dim=2)
    return 1 - (query * gallery).sum(dim=2) / (query.norm(dim=2) * gallery.norm(dim=2))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(("num_query", "num_gallery", "num_dimensions"), [(1, 1, 1), (3, 50, 7), (300, 40, 64)])
def test_distances_are_those_of_float64(num_query: int, num_gallery: int, num_dimensions: int, metric: str) -> None:
    query, gallery = draw(num_query, num_gallery, num_dimensions)
    distmat = compute_distmat(query, gallery, metric)
    assert distmat.dtype == torch.float32
    torch.testing.assert_close(
        distmat.double(), compute_reference(query, gallery, metric), rtol=1e-5, atol=1e-6 * num_dimensions
    )


def test_several_gallery_tiles_are_right() -> None:
    query, gallery = draw(5, 9_000, 16)
    torch.testing.assert_close(
        compute_distmat(query, gallery).double(), compute_reference(query, gallery, "euclidean"), rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("num_dimensions", [7, 33, 512])
def test_values_do_not_depend_on_the_chunk_size(num_dimensions: int, metric: str) -> None:
    query, gallery = draw(600, 300, num_dimensions)
    expected = compute_distmat(query, gallery, metric)
    for chunk_size in (1, 256, 257, 10**6):
        blocks = [block.clone() for block in iterate_distances(query, gallery, metric, chunk_size)]
        assert torch.equal(torch.cat(blocks), expected)
        assert len(blocks) == (3 if chunk_size <= 256 else 2 if chunk_size == 257 else 1)


def test_values_depend_on_the_other_images_by_rounding_alone() -> None:
    query, gallery = draw(300, 5_000, 65)
    part = compute_distmat(query[100:103], gallery[4_090:4_110])
    torch.testing.assert_close(part, compute_distmat(query, gallery)[100:103, 4_090:4_110], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("offset", [10.0, 100.0, 1000.0])
def test_what_all_features_have_in_common_costs_no_digits(metric: str, offset: float) -> None:
    """As the features of an untrained network."""
    query, gallery = (features + offset for features in draw(50, 200, 64))
    expected = compute_reference(query, gallery, metric)
    error = (compute_distmat(query, gallery, metric) - expected).abs().max() / expected.mean()
    assert error < (1e-5 if metric == "euclidean" else 1e-5 * offset)  # scaling to length 1 itself rounds


@pytest.mark.parametrize("length", [1e-30, 1e-14, 1e19, 1e30])
def test_cosine_does_not_depend_on_the_length(length: float) -> None:
    query, gallery = draw(20, 30, 16)
    expected = compute_reference(query, gallery, "cosine")
    distmat = compute_distmat(query * length, gallery * length, "cosine")
    torch.testing.assert_close(distmat.double(), expected, rtol=1e-5, atol=1e-6)


def test_programs_with_the_newer_precision_switch_can_compare() -> None:
    """In a process of its own: the two switches do not go together."""
    if not (pid := os.fork()):
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        compute_distmat(*draw(3, 4, 5))
        os._exit(0 if torch.backends.cuda.matmul.fp32_precision == "tf32" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_copies_of_an_image_are_equally_far() -> None:
    query, gallery = draw(20, 4_500, 65)
    shuffled = torch.randperm(4_500, generator=torch.Generator().manual_seed(1))
    gallery[shuffled[:2_000]] = gallery[shuffled[2_000:4_000]]
    distmat = compute_distmat(query, gallery)
    assert torch.equal(distmat[:, shuffled[:2_000]], distmat[:, shuffled[2_000:4_000]])


def test_distances_are_never_negative() -> None:
    query, _ = draw(200, 1, 512)
    query = query + 100
    assert compute_distmat(query, query).min() >= 0
    assert compute_distmat(query, query, "cosine").min() >= 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_compared_in_float32(dtype: torch.dtype) -> None:
    query, gallery = (features.to(dtype) for features in draw(4, 9, 32))
    assert torch.equal(compute_distmat(query, gallery), compute_distmat(query.float(), gallery.float()))


def test_settings_for_training_do_not_reach_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = draw(20, 30, 128)
    expected = compute_distmat(query, gallery)
    multiply, seen = torch.addmm, []

    def watch(bias: Tensor, left: Tensor, right: Tensor, alpha: int, out: Tensor) -> Tensor:
        seen.append(torch.get_float32_matmul_precision())
        return multiply(bias, left, right, alpha=alpha, out=out)

    monkeypatch.setattr(torch, "addmm", watch)
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            distmat = compute_distmat(query.requires_grad_(), gallery)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(precision)
    assert seen == ["highest"]
    assert torch.equal(distmat, expected)
    assert not distmat.requires_grad


def test_normalize_features_scales_to_length_one_and_keeps_zero() -> None:
    features = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(normalize_features(features), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    torch.testing.assert_close(compute_distmat(features, features, "cosine"), torch.tensor([[0.0, 1.0], [1.0, 1.0]]))


def test_chunk_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="chunk_size is 0"):
        iterate_distances(*draw(2, 3, 4), chunk_size=0)


def test_mistakes_are_told_at_the_call() -> None:
    query, gallery = draw(3, 4, 5)
    broken = gallery.clone()
    broken[1, 2], broken[3, 0] = torch.nan, torch.inf
    for arguments, message in (
        ((query, gallery, "manhattan"), "unknown distance metric 'manhattan'; allowed: euclidean, cosine"),
        ((query, broken), "2 of 4 gallery features hold NaN or infinite values"),
        ((broken, gallery), "2 of 4 query features hold NaN"),
        ((query, gallery[:, :4]), "query features have 5 dimensions, gallery features 4"),
        ((query[:0], gallery), "no query features"),
        ((query, gallery[:0]), "no gallery features"),
        ((query[0], gallery), r"query features have shape \(5,\)"),
        ((query * 1e19, gallery), "too large for distances in float32"),
    ):
        with pytest.raises(UserError, match=message):
            iterate_distances(*arguments)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_values_of_some_rows_are_those_of_the_whole(count: int) -> None:
    query, gallery = draw(600, 300, 33)
    expected = compute_distmat(query, gallery)
    parts = []
    for index in range(count):
        rows = WorkShare(index, count).rows(len(query), TILE_QUERIES)
        parts += [block.clone() for block in iterate_distances(query, gallery, rows=rows)]
    assert torch.equal(torch.cat(parts), expected)
    assert torch.equal(next(iterate_distances(query, gallery, rows=range(256, 300))), expected[256:300])


def test_rows_start_where_a_product_does() -> None:
    with pytest.raises(ValueError, match="rows start at 3"):
        iterate_distances(*draw(9, 3, 4), rows=range(3, 5))
