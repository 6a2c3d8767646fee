"""What a table's file holds: its header and its rows, each value checked when it is read."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from genotype import is_digits
from utils.checks import Fits, are_texts, find_misfit, is_text, is_whole

FORMAT, VERSION = "osnet-table", 1
_KEY = ("digits", "seed", "fold", "epochs")  # what makes a row itself
_DECIMALS = 5


@dataclass(frozen=True)
class Row:
    """One training at one of its budgets; see ``tables/README.md`` for the columns.

    Attributes:
        digits: The genotype.
        seed: Of the training.
        fold: Which of the held-out folds.
        epochs: The budget.
        of_epochs: Epochs of the whole training, of which this is a stage.
        image_passes: Images that passed forward and backward up to the budget.
        scores: By name, such as ``synthetic_b/mAP``, in [0, 1].
        loss: Mean training loss of the budget's last epoch.
        recipe: Stands for all settings that change what is computed, except genotype, seed and fold.
        images: Stands for the images of sources and targets.
        numerics: Version of the code's arithmetic.
        seconds: That the whole training took, tests included.
        machine: Processor.
        versions: Of Python, torch and torchvision.
    """

    digits: str
    seed: int
    fold: int
    epochs: int
    of_epochs: int
    image_passes: int
    scores: Mapping[str, float]
    loss: float
    recipe: str
    images: str
    numerics: int
    seconds: float
    machine: str
    versions: Mapping[str, str]

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes the row itself; the order of a table's rows."""
        return tuple(getattr(self, name) for name in _KEY)

    def format(self) -> str:
        """Returns the row's line."""
        document = asdict(self)
        document["scores"] = {name: round(value, _DECIMALS) for name, value in sorted(self.scores.items())}
        document["loss"] = round(self.loss, _DECIMALS)
        return json.dumps(document, separators=(",", ":")) + "\n"


def read_row(document: Mapping[str, Any]) -> Row:
    """Reads a row's columns.

    Raises:
        ValueError: columns that are missing, that no row has, or that hold what they cannot.
    """
    if document.keys() != COLUMNS.keys():
        wrong = sorted(document.keys() ^ COLUMNS.keys())
        raise ValueError(f"lacks or has too many columns: {', '.join(wrong)[:200]}")
    scores = document["scores"]
    # of many scores only those that cannot be are shown
    refused = {name: v for name, v in scores.items() if not _is_score(v)} if isinstance(scores, dict) else {}
    if misfit := find_misfit({**document, "scores": refused or scores}, COLUMNS):
        raise ValueError(f"cannot be: {misfit}")
    if document["epochs"] > document["of_epochs"]:
        raise ValueError(
            f"cannot be: epochs is {document['epochs']}, expected is at most of_epochs, {document['of_epochs']}"
        )
    return Row(**document)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e15  # nor is it NaN


def _is_score(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(map(is_text, value)) and len({*value}) == len(value)


_epochs: Fits = is_whole(1, 10**9)
COLUMNS: dict[str, Fits] = {
    "digits": (lambda v: is_text(v) and is_digits(v), "a genotype, six digits from 0 to 3 in quotes"),
    "seed": is_whole(0, 2**63 - 1),
    "fold": is_whole(0, 1000),
    "epochs": _epochs,
    "of_epochs": _epochs,
    "image_passes": is_whole(0, 10**15),
    "scores": (lambda v: isinstance(v, dict) and all(map(_is_score, v.values())), "scores from 0 to 1 by name"),
    "loss": (_is_number, "a number"),
    "recipe": (is_text, "text"),
    "images": (is_text, "text"),
    "numerics": is_whole(1, 10**9),
    "seconds": (lambda v: _is_number(v) and v >= 0, "a number from 0"),
    "machine": (is_text, "text"),
    "versions": (are_texts, "versions by name"),
}  # of a row: what fits, and in words
GROUPS: Fits = (
    lambda v: isinstance(v, dict) and all(map(_are_names, v.values())),
    "names of scores, at least one and none twice, by the group's name",
)
HEADER: dict[str, Fits] = {"about": (is_text, "text"), "groups": GROUPS}
