"""Re-ranking with k-reciprocal neighbours, sparse and in blocks of rows.

Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017. All N = Q + G images
search one another; two images are near if their sets of k-reciprocal neighbours overlap. An image's set holds tens of
the N, so sets and weights are sparse matrices, and no N × N matrix is ever held: one pass over the distances, in
blocks, keeps each image's nearest, and a second one over Q × G mixes the Jaccard distances with them.
"""

from collections.abc import Iterator

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array
from torch import Tensor

from utils.distance import METRICS, TILE_QUERIES, check_features, iterate_distances, normalize_features
from utils.errors import UserError
from utils.log import progress
from utils.work_share import WHOLE, WorkShare

_PAIRS_AT_ONCE = 2**14
_JACCARD_ROWS = 32
_SORTED_ROWS = 64
_LANES = 256


def rerank(
    query_features: Tensor,
    gallery_features: Tensor,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    *,
    metric: str = "euclidean",
    chunk_size: int = TILE_QUERIES,
) -> Tensor:
    """Computes re-ranked distances between all query and gallery images.

    ``iterate_reranked`` in one tensor of Q × G × 4 bytes; arguments and errors are the same.

    Returns:
        (Q, G) float32 on the CPU, in [0, 1].
    """
    blocks = iterate_reranked(
        query_features, gallery_features, k1, k2, lambda_value, metric=metric, chunk_size=chunk_size
    )
    distmat = torch.empty((len(query_features), len(gallery_features)))
    start = 0
    for block in blocks:
        distmat[start : start + len(block)] = block
        start += len(block)
    return distmat


def iterate_reranked(
    query_features: Tensor,
    gallery_features: Tensor,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    *,
    metric: str = "euclidean",
    chunk_size: int = TILE_QUERIES,
    rows: range | None = None,
    share: WorkShare = WHOLE,
) -> Iterator[Tensor]:
    """Yields the re-ranked distances in blocks of rows, for ``utils.ranking.evaluate_blocks``.

    final = (1 − λ) · Jaccard + λ · d, with d the squared distance divided by its largest value over all N images.
    An image is its own nearest even among copies of itself; other equal distances keep the order of query, gallery.

    Args:
        query_features: (Q, D), on the CPU or a GPU; distances are computed there in float32, the sets on the CPU.
        gallery_features: (G, D), on the same device.
        k1: Neighbours of which the reciprocal ones are kept, at least 1.
        k2: Nearest images, itself included, whose weights are averaged, at least 1; 1 leaves the weights alone.
        lambda_value: λ, the share of the plain distance, in [0, 1].
        metric: ``"euclidean"``, or ``"cosine"`` for features scaled to length 1 first (their squared Euclidean
            distance is twice the cosine distance, and the factor falls out).
        chunk_size: Rows of distances held at once; decides the memory, never the result.
        rows: Queries whose distances are wanted, as for ``utils.distance.iterate_distances``; None for all.
        share: This process's part of the search for neighbours; all processes must call this and take all blocks.

    Yields:
        (rows, G) float32 on the CPU, in the queries' order. The memory is used again for the next block.

    Raises:
        UserError: an unknown metric or features that ``utils.distance.check_features`` refuses.
        ValueError: ``k1``, ``k2``, ``lambda_value`` or ``chunk_size`` is out of its range.
    """
    if k1 < 1 or k2 < 1 or not 0 <= lambda_value <= 1:
        raise ValueError(f"k1 {k1}, k2 {k2}, lambda {lambda_value}: need k1 ≥ 1, k2 ≥ 1, 0 ≤ lambda ≤ 1")
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it must be at least 1")
    if metric not in METRICS:
        raise UserError(f"unknown distance metric '{metric}'; allowed: {', '.join(METRICS)}")
    check_features(query_features, gallery_features)
    if metric == "cosine":
        query_features, gallery_features = normalize_features(query_features), normalize_features(gallery_features)
    rows = range(len(query_features)) if rows is None else rows
    return _iterate_blocks(query_features, gallery_features, k1, k2, lambda_value, chunk_size, rows, share)


