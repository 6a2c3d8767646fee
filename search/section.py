"""What a study says: a text, and a picture's numbers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from search.compare import Mean
from search.format_studies import format_interval
from search.orders import Interval


class Mark(NamedTuple):
    """A value with the ends of its interval, NaN where it has none; filled where it is sure."""

    value: float
    low: float
    high: float
    is_filled: bool = True


class Picture(NamedTuple):
    """What a picture shows.

    Attributes:
        about: What it is of, in words.
        series: By label, a mark for each tick; None: nothing there.
        ticks: What the marks are of.
        y_name: What the values are.
    """

    about: str
    series: Mapping[str, Sequence[Mark | None]]
    ticks: Sequence[str]
    y_name: str

    def describe(self) -> str:
        """Writes all that it shows, so that it can be compared with another."""
        lines = [f"{self.about}; {self.y_name}"]
        for label, marks in self.series.items():
            shown = zip(self.ticks, marks, strict=True)
            values = [f"{t} {format_interval(Interval(*m[:3]), '.3f')}" for t, m in shown if m is not None]
            lines.append(f"{label}: {', '.join(values)}")
        return "\n".join(lines)


class Section(NamedTuple):
    """What a study says of one table: a text, and a picture that comes before it."""

    text: str
    picture: Picture | None = None


def mark(found: Interval | Mean | None) -> Mark | None:
    """Returns the mark of a value with an interval."""
    if isinstance(found, Mean):
        return Mark(found.mean, found.mean - found.half_width, found.mean + found.half_width)
    return Mark(found.value, found.low, found.high) if found else None
