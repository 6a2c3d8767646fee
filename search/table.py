"""Tables of really trained networks: the judge of every search, and a benchmark that needs no GPU and no images.

A table is a text file, one JSON object per line: first a header, then rows in order. A row is one training at one of
its budgets; rows of the same genotype, seed and fold come from the same training.

    table = Table.load("synthetic_a_x0_25")
    table.query("110110", metric="unseen/mAP", budget=20)       # Entry(mean=…, sd=…, seeds=…), as trained
    table.adjust("unseen/mAP", budget=20)["110110"]             # its trainings, to be compared with others
    table.predict("unseen/mAP", budget=20).predictions          # all 4,096, by search.effects
"""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genotype import is_digits
from search.effects import EffectsFit, fit_effects
from search.table_row import FORMAT, HEADER, VERSION, Row, read_row
from search.trainings import Observation, list_by_architecture
from utils.checks import find_misfit
from utils.errors import UserError
from utils.files import write_atomically
from utils.read_file import parse_json, read_text
from utils.suggest import nearest

FOLDER = Path(__file__).parents[1] / "tables"
UNSEEN = "unseen/mAP"  # the group that plays the part of other cities in every table
_SAME = ("of_epochs", "recipe", "images", "numerics")  # what all rows of a table share
_NUM_NEAREST = 3


@dataclass(frozen=True)
class Entry:
    """What a table says of one architecture, as it was trained: its scores depend on which fold was held out.

    Attributes:
        mean: Over the seeds.
        sd: Sample standard deviation over the seeds, NaN for one.
        seeds: How many trainings.
        parts: Of a metric that is a mean over several targets: each one's mean over the seeds.
    """

    mean: float
    sd: float
    seeds: int
    parts: Mapping[str, float]


class Table:
    """Rows of really trained networks.

    Args:
        name: For messages.
        groups: Metrics that are means over several, such as ``{"unseen/mAP": ["synthetic_b/mAP", …]}``.
        rows: Of one recipe, one set of images and one version of the arithmetic.
        about: What the table is, in a sentence.

    Raises:
        UserError: rows that do not belong together.
    """

    def __init__(self, name: str, groups: Mapping[str, Sequence[str]], rows: Iterable[Row], about: str = "") -> None:
        self.name, self.groups, self.about = name, {k: list(v) for k, v in groups.items()}, about
        self.rows: list[Row] = []
        self.add(rows)

    @classmethod
    def load(cls, name: str | Path) -> "Table":
        """Loads a table of the repository by its name, or any by its path.

        Raises:
            UserError: no such table, or a damaged one; the message names the line.
        """
        path = find_table(name)
        lines = read_text(path, "table").splitlines()
        header = _parse_line(path, 1, lines[0] if lines else "")
        if header.get("format") != FORMAT or header.get("version") != VERSION:
            raise UserError(f"{path} is no table of this program's format {FORMAT} {VERSION}")
        if misfit := find_misfit(header, HEADER):
            raise UserError(f"{path}, line 1 cannot be: {misfit}")
        rows: dict[tuple[Any, ...], Row] = {}
        for number, line in enumerate(lines[1:], 2):
            try:
                row = read_row(_parse_line(path, number, line))
            except ValueError as error:
                raise UserError(f"{path}, line {number} {error}") from error
            if rows and (changed := _list_differences(next(iter(rows.values())), row)):
                raise UserError(f"{path}, line {number} is of other trainings than line 2: {changed}")
            if row.key in rows:
                raise UserError(f"{path}, line {number} is of a training and budget that an earlier line has; keep one")
            rows[row.key] = row
        return cls(path.stem, header.get("groups", {}), rows.values(), header.get("about", ""))

    def add(self, rows: Iterable[Row]) -> int:
        """Adds rows that are not there yet, in order; returns how many were.

        Raises:
            UserError: a row of another recipe, other images, another arithmetic or another length of training; the
                message shows the difference.
        """
        known = {row.key for row in self.rows}
        num_before = len(self.rows)
        for row in rows:
            if self.rows and (changed := _list_differences(self.rows[0], row)):
                raise UserError(f"{row.digits}, seed {row.seed} does not belong to table {self.name}: {changed}")
            if row.key not in known:
                known.add(row.key)
                self.rows.append(row)
        self.rows.sort(key=lambda row: row.key)
        return len(self.rows) - num_before

    def format(self) -> str:
        """Returns the file's text."""
        header = {"format": FORMAT, "version": VERSION, "about": self.about, "groups": self.groups}
        return json.dumps(header, separators=(",", ":")) + "\n" + "".join(row.format() for row in self.rows)

    @property
    def budgets(self) -> list[int]:
        """Numbers of epochs at which there are scores, rising."""
        return sorted({row.epochs for row in self.rows})

    @property
    def metrics(self) -> list[str]:
        """Names of all scores, groups included."""
        return sorted({*self.groups, *(name for row in self.rows for name in row.scores)})

    def at(self, budget: int | None = None) -> list[Row]:
        """Lists the rows of a budget, in epochs; None: the largest.

        Raises:
            UserError: there are none; the message names the budgets.
        """
        budget = self.budgets[-1] if budget is None and self.rows else budget
        rows = [row for row in self.rows if row.epochs == budget]
        if not self.rows:
            raise UserError(f"table {self.name} has no rows yet")
        if not rows:
            shown = repr(budget) if isinstance(budget, str) else budget
            raise UserError(f"table {self.name} has no rows at {shown} epochs; it has {self.budgets}")
        return rows

    def score(self, row: Row, metric: str) -> float:
        """Returns a row's score, of a group the mean.

        Raises:
            UserError: an unknown metric; the message names the nearest.
        """
        names = self.groups.get(metric, [metric])
        if missing := [name for name in names if name not in row.scores]:
            if any(missing[0] in other.scores for other in self.rows):
                raise UserError(f"table {self.name}: the row of {row.digits}, seed {row.seed}, fold {row.fold}, "
                                f"{row.epochs} epochs lacks the score {missing[0]!r}")  # fmt: skip
            if metric in self.groups:
                raise UserError(f"table {self.name}: its group {metric} is of {missing[0]!r}, a score that no row has")
            help_ = "" if metric == UNSEEN else nearest(metric, self.metrics)  # what judges has no substitute
            help_ = help_ or f"; it has {', '.join(self.metrics)}"
            raise UserError(f"table {self.name} has no score {metric!r}{help_}")
        return float(np.mean([row.scores[name] for name in names]))

    def query(self, digits: str, metric: str, budget: int | None = None) -> Entry:
        """Returns what the table says of one architecture, as it was trained; see ``adjust`` to compare several.

        Args:
            digits: The genotype, such as ``110110``.
            metric: A score's name, or a group's.
            budget: In epochs; None: the largest.

        Raises:
            UserError: it is not there; the message names the architectures that are nearest.
        """
        rows = [row for row in self.at(budget) if row.digits == digits]
        if not rows:
            raise UserError(f"table {self.name} has not trained {digits}{self._name_nearest(digits, budget)}")
        scores = [self.score(row, metric) for row in rows]
        parts = {name: float(np.mean([row.scores[name] for row in rows])) for name in self.groups.get(metric, ())}
        sd = float(np.std(scores, ddof=1)) if len(scores) > 1 else float("nan")
        return Entry(float(np.mean(scores)), sd, len(scores), parts)

    def adjust(self, metric: str, budget: int | None = None) -> dict[str, np.ndarray]:
        """Lists the scores of each architecture's trainings, the parts of fold and seed taken out, by its digits.

        They are what searches are judged by, and the ones to compare architectures by: a fold's people may be harder.

        Raises:
            UserError: too few rows to know these parts.
        """
        return list_by_architecture(self.observe(metric, budget))

    def observe(self, metric: str, budget: int | None = None) -> list[Observation]:
        """Lists the scores of a budget as the fit takes them."""
        return [Observation(row.digits, row.fold, row.seed, self.score(row, metric)) for row in self.at(budget)]

    def predict(self, metric: str, budget: int | None = None) -> EffectsFit:
        """Predicts all 4,096 genotypes, with intervals and the fit's own error; see ``search.effects``.

        Raises:
            UserError: too few rows.
        """
        return fit_effects(self.observe(metric, budget))

    def _name_nearest(self, digits: str, budget: int | None) -> str:
        """Names the architectures that differ in the fewest blocks."""
        if not isinstance(digits, str) or not is_digits(digits):
            return ": a genotype is six digits from 0 to 3, as text"
        there = sorted({row.digits for row in self.at(budget)})
        there.sort(key=lambda other: sum(a != b for a, b in zip(digits, other, strict=True)))
        return f"; the nearest there are {', '.join(there[:_NUM_NEAREST])}"


