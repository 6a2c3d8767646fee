"""What part of a piece of work this process does, where several processes do it together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _gather_alone(value: Any) -> list[Any]:
    return [value]


@dataclass(frozen=True)
class WorkShare:
    """One of ``count`` equal shares, and the way to everybody's results.

    Attributes:
        index: Of this share, from 0.
        count: Number of shares.
        gather: Returns the values of all processes of the run, in all of them; all must call it.
    """

    index: int = 0
    count: int = 1
    gather: Callable[[Any], list[Any]] = _gather_alone

    def rows(self, num_rows: int, unit: int = 1) -> range:
        """Returns this share's rows, neighbours of one another; shares start at multiples of ``unit`` and may be empty.

        All shares together, in their order, are 0 … num_rows − 1.
        """
        num_units = -(-num_rows // unit)
        first, end = (min(num_units * i // self.count * unit, num_rows) for i in (self.index, self.index + 1))
        return range(first, end)


WHOLE = WorkShare()