def _iterate_blocks(
    query: Tensor,
    gallery: Tensor,
    k1: int,
    k2: int,
    lambda_value: float,
    chunk_size: int,
    rows: range,
    share: WorkShare,
) -> Iterator[Tensor]:
    """The passes of ``iterate_reranked``, apart so that arguments are checked at the call."""
    images = torch.cat([query, gallery]).detach().to(torch.float32)
    images -= images.mean(dim=0).to(torch.bfloat16)  # as in ``iterate_distances``; pairs' differences lose less too
    query, gallery = images[: len(query)], images[len(query) :]
    neighbours, largest = _find_neighbours(images, max(k1 + 1, k2), chunk_size, share)
    sets = compute_reciprocal_sets(neighbours, k1)
    weights = _weigh(sets, images, largest)
    del sets
    if k2 > 1:
        weights = csr_array(_as_rows(neighbours[:, :k2], len(neighbours)) @ weights)
        weights.data /= min(k2, len(neighbours))
    of_query, of_gallery = weights[: len(query)], weights[len(query) :].tocsc()
    del weights
    start = rows.start
    for distances in iterate_distances(query, gallery, "euclidean", chunk_size, rows):
        block = distances.cpu()
        final = block.numpy()
        final *= np.float32(lambda_value) / largest[start : start + len(final), None]
        for first in range(0, len(final), _JACCARD_ROWS):
            part = final[first : first + _JACCARD_ROWS]
            overlap = _sum_minima(of_query[start + first : start + first + len(part)], of_gallery)
            np.minimum(overlap, 1, out=overlap)  # rows sum to 1, but for rounding
            part += (1 - lambda_value) * (1 - overlap / (2 - overlap))
        yield block
        start += len(final)


def compute_reciprocal_sets(neighbours: np.ndarray, k1: int) -> csr_array:
    """Computes every image's expanded set of k-reciprocal neighbours (the paper's R*).

    Args:
        neighbours: (N, ≥ k1 + 1) integer, each image's nearest images from near to far, itself first.
        k1: As for ``rerank``.

    Returns:
        (N, N) sparse, row i's non-zero columns are the set of image i.
    """
    num_images = len(neighbours)
    full = _reciprocal(neighbours[:, : k1 + 1], num_images)
    half = _reciprocal(neighbours[:, : int(np.around(k1 / 2)) + 1], num_images)
    # half is symmetric: (full @ half)[i, c] counts the images that the sets of i and c share.
    shared = csr_array((full @ half) * full)
    sizes = np.diff(half.indptr)
    shared.data = (3 * shared.data > 2 * sizes[shared.indices]).astype(np.float32)
    shared.eliminate_zeros()
    expanded = csr_array(full + shared @ half)
    expanded.sort_indices()
    return expanded


def _reciprocal(neighbours: np.ndarray, num_images: int) -> csr_array:
    """Marks the pairs (i, j) in which each is among the other's ``neighbours``; symmetric."""
    forward = _as_rows(neighbours, num_images)
    return csr_array(forward * forward.T.tocsr())


def _as_rows(neighbours: np.ndarray, num_images: int) -> csr_array:
    """Returns the (N, N) sparse matrix that is 1 at each image's ``neighbours``."""
    starts = np.arange(num_images + 1) * neighbours.shape[1]
    ones = np.ones(neighbours.size, dtype=np.float32)
    return csr_array((ones, neighbours.ravel(), starts.astype(neighbours.dtype)), shape=(num_images, num_images))