def find_table(name: str | Path) -> Path:
    """Returns the path of a table of the repository, or of any file.

    Raises:
        UserError: neither.
    """
    for path in (FOLDER / f"{name}.jsonl", Path(name)):
        if path.is_file():
            return path
    known = sorted(path.stem for path in FOLDER.glob("*.jsonl"))
    raise UserError(
        f"no table {str(name)!r}{nearest(str(name), known)}; the repository has {', '.join(known) or 'none'}"
    )


def append_rows(path: Path, groups: Mapping[str, Sequence[str]], rows: Iterable[Row], about: str = "") -> int:
    """Adds rows to a table's file, all or nothing, while other processes may do the same; returns how many were new.

    Raises:
        UserError: rows that do not belong to this table, or the file cannot be written.
    """
    with _locked(path):
        table = Table.load(path) if path.is_file() else Table(path.stem, groups, [], about)
        table.groups, table.about = {k: list(v) for k, v in groups.items()}, about
        num_new = table.add(rows)
        write_atomically(path, table.format())
    return num_new


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keeps other processes from changing a table; the lock is a file beside it."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        # a link is not followed, a pipe not waited for, and nothing emptied
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        with os.fdopen(descriptor, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        advice = "; remove what is there" if error.errno in (errno.ELOOP, errno.EISDIR) else ""
        raise UserError(f"cannot lock {path} by {lock}: {error.strerror}{advice}") from error


def _parse_line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        document = parse_json(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}, line {number} holds no columns")
    return document


def list_changed(row: Row, columns: Mapping[str, Any]) -> list[str]:
    """Lists in words the columns in which a row that is there differs from what is given."""
    given = ((key, getattr(row, key), here) for key, here in columns.items())
    return [f"{key} {there} there, {here} here" for key, there, here in given if there != here]


def _list_differences(first: Row, row: Row) -> str:
    """Lists in words what two rows should share and do not."""
    return "; ".join(list_changed(first, {key: getattr(row, key) for key in _SAME}))
