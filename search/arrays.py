"""Orthogonal arrays: few architectures, chosen so that every effect can be told from every other.

32 runs: a linear array over GF(2). The runs are the vectors of GF(2)⁵; a factor of four levels is a plane of linear
functions of them, and two factors are orthogonal where their planes meet in 0 alone. Nine such planes exist: with
GF(8) = GF(2)³ and u in a plane of it, {(u, a·u)} for each of the eight a, and one plane of {(0, v)}. Six serve as
blocks, one as the fold; what is left of the 31 functions gives columns of two levels, one of which is the seed's.

64 runs: the hexacode, codewords (a, b, c, f(1), f(ω), f(ω²)) over GF(4) with f(x) = a·x² + b·x + c. Any three blocks
show each of their 64 combinations once (strength 3), so no effect of one block is mixed up with an interaction of two
others. Folds and seeds are further linear columns: orthogonal to every block, each mixed up with some interactions.

Source: Hedayat, Sloane, Stufken, "Orthogonal Arrays" (1999), chapters 3 and 5.
"""

import itertools
import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from genotype import NUM_BLOCKS, NUM_CANDIDATES
from utils.errors import UserError

SIZES = (32, 64)
T = TypeVar("T")
_NATURAL_FOLDS = 4  # levels of the fold's column


class Run(NamedTuple):
    """One training of a plan."""

    digits: str  # the genotype
    fold: int
    seed_index: int  # 0 or 1: which of two seeds


def plan_runs(num_runs: int, seed: int, num_folds: int = _NATURAL_FOLDS, num_extra: int = 0) -> list[Run]:
    """Plans a designed experiment over the six blocks.

    Args:
        num_runs: 32 or 64; the array's.
        seed: Of the candidates' order in each block, which gives another fraction of all architectures, and of the
            extra ones.
        num_folds: Folds of held-out images; with 2 or 4 orthogonal to the blocks, else as even as can be.
        num_extra: Runs of architectures that the array lacks, drawn at random.

    Returns:
        The array's runs in random order, then the extra ones.

    Raises:
        UserError: another size, or more extra architectures than there are.
    """
    if num_runs not in SIZES:
        raise UserError(f"nas.design.runs {num_runs}: allowed are {', '.join(map(str, SIZES))}")
    rows = make_array_32() if num_runs == 32 else make_array_64()
    generator = random.Random(seed)
    relabel = [_shuffled(range(NUM_CANDIDATES), generator) for _ in range(NUM_BLOCKS)]
    folds = _spread_folds(rows, num_folds)
    runs = [
        Run("".join(str(levels[k]) for levels, k in zip(relabel, row, strict=False)), fold, row[NUM_BLOCKS + 1])
        for row, fold in zip(rows, folds, strict=True)
    ]
    planned = {run.digits for run in runs}
    others = [d for d in map("".join, itertools.product("0123", repeat=NUM_BLOCKS)) if d not in planned]
    if num_extra > len(others):
        raise UserError(f"{num_extra} extra architectures asked for, but only {len(others)} are left")
    extra = _shuffled(others, generator)[:num_extra]
    return _shuffled(runs, generator) + [Run(d, i % num_folds, i // num_folds % 2) for i, d in enumerate(extra)]


def make_array_32() -> list[tuple[int, ...]]:
    """Returns 32 rows: six blocks' levels 0–3, a fold 0–3, a seed 0–1; every two columns are orthogonal."""
    planes = [[(u, _multiply_gf8(a, u)) for u in (1, 2)] for a in range(7)]
    functions = [[u << 3 | v for u, v in plane] for plane in planes]
    used = {w for first, second in functions for w in (first, second, first ^ second)}
    seed = next(w for w in range(1, 32) if w not in used)
    return [
        (*(2 * _parity(x & first) + _parity(x & second) for first, second in functions), _parity(x & seed))
        for x in range(32)
    ]


def make_array_64() -> list[tuple[int, ...]]:
    """Returns 64 rows: six blocks' levels 0–3 of strength 3, a fold 0–3, a seed 0–1, each orthogonal to every block."""
    rows = []
    for a, b, c in itertools.product(range(4), repeat=3):
        values = [_multiply_gf4(a, _multiply_gf4(x, x)) ^ _multiply_gf4(b, x) ^ c for x in (1, 2, 3)]
        fold, seed = a ^ b, a ^ _multiply_gf4(2, b)
        rows.append((a, b, c, *values, fold, seed & 1))
    return rows


def _spread_folds(rows: Sequence[Sequence[int]], num_folds: int) -> list[int]:
    """Spreads runs over ``num_folds`` folds: by joining the fold column's levels, else as even as can be.

    Runs change folds two by two as long as that makes a block's levels, and the seeds', come more equally often in
    each fold: as long as runs of one fold agree in fewer levels.
    """
    column = [row[NUM_BLOCKS] for row in rows]
    if num_folds in (2, 4):
        return [level % num_folds for level in column]
    folds = np.empty(len(rows), dtype=int)
    folds[np.argsort(column, kind="stable")] = np.arange(len(rows)) % num_folds
    levels = np.delete(np.array(rows), NUM_BLOCKS, axis=1)
    agreeing = (levels[:, None] == levels).sum(axis=2)
    while True:
        with_fold = agreeing @ np.eye(num_folds, dtype=int)[folds]  # (runs, folds)
        change = with_fold[:, folds] - with_fold[np.arange(len(rows)), folds][:, None] - agreeing + levels.shape[1]
        change = np.where(folds[:, None] == folds, 0, change + change.T)
        one, other = np.unravel_index(change.argmin(), change.shape)
        if change[one, other] >= 0:
            return folds.tolist()
        folds[[one, other]] = folds[[other, one]]


def _shuffled(items: Sequence[T], generator: random.Random) -> list[T]:
    """Returns items in random order, the same in every version of Python."""
    numbered = [(generator.random(), i) for i in range(len(items))]
    return [items[i] for _, i in sorted(numbered)]


def _parity(bits: int) -> int:
    return bits.bit_count() % 2


def _multiply_gf4(a: int, b: int) -> int:
    """Multiplies in GF(4), elements as polynomials over GF(2) modulo x² + x + 1."""
    return _multiply_modulo(a, b, 0b111, 2)


def _multiply_gf8(a: int, b: int) -> int:
    """Multiplies in GF(8), modulo x³ + x + 1."""
    return _multiply_modulo(a, b, 0b1011, 3)


def _multiply_modulo(a: int, b: int, modulus: int, degree: int) -> int:
    product = 0
    for power in range(degree):
        if b >> power & 1:
            product ^= a << power
    for power in range(2 * degree - 2, degree - 1, -1):
        if product >> power & 1:
            product ^= modulus << (power - degree)
    return product