def _find_neighbours(images: Tensor, count: int, chunk_size: int, share: WorkShare) -> tuple[np.ndarray, np.ndarray]:
    """Finds each image's nearest images, itself first, and its largest distance to any; each process its share.

    Returns:
        (N, min(count, N)) int32 from near to far; (N,) float32, 1 where all distances are 0.
    """
    count, rows = min(count, len(images)), share.rows(len(images), TILE_QUERIES)
    neighbours = np.empty((len(rows), count), dtype=np.int32)
    largest = np.empty(len(rows), dtype=np.float32)
    blocks = iterate_distances(images, images, "euclidean", chunk_size, rows)
    start = 0
    for block in progress(blocks, -(-len(rows) // max(chunk_size, TILE_QUERIES)), "re-ranking, neighbours"):
        largest[start : start + len(block)] = block.amax(dim=1).cpu().numpy()
        block.diagonal(offset=rows.start + start).fill_(-1)
        for part in block.split(_SORTED_ROWS):
            neighbours[start : start + len(part)] = find_nearest(part, count).cpu().numpy()
            start += len(part)
    neighbours, largest = (np.concatenate(parts) for parts in zip(*share.gather((neighbours, largest)), strict=True))
    return neighbours, np.where(largest > 0, largest, np.float32(1))


def find_nearest(distances: Tensor, count: int) -> Tensor:
    """Finds the columns of the ``count`` smallest entries of each row, from small to large, ties in column order.

    Columns are dealt into lanes; the ``count``-th smallest of the lanes' minima is at least the ``count``-th smallest
    entry, so all that is wanted lies at or below it, and only that is sorted.

    Args:
        distances: (B, N) float.
        count: At most N.

    Returns:
        (B, count) int64.
    """
    num_rows, num_columns = distances.shape
    if count > _LANES or num_columns < 2 * _LANES:
        return distances.sort(dim=1, stable=True).indices[:, :count]
    dealt = distances[:, : num_columns // _LANES * _LANES].unflatten(1, (-1, _LANES))
    bound = dealt.amin(dim=1).kthvalue(count, dim=1).values
    rows, columns = (distances <= bound[:, None]).nonzero(as_tuple=True)
    sizes = torch.bincount(rows, minlength=num_rows)
    place = torch.arange(len(rows), device=rows.device) - (sizes.cumsum(0) - sizes)[rows]
    candidates = distances.new_full((num_rows, int(sizes.max())), torch.inf)
    candidates[rows, place] = distances[rows, columns]
    column_of = columns.new_zeros(candidates.shape)
    column_of[rows, place] = columns
    return column_of.gather(1, candidates.sort(dim=1, stable=True).indices[:, :count])


def _weigh(sets: csr_array, images: Tensor, largest: np.ndarray) -> csr_array:
    """Weighs each image's set with exp(−d), each row to the sum 1."""
    rows = np.repeat(np.arange(sets.shape[0], dtype=np.int64), np.diff(sets.indptr))
    distances = np.empty(sets.nnz, dtype=np.float32)
    for start in range(0, sets.nnz, _PAIRS_AT_ONCE):
        pairs = slice(start, start + _PAIRS_AT_ONCE)
        left = torch.from_numpy(rows[pairs]).to(images.device)
        right = torch.from_numpy(sets.indices[pairs].astype(np.int64)).to(images.device)
        distances[pairs] = (images[left] - images[right]).square_().sum(dim=1).cpu().numpy()
    weights = np.exp(-distances / largest[rows])
    sums = np.bincount(rows, weights=weights, minlength=sets.shape[0])
    return csr_array(((weights / sums[rows]).astype(np.float32), sets.indices, sets.indptr), shape=sets.shape)


def _sum_minima(left: csr_array, right: csc_array) -> np.ndarray:
    """Computes Σ_t min(left[i, t], right[j, t]) for all pairs of rows, (B, G) float64.

    The numerator of the Jaccard similarity. Each of left's entries meets the non-zero entries of right's column t.
    """
    num_left, num_right = left.shape[0], right.shape[0]
    sizes = np.diff(right.indptr)[left.indices]
    ends = np.cumsum(sizes, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    entries = np.arange(total) + np.repeat(right.indptr[left.indices] - (ends - sizes), sizes)
    minima = np.minimum(np.repeat(left.data, sizes), right.data[entries])
    rows = np.repeat(np.arange(num_left, dtype=np.int64), np.diff(left.indptr))
    cells = np.repeat(rows * num_right, sizes) + right.indices[entries]
    return np.bincount(cells, weights=minima, minlength=num_left * num_right).reshape(num_left, num_right)
