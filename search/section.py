"""What a study says of a table: a text, and a picture."""

from typing import NamedTuple

from search.compare import Mean
from search.orders import Interval
from search.picture import Mark, Picture


class Section(NamedTuple):
    """What a study says of one table: a text, and a picture that comes before it."""

    text: str
    picture: Picture | None = None


def mark(found: Interval | Mean | None) -> Mark | None:
    """Returns the mark of a value with an interval."""
    if isinstance(found, Mean):
        return Mark(found.mean, found.mean - found.half_width, found.mean + found.half_width)
    return Mark(found.value, found.low, found.high) if found else None
