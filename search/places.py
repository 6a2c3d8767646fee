"""What instance normalisation (IN) is worth at each of its twelve places: inside and outside of six residual sums.

A candidate is two choices: IN inside or not, and IN outside or not. So half of all networks have IN at a place and half
have not, where a candidate has a quarter; what a place is worth is therefore known sooner than which of four candidates
is the best, two of which may well be equals.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from genotype import BLOCK_NAMES
from utils.log import format_table

SIDES = ("inside", "outside")
PLACE_NAMES = tuple(f"{block} {side}" for block in BLOCK_NAMES for side in SIDES)
NUM_PLACES = len(PLACE_NAMES)
CONTRASTS = np.array([[-1, 1, -1, 1], [-1, -1, 1, 1]]) / 2  # of the candidates' means: what IN is worth on each side


class Place(NamedTuple):
    """What a search knows of one place.

    Attributes:
        value: By how much networks with IN there score above those without it, on the mean over all other choices.
        low: Lower end of its 95 % interval.
        high: Upper end.
        is_decided: Whether the sign is sure, at 5 % over all twelve places together.
    """

    value: float
    low: float
    high: float
    is_decided: bool


def say_what_is_sure(places: Sequence[Place]) -> str:
    """Says in a sentence at which places IN surely helps or hurts; ``places`` are the twelve of ``PLACE_NAMES``."""
    sure = [(name, place.value) for name, place in zip(PLACE_NAMES, places, strict=True) if place.is_decided]
    if not sure:
        return f"At none of the {NUM_PLACES} places is it decided whether IN helps or hurts."
    parts = [
        f"{verb} at {', '.join(names)}"
        for verb, sign in (("helps", 1), ("hurts", -1))
        if (names := [name for name, value in sure if value * sign > 0])
    ]
    return f"At {len(sure)} of the {NUM_PLACES} places it is decided: IN {' and '.join(parts)}."


def format_places(places: Sequence[Place]) -> str:
    """Sets what the twelve places are worth as a table, scores in percent."""
    cells = [
        f"{place.value:+.1%} ({place.low:+.1%} to {place.high:+.1%}){' decided' if place.is_decided else ''}"
        for place in places
    ]
    rows = [(name, *cells[2 * i : 2 * i + 2]) for i, name in enumerate(BLOCK_NAMES)]
    return format_table(("block", *(f"IN {side}" for side in SIDES)), rows)
