"""The brushes: soft-edged shapes and woven patterns, painted in body coordinates.

Body coordinates: origin between the feet, x to the right, y up, 1 is the height of the body.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.synthetic_people import Colour, Fabric

Array = NDArray[np.float32]
Point = tuple[float, float]

ASPECT = 0.5  # width of the scene by its height; an image of another shape shows the same scene stretched


@dataclass(frozen=True)
class Frame:
    """Where a body stands in the image; lengths in image heights.

    Attributes:
        feet: Distance of the feet from the upper edge.
        centre: Distance of the body's axis from the middle of the image.
        scale: Height of the body.
        tilt: How much wider the head's end is than the feet's: a camera that looks down.
        lean: How far the head stands to the right of the feet, in body heights.
    """

    feet: float
    centre: float
    scale: float
    tilt: float = 0.0
    lean: float = 0.0


def _swing(position: Array) -> Array:
    """Swings between -1 and 1 with period 1, 1 at 0, in straight lines: a cosine that is the same on every machine."""
    return np.float32(4) * np.abs(position - np.floor(position) - np.float32(0.5)) - 1


def _ramp(value: Array) -> Array:
    """Cuts values off at 0 and 1."""
    return np.minimum(np.maximum(value, np.float32(0)), np.float32(1))


def _wave(position: Array) -> Array:
    """Makes a square wave with soft edges and period 1, in [0, 1]."""
    return _ramp(np.float32(0.5) + np.float32(2.5) * _swing(position))


def _checks(u: Array, v: Array) -> Array:
    return np.float32(0.5) * (_wave(u) + _wave(v))


def _dots(u: Array, v: Array) -> Array:
    return _ramp(np.float32(1.5) * (_swing(u) + _swing(v)) - np.float32(0.6))


def _camouflage(u: Array, v: Array) -> Array:
    patches = [_swing(np.float32(a) * u + np.float32(b) * v) for a, b in ((0.5, 0.37), (-0.27, 0.84), (0.97, 0.1))]
    return _ramp(np.float32(0.5) + 2 * (patches[0] + patches[1] + patches[2]))


# Share of the second colour at (u, v), both in periods; v rises with height; at v = 0 the piece's middle.
PATTERNS: dict[str, Callable[[Array, Array], Array]] = {
    "bands": lambda u, v: _wave(v) + 0 * u,
    "stripes": lambda u, v: _wave(u) + 0 * v,
    "checks": _checks,
    "dots": _dots,
    "slant": lambda u, v: _wave(np.float32(0.7) * (u + v)),
    "camouflage": _camouflage,
    "yoke": lambda u, v: _ramp(8 * v - 2.4) + 0 * u,
    "chest": lambda u, v: _ramp(np.float32(4) - np.abs(8 * v - 2.4)) + 0 * u,
    "panels": lambda u, v: _ramp(np.abs(6 * u) - np.float32(3.6)) + 0 * v,
}
PLACED = frozenset({"yoke", "chest", "panels"})  # drawn once on the piece, not repeated


def weave(fabric: Fabric, u: Array, v: Array) -> Array:
    """Computes the colours of a fabric.

    Args:
        fabric: What to show.
        u: Place across the piece, (h, w), in half-widths of it.
        v: Place along the piece, (h, 1) or (h, w), in body heights from its middle.

    Returns:
        (3,) for a plain fabric, else (h, w, 3).
    """
    ground = np.asarray(fabric.colour, np.float32)
    if fabric.pattern == "plain":
        return ground
    if fabric.pattern in PLACED:
        share = PATTERNS[fabric.pattern](u, v / np.float32(0.16))
    else:
        # 0.1 body heights is about the half-width of a trunk, so the pattern is as fine across as along.
        share = PATTERNS[fabric.pattern](
            u * np.float32(0.1 / fabric.period), v / np.float32(fabric.period) + fabric.phase
        )
    return ground + share[..., None] * (np.asarray(fabric.second, np.float32) - ground)


class Canvas:
    """A picture that shapes are painted on, in body coordinates.

    Args:
        pixels: (H, W, 3) float32, changed in place.
        frame: Where the body stands.
        light: Side light: by how much the right edge of a shape is brighter than its middle, as a share.
    """

    def __init__(self, pixels: Array, frame: Frame, light: float) -> None:
        self.pixels = pixels
        self._frame = frame
        self._light = np.float32(light)
        height, width = pixels.shape[:2]
        rows = (np.arange(height, dtype=np.float32) + 0.5) / height
        columns = ((np.arange(width, dtype=np.float32) + 0.5) / width - 0.5) * ASPECT
        self._y = ((frame.feet - rows) / frame.scale).astype(np.float32)[:, None]
        widening = 1 + frame.tilt * (self._y - 0.5)
        self._x = (((columns - frame.centre) / frame.scale - frame.lean * self._y) / widening).astype(np.float32)
        self._pixel = np.float32(max(1 / height, ASPECT / width) / frame.scale)

    def limb(self, start: Point, end: Point, radii: tuple[float, float], paint: Colour | Fabric) -> None:
        """Paints a rod with round ends whose radius goes from ``radii[0]`` to ``radii[1]``."""
        (x0, y0), (x1, y1) = start, end
        reach = max(radii)
        region = self._region(min(x0, x1) - reach, max(x0, x1) + reach, min(y0, y1) - reach, max(y0, y1) + reach)
        x, y = self._x[region] - np.float32(x0), self._y[region[0]] - np.float32(y0)
        dx, dy = np.float32(x1 - x0), np.float32(y1 - y0)
        along = _ramp((x * dx + y * dy) / max(dx * dx + dy * dy, np.float32(1e-8)))
        off_x = x - along * dx
        off_y = y - along * dy
        radius = np.float32(radii[0]) + along * np.float32(radii[1] - radii[0])
        distance = np.sqrt(off_x * off_x + off_y * off_y) - radius
        self._lay(region, distance, paint, off_x / radius, y + np.float32(0.5) * (-dy))

    def column(self, centre: float, profile: Sequence[Point], paint: Colour | Fabric, turn: float = 0.0) -> None:
        """Paints an upright shape that is symmetric to x = ``centre``.

        Args:
            centre: Its axis.
            profile: (height, half-width) from bottom to top, straight lines between.
            paint: Colour or fabric.
            turn: Shift of the fabric to the right, in half-widths, from the body's turn.
        """
        heights = [h for h, _ in profile]
        halves = [w for _, w in profile]
        reach = max(halves)
        region = self._region(centre - reach, centre + reach, heights[0], heights[-1])
        x, y = self._x[region] - np.float32(centre), self._y[region[0]]
        half = np.interp(y, heights, halves).astype(np.float32)
        distance = np.maximum(np.abs(x) - half, np.maximum(np.float32(heights[0]) - y, y - np.float32(heights[-1])))
        middle = np.float32(0.5 * (heights[0] + heights[-1]))
        self._lay(region, distance, paint, x / half, y - middle, turn)

    def ellipse(self, centre: Point, radii: Point, paint: Colour | Fabric) -> None:
        """Paints an ellipse with half-axes ``radii``."""
        rx, ry = radii
        region = self._region(centre[0] - rx, centre[0] + rx, centre[1] - ry, centre[1] + ry)
        x = (self._x[region] - np.float32(centre[0])) / np.float32(rx)
        y = (self._y[region[0]] - np.float32(centre[1])) / np.float32(ry)
        distance = (np.sqrt(x * x + y * y) - 1) * np.float32(min(rx, ry))
        self._lay(region, distance, paint, x, y * np.float32(ry))

    def shade(self, centre: Point, radii: Point, strength: float) -> None:
        """Darkens an ellipse with a soft edge by up to ``strength`` (a share): a shadow on the ground."""
        region = self._region(centre[0] - radii[0], centre[0] + radii[0], centre[1] - radii[1], centre[1] + radii[1])
        x = (self._x[region] - np.float32(centre[0])) / np.float32(radii[0])
        y = (self._y[region[0]] - np.float32(centre[1])) / np.float32(radii[1])
        self.pixels[region] *= (1 - np.float32(strength) * _ramp(1 - x * x - y * y))[..., None]

    def _region(self, left: float, right: float, bottom: float, top: float) -> tuple[slice, slice]:
        """Finds the pixels that a box in body coordinates can touch, cut at the image's edges."""
        frame = self._frame
        height, width = self.pixels.shape[:2]
        edges = [
            frame.centre + frame.scale * (x * (1 + frame.tilt * (y - 0.5)) + frame.lean * y)
            for x in (left, right)
            for y in (bottom, top)
        ]
        first_column = int((min(edges) / ASPECT + 0.5) * width) - 1
        last_column = int((max(edges) / ASPECT + 0.5) * width) + 2
        first_row = int((frame.feet - top * frame.scale) * height) - 1
        last_row = int((frame.feet - bottom * frame.scale) * height) + 2
        return (
            slice(min(max(first_row, 0), height), min(max(last_row, 0), height)),
            slice(min(max(first_column, 0), width), min(max(last_column, 0), width)),
        )

    def _lay(
        self,
        region: tuple[slice, slice],
        distance: Array,
        paint: Colour | Fabric,
        u: Array,
        v: Array,
        turn: float = 0.0,
    ) -> None:
        """Lays paint over a region where ``distance`` (to the shape's edge, inside negative) says so."""
        cover = _ramp(0.5 - distance / self._pixel)
        colours = weave(paint, u - np.float32(turn), v) if isinstance(paint, Fabric) else np.asarray(paint, np.float32)
        shading = 1 + self._light * np.minimum(np.maximum(u, np.float32(-1)), np.float32(1))
        target = self.pixels[region]
        target += cover[..., None] * (colours * shading[..., None] - target)
