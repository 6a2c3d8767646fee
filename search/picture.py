"""What a picture of values with intervals shows, apart from how it is drawn."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from search.places import PLACE_NAMES, Place


class Mark(NamedTuple):
    """A value with the ends of its interval, NaN where it has none; hollow where its sign is not sure."""

    value: float
    low: float
    high: float
    is_filled: bool = True

    def describe(self) -> str:
        """Writes all of it."""
        return f"{self.value:.3f} ({self.low:.3f} … {self.high:.3f}){'' if self.is_filled else ' hollow'}"


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
            values = [f"{tick} {m.describe()}" for tick, m in zip(self.ticks, marks, strict=True) if m is not None]
            lines.append(f"{label}: {', '.join(values)}")
        return "\n".join(lines)


def show_places(about: str, series: Mapping[str, Sequence[Place]]) -> Picture:
    """Returns the picture of what IN is worth at each of the twelve places, by label; filled where that is sure."""
    marks = {label: [Mark(*place) for place in places] for label, places in series.items()}
    return Picture(about, marks, PLACE_NAMES, "mAP with IN minus without; filled: decided")
