"""Who is drawn: the random but repeatable looks of one synthetic person.

An identity is told by many things besides the colour of its clothes: what is worn, its pattern, the build, hair,
skin, and what is carried. The looks are in units of the body's height and in display colours, before any camera.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]  # red, green, blue in [0, 1]
Option = TypeVar("Option")

CLOTH_COLOURS: dict[Colour, float] = {  # colour: how often it is worn
    (0.08, 0.08, 0.09): 5,
    (0.25, 0.26, 0.28): 4,
    (0.52, 0.53, 0.54): 4,
    (0.88, 0.88, 0.87): 5,
    (0.10, 0.14, 0.33): 4,
    (0.20, 0.36, 0.68): 3,
    (0.55, 0.69, 0.83): 2,
    (0.72, 0.12, 0.13): 3,
    (0.38, 0.09, 0.14): 2,
    (0.16, 0.42, 0.24): 2,
    (0.37, 0.38, 0.21): 2,
    (0.74, 0.65, 0.48): 3,
    (0.40, 0.26, 0.16): 2,
    (0.86, 0.72, 0.20): 2,
    (0.85, 0.45, 0.14): 1,
    (0.86, 0.55, 0.62): 2,
    (0.42, 0.25, 0.50): 1,
    (0.13, 0.48, 0.52): 1,
}
SKINS: dict[Colour, float] = {
    (0.91, 0.75, 0.65): 3,
    (0.82, 0.63, 0.50): 3,
    (0.65, 0.46, 0.34): 2,
    (0.42, 0.28, 0.20): 2,
}
HAIRS: dict[Colour, float] = {
    (0.07, 0.06, 0.06): 5,
    (0.24, 0.15, 0.09): 3,
    (0.45, 0.29, 0.16): 2,
    (0.76, 0.62, 0.38): 2,
    (0.68, 0.67, 0.66): 1,
}
TOPS = {"shirt": 4.0, "tee": 4.0, "jacket": 4.0, "coat": 2.0, "vest": 2.0, "dress": 1.5}
BOTTOMS = {"trousers": 6.0, "shorts": 2.5, "skirt": 2.0, "wide": 2.0}
TOP_PATTERNS = {
    "plain": 3.5,
    "bands": 2.0,
    "stripes": 1.5,
    "checks": 1.5,
    "yoke": 1.5,
    "dots": 1.0,
    "slant": 1.0,
    "camouflage": 1.0,
    "chest": 1.5,
    "panels": 1.0,
}
BOTTOM_PATTERNS = {"plain": 4.0, "stripes": 1.0, "checks": 1.0, "panels": 1.5, "yoke": 1.0, "camouflage": 0.7}
HAIRSTYLES = {"bald": 1.0, "short": 4.0, "long": 3.0, "bun": 1.5, "cap": 1.5, "hood": 1.0}
BAGS = {"none": 4.0, "backpack": 3.0, "shoulder": 2.5, "hand": 2.0, "case": 1.5}


class Draws:
    """A stream of random numbers that depends on its key alone.

    It uses the bit stream of PCG64 and uniform numbers only, which NumPy keeps the same over versions and machines.
    """

    def __init__(self, *key: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))

    def uniform(self, low: float, high: float) -> float:
        """Draws evenly from [low, high)."""
        return low + (high - low) * self._generator.random()

    def around(self, middle: float, spread: float) -> float:
        """Draws from middle ± spread, the middle more often (triangular)."""
        return middle + spread * (self._generator.random() + self._generator.random() - 1.0)

    def chance(self, probability: float) -> bool:
        """Draws True with the given probability."""
        return self._generator.random() < probability

    def pick(self, weights: Mapping[Option, float]) -> Option:
        """Draws a key with a probability in proportion to its value."""
        left = self._generator.random() * sum(weights.values())
        for option, weight in weights.items():
            left -= weight
            if left < 0:
                return option
        return option

    def field(self, *shape: int) -> NDArray[np.float32]:
        """Draws an array of even noise in [-1, 1), float32."""
        return self._generator.random(shape, dtype=np.float32) * np.float32(2) - np.float32(1)


@dataclass(frozen=True)
class Fabric:
    """What a piece of clothing is made of.

    Attributes:
        colour: The ground's colour.
        second: The pattern's colour.
        pattern: Key of ``synthetic_paint.PATTERNS``.
        period: Length over which the pattern repeats, in body heights.
        phase: Where the pattern starts, in periods.
    """

    colour: Colour
    second: Colour
    pattern: str = "plain"
    period: float = 0.1
    phase: float = 0.0


@dataclass(frozen=True)
class Person:
    """The looks of one identity; lengths as factors of the average unless a unit is given.

    Attributes:
        girth: Thickness of trunk and limbs.
        shoulders: Width of the shoulders.
        hip_height: Height of the hips above the ground, in body heights.
        head: Size of the head.
        sleeve: How far sleeves reach down the arm, 0 to 1.
        hem: Height at which the top ends, in body heights.
        trouser_hem: Height at which trousers or skirt end, in body heights.
        opening: Half-width of an open front that shows ``inner``, as a share of the trunk's half-width; 0 is closed.
        boot: Height of the shoes, in body heights.
        bag_size: Size of the bag.
        scarf: Colour of a scarf; None is no scarf.
    """

    girth: float
    shoulders: float
    hip_height: float
    head: float
    skin: Colour
    hair: Colour
    hairstyle: str
    headgear: Colour
    top: str
    top_fabric: Fabric
    inner: Fabric
    sleeve: float
    hem: float
    opening: float
    bottom: str
    bottom_fabric: Fabric
    trouser_hem: float
    shoe: Colour
    boot: float
    bag: str
    bag_colour: Colour
    bag_size: float
    scarf: Colour | None


def draw_person(draws: Draws) -> Person:
    """Draws the looks of one identity."""
    top = draws.pick(TOPS)
    bottom = draws.pick(BOTTOMS)
    top_fabric = _draw_fabric(draws, TOP_PATTERNS)
    bottom_fabric = _draw_fabric(draws, BOTTOM_PATTERNS)
    hip_height = draws.uniform(0.46, 0.53)
    return Person(
        girth=draws.around(1.0, 0.22),
        shoulders=draws.around(1.0, 0.14),
        hip_height=hip_height,
        head=draws.around(1.0, 0.1),
        skin=_draw_colour(draws, SKINS),
        hair=_draw_colour(draws, HAIRS),
        hairstyle=draws.pick(HAIRSTYLES),
        headgear=_draw_colour(draws, CLOTH_COLOURS),
        top=top,
        top_fabric=top_fabric,
        inner=_draw_fabric(draws, {"plain": 3.0, "bands": 1.0}),
        sleeve=draws.uniform(0.25, 0.5) if top == "tee" else draws.pick({1.0: 3.0, 0.7: 1.0}),
        hem=_draw_hem(draws, top, hip_height),
        opening=draws.uniform(0.2, 0.5) if top in ("jacket", "coat", "vest") and draws.chance(0.7) else 0.0,
        bottom=bottom,
        bottom_fabric=bottom_fabric,
        trouser_hem=draws.uniform(0.22, 0.36) if bottom in ("shorts", "skirt") else 0.05,
        shoe=_draw_colour(draws, CLOTH_COLOURS),
        boot=draws.pick({0.035: 3.0, 0.09: 1.0, 0.17: 0.7}),
        bag=draws.pick(BAGS),
        bag_colour=_draw_colour(draws, CLOTH_COLOURS),
        bag_size=draws.uniform(0.75, 1.3),
        scarf=_draw_colour(draws, CLOTH_COLOURS) if draws.chance(0.2) else None,
    )


def _draw_hem(draws: Draws, top: str, hip_height: float) -> float:
    """Draws how far down a top reaches, in body heights above the ground."""
    if top == "dress":
        return draws.uniform(0.22, 0.36)
    if top == "coat":
        return draws.uniform(0.25, 0.4)
    return hip_height + draws.uniform(-0.06, 0.04)


def _draw_fabric(draws: Draws, patterns: Mapping[str, float]) -> Fabric:
    """Draws a fabric whose two colours can be told apart."""
    colour = _draw_colour(draws, CLOTH_COLOURS)
    second = _draw_colour(draws, CLOTH_COLOURS)
    while _contrast(colour, second) < 0.5:
        second = _draw_colour(draws, CLOTH_COLOURS)
    return Fabric(colour, second, draws.pick(patterns), draws.uniform(0.05, 0.13), draws.uniform(0.0, 1.0))


def _draw_colour(draws: Draws, palette: Mapping[Colour, float]) -> Colour:
    """Draws a colour of a palette and varies it a little."""
    red, green, blue = draws.pick(palette)
    light = draws.around(0.0, 0.06)
    return red + light + draws.around(0, 0.04), green + light + draws.around(0, 0.04), blue + light


def _contrast(first: Sequence[float], second: Sequence[float]) -> float:
    """Computes how far two colours are apart: sum of absolute differences, 0 to 3."""
    return sum(abs(a - b) for a, b in zip(first, second, strict=True))
