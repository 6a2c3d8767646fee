"""What a data set's own files call its people and cameras, for messages, tables and pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from utils.printable import make_printable


@dataclass(frozen=True)
class LabelNames:
    """Names of the people and cameras whom the program knows by number.

    Attributes:
        people: By ``pid``, the names of people whom the files do not call by that number.
        cameras: By ``camid``, the names of cameras that the files do not number from 1 where ``camid`` begins at 0.
    """

    people: Mapping[int, str] = field(default_factory=dict)
    cameras: Mapping[int, str] = field(default_factory=dict)

    def person(self, pid: int) -> str:
        """Returns what the files call a person, printable."""
        return make_printable(self.people.get(pid, str(pid)))

    def camera(self, camid: int) -> str:
        """Returns what the files call a camera, printable."""
        return make_printable(self.cameras.get(camid, str(camid + 1)))
