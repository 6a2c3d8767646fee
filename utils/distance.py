"""Distances between features, block by block, with values that do not depend on the size of a block.

A float32 matrix product may round differently when its shape changes, which is enough to swap two images in a ranking.
So every product here has the same shape: ``TILE_QUERIES`` rows by ``TILE_GALLERY`` columns at fixed places of the
matrix, the last tile filled up with zeros. A bigger block is more tiles, never another product.

A squared distance is |q|² + |g|² − 2qg, which loses a small distance between long features. So what all features have
in common, about the mean of the gallery, is taken off both sides first.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.errors import UserError

METRICS = ("euclidean", "cosine")
TILE_QUERIES = 256
TILE_GALLERY = 4096


def normalize_features(features: Tensor) -> Tensor:
    """Scales every feature to length 1.

    Args:
        features: (N, D); a zero row stays zero.

    Returns:
        (N, D) float32.
    """
    features = features.to(torch.float32)
    largest = features.abs().amax(dim=1, keepdim=True)  # whose square may be too large or too small for float32
    return F.normalize(features / torch.where(largest > 0, largest, 1), dim=1)


def check_features(query_features: Tensor, gallery_features: Tensor) -> None:
    """Checks that two sets of features can be compared.

    Raises:
        UserError: a set is empty, not (N, D), of another D than the other, or holds NaN or infinite values.
    """
    for name, features in (("query", query_features), ("gallery", gallery_features)):
        if features.ndim != 2:
            raise UserError(f"{name} features have shape {tuple(features.shape)}; expected (images, dimensions)")
        if not len(features):
            raise UserError(f"no {name} features; the test needs at least one {name} image")
        broken = len(features) - int(torch.isfinite(features).all(dim=1).sum())
        if broken:
            raise UserError(
                f"{broken} of {len(features)} {name} features hold NaN or infinite values; "
                "check the weights they were extracted with"
            )
    if query_features.shape[1] != gallery_features.shape[1]:
        raise UserError(
            f"query features have {query_features.shape[1]} dimensions, gallery features "
            f"{gallery_features.shape[1]}; extract both with the same network"
        )


def iterate_distances(
    query_features: Tensor,
    gallery_features: Tensor,
    metric: str = "euclidean",
    chunk_size: int = TILE_QUERIES,
    rows: range | None = None,
) -> Iterator[Tensor]:
    """Yields the distance matrix in blocks of rows, on the features' device.

    Args:
        query_features: (Q, D), any float type; products are float32.
        gallery_features: (G, D), on the same device.
        metric: ``"euclidean"``: squared Euclidean distance, at least 0; ``"cosine"``: 1 − cosine, in [0, 2].
        chunk_size: Rows held at once, at least 1, rounded up to a multiple of ``TILE_QUERIES``; it decides the memory
            (``chunk_size`` × G × 4 bytes) and no value.
        rows: Queries whose distances are wanted, neighbours of one another, the first at a multiple of
            ``TILE_QUERIES``; None for all. Values are those of the whole matrix.

    Yields:
        (rows, G) float32, in the queries' order. The memory is used again for the next block: copy what is to be kept.

    Raises:
        UserError: an unknown metric, features that ``check_features`` refuses, or too large for float32.
        ValueError: ``chunk_size`` is below 1, or ``rows`` start elsewhere.
    """
    rows = range(len(query_features)) if rows is None else rows
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it must be at least 1")
    if len(rows) and rows.start % TILE_QUERIES:
        raise ValueError(f"rows start at {rows.start}, which is no multiple of {TILE_QUERIES}")
    if metric not in METRICS:
        raise UserError(f"unknown distance metric '{metric}'; allowed: {', '.join(METRICS)}")
    check_features(query_features, gallery_features)
    query, gallery = query_features.detach().to(torch.float32), gallery_features.detach().to(torch.float32)
    if metric == "cosine":
        query, gallery = normalize_features(query), normalize_features(gallery)
    query_is_zero, gallery_is_zero = (~query.any(dim=1), ~gallery.any(dim=1))
    centre = gallery.mean(dim=0).to(torch.bfloat16).float()  # rounded, so that the order of the sum does not matter
    query, gallery = query - centre, gallery - centre
    query_norms, gallery_norms = query.square().sum(dim=1), gallery.square().sum(dim=1)
    if not torch.isfinite(4 * (query_norms.max() + gallery_norms.max())):  # no distance is larger than half of it
        raise UserError("features are too large for distances in float32; scale or normalise them")
    if metric == "cosine":  # half of the squared distance of features of length 1, and 1 where one has none
        query, gallery = query * 0.5**0.5, gallery * 0.5**0.5
        query_norms, gallery_norms = (query_norms + query_is_zero) / 2, (gallery_norms + gallery_is_zero) / 2
    return _iterate_blocks(query, gallery, query_norms, gallery_norms, chunk_size, rows)


def compute_distmat(query_features: Tensor, gallery_features: Tensor, metric: str = "euclidean") -> Tensor:
    """Computes the whole distance matrix: the blocks of ``iterate_distances`` in one tensor.

    Returns:
        (Q, G) float32 on the features' device.
    """
    distmat = query_features.new_empty((len(query_features), len(gallery_features)), dtype=torch.float32)
    start = 0
    for block in iterate_distances(query_features, gallery_features, metric):
        distmat[start : start + len(block)] = block
        start += len(block)
    return distmat


def _iterate_blocks(
    query: Tensor, gallery: Tensor, query_norms: Tensor, gallery_norms: Tensor, chunk_size: int, wanted: range
) -> Iterator[Tensor]:
    """The loop of ``iterate_distances``, apart so that arguments are checked at the call and not at the first block."""
    rows = -(-min(chunk_size, len(wanted)) // TILE_QUERIES) * TILE_QUERIES
    tiles = gallery.split(TILE_GALLERY)
    tiles = (*tiles[:-1], _pad_rows(tiles[-1], TILE_GALLERY))
    tile_norms = F.pad(gallery_norms, (0, len(tiles) * TILE_GALLERY - len(gallery))).split(TILE_GALLERY)
    block = query.new_empty((rows, len(tiles) * TILE_GALLERY))
    for start in wanted[:: max(rows, 1)]:
        count = min(rows, wanted.stop - start)
        with _exact_products():
            for first in range(0, count, TILE_QUERIES):
                at = slice(start + first, start + first + TILE_QUERIES)
                queries = _pad_rows(query[at], TILE_QUERIES)
                norms = F.pad(query_norms[at], (0, TILE_QUERIES - len(query_norms[at])))
                for column, (tile, tile_norm) in enumerate(zip(tiles, tile_norms, strict=True)):
                    columns = slice(column * TILE_GALLERY, (column + 1) * TILE_GALLERY)
                    out = block[first : first + TILE_QUERIES, columns]
                    torch.addmm(tile_norm, queries, tile.T, alpha=-2, out=out)
                    out.add_(norms[:, None]).clamp_(min=0)
        yield block[:count, : len(gallery)]


def _pad_rows(features: Tensor, num_rows: int) -> Tensor:
    return F.pad(features, (0, 0, 0, num_rows - len(features))).contiguous()


@contextmanager
def _exact_products() -> Iterator[None]:
    """Keeps products in full float32 where training has allowed TF32; autocast leaves products with ``out`` alone."""
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # the program uses PyTorch's newer switch, which does not go with this one
        switch = torch.backends.cuda.matmul
        before, switch.fp32_precision = switch.fp32_precision, "ieee"
        try:
            with torch.no_grad():
                yield
        finally:
            switch.fp32_precision = before
        return
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
