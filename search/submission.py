"""Reads what a search, of this project or a stranger's, says of all genotypes, and what it chose."""

import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genotype import NUM_GENOTYPES, Genotype, is_digits
from search.answer import RANKING_NAME, list_digits
from utils.checks import Fits, find_misfit, is_text
from utils.errors import UserError
from utils.read_arrays import read_arrays
from utils.read_file import read_text

ANSWER_NAME = "genotype.json"
_FOUND: dict[str, Fits] = {
    "sources": (lambda v: isinstance(v, list) and all(map(is_text, v)), "a list of data sets' names"),
}  # what is read of how a search was found
_SCORE = re.compile(r"[+-]?(\d+\.?\d*(e[+-]?\d+)?|\.\d+(e[+-]?\d+)?|inf|nan)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Submission:
    """What a search says.

    Attributes:
        name: Of the folder or file.
        digits: The genotype it chose; None: several share the highest score.
        scores: Of each genotype, (4096,), by the number that its digits are in base 4, higher is better; NaN: none.
            None: the search ranks nothing.
        sources: Names of the data sets that it searched on, as far as it says.
        found: What a folder's ``genotype.json`` says of how it was found.
    """

    name: str
    digits: str | None
    scores: np.ndarray | None
    sources: Sequence[str] = ()
    found: Mapping[str, Any] = field(default_factory=dict)


def read_submission(path: Path) -> Submission:
    """Reads a search's folder, or a text file with a genotype's digits and its score on each line.

    A folder holds ``genotype.json`` and, if the search ranks, ``ranking.npz`` with an array ``scores`` (4096,). Of a
    text file the highest score is the choice; not all genotypes need a line, and lines that begin with # are left out.

    Raises:
        UserError: nothing of that kind there; the message names the file and line.
    """
    if not path.is_dir():
        return _read_lines(path)
    answer, ranking = list_files(path)
    if not os.path.lexists(answer):
        raise UserError(f"{path} has no {ANSWER_NAME}: it is no search's folder, or the search has not ended")
    genotype = Genotype.from_json(answer)
    if misfit := find_misfit(genotype.found, _FOUND):
        raise UserError(f"{answer}: {misfit}")
    scores = read_ranking(ranking) if os.path.lexists(ranking) else None
    sources = genotype.found.get("sources", [])
    return Submission(path.resolve().name, genotype.digits, scores, sources, genotype.found)


def list_files(path: Path) -> list[Path]:
    """Lists the files that a search is read from: those of a folder, there or not, or the text file itself."""
    return [path / ANSWER_NAME, path / RANKING_NAME] if path.is_dir() else [path]


def read_ranking(path: Path) -> np.ndarray:
    """Reads the scores of all 4,096 genotypes.

    Raises:
        UserError: the file is damaged, or of another space of architectures.
    """
    (scores,) = read_arrays(path, "ranking", ["scores"])
    if scores.dtype.kind not in "iuf":
        raise UserError(f"{path} is no ranking: its scores are {scores.dtype}, expected are numbers")
    if scores.shape != (NUM_GENOTYPES,):
        raise UserError(f"{path} ranks another space: scores {scores.shape}, expected ({NUM_GENOTYPES},)")
    if not np.isfinite(scores).all():
        raise UserError(f"{path}: {np.count_nonzero(~np.isfinite(scores))} scores are not finite")
    return scores.astype(np.float64)


def _read_lines(path: Path) -> Submission:
    lines = read_text(path, "scores").splitlines()
    scores: dict[str, float] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        digits, text = [*line.strip().split(maxsplit=1), ""][:2]
        if not is_digits(digits) or digits in scores:
            problem = "is there twice" if digits in scores else "is no genotype: six digits from 0 to 3, then a space"
            raise UserError(f"{path}, line {number}: {reprlib.repr(digits)} {problem}")
        if not _SCORE.fullmatch(text):
            raise UserError(f"{path}, line {number}: {reprlib.repr(text)} is no score; expected DIGITS SCORE")
        scores[digits] = float(text)
        if not np.isfinite(scores[digits]):
            raise UserError(f"{path}, line {number}: the score is not finite")
    if not scores:
        raise UserError(f"{path} holds no scores; expected DIGITS SCORE on each line")
    ranking = np.array([scores.get(digits, np.nan) for digits in list_digits()])
    best = max(scores.values())
    first = [digits for digits, score in scores.items() if score == best]
    return Submission(path.name, first[0] if len(first) == 1 else None, ranking)
