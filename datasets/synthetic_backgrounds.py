"""The places behind the people: one panorama a camera, of which every image shows a part.

A painter fills (H, W, 3) float32 pixels in [0, 1] in place.
"""

import numpy as np

from datasets.synthetic_paint import Array
from datasets.synthetic_people import Colour, Draws


def paint_street(pixels: Array, draws: Draws) -> None:
    """Paints a house front with windows above a pavement."""
    height, width = pixels.shape[:2]
    wall = draws.pick({(0.66, 0.60, 0.52): 1.0, (0.60, 0.42, 0.35): 1.0, (0.74, 0.73, 0.70): 1.0})
    ground = round(height * draws.uniform(0.55, 0.75))
    pixels[:ground] = wall
    step = width / draws.uniform(6, 9)
    glass: Colour = (0.22, 0.26, 0.32)
    for row in range(2):
        top, bottom = round(height * (0.06 + 0.32 * row)), round(height * (0.26 + 0.32 * row))
        for column in range(10):
            left = round(step * (column + 0.2))
            pixels[top : min(bottom, ground), left : left + round(0.55 * step)] = glass
    _fill_ground(pixels, ground, (0.55, 0.54, 0.53), draws)
    _strew(pixels, draws, 6, 0.03)


def paint_station(pixels: Array, draws: Draws) -> None:
    """Paints a tiled wall with pillars above a shining floor."""
    height, width = pixels.shape[:2]
    ground = round(height * draws.uniform(0.45, 0.65))
    pixels[:ground] = draws.pick({(0.78, 0.82, 0.80): 1.0, (0.58, 0.66, 0.68): 1.0, (0.82, 0.78, 0.66): 1.0})
    tile = max(2, round(height * 0.06))
    pixels[:ground:tile] *= 0.75
    pixels[:ground, ::tile] *= 0.75
    band = round(height * draws.uniform(0.1, 0.3))
    pixels[band : band + tile] = draws.pick({(0.15, 0.35, 0.6): 1.0, (0.7, 0.25, 0.15): 1.0, (0.2, 0.5, 0.3): 1.0})
    for _ in range(3):
        left = round(width * draws.uniform(0, 0.95))
        pixels[:ground, left : left + round(width * 0.05)] = draws.uniform(0.3, 0.55)
    _fill_ground(pixels, ground, (0.45, 0.46, 0.45), draws)
    pixels[ground::tile] *= 0.9


def paint_park(pixels: Array, draws: Draws) -> None:
    """Paints trees over a lawn, with a path."""
    height, width = pixels.shape[:2]
    ground = round(height * draws.uniform(0.4, 0.6))
    pixels[:ground] = (0.55, 0.60, 0.70)
    _fill_ground(pixels, ground, (0.30, 0.42, 0.20), draws)
    for _ in range(7):
        left = round(width * draws.uniform(0, 0.97))
        pixels[: ground + 2, left : left + max(1, round(width * 0.02))] = (0.25, 0.18, 0.12)
    leaves = _clouds(draws, ground, width, 9) > draws.uniform(-0.1, 0.2)
    pixels[:ground][leaves] = (0.16, 0.30, 0.12)
    path = round(height * draws.uniform(0.75, 0.9))
    pixels[path:] = (0.58, 0.52, 0.42)
    _strew(pixels, draws, 14, 0.08)


def _fill_ground(pixels: Array, top: int, colour: Colour, draws: Draws) -> None:
    """Paints the ground, brighter towards the camera."""
    depth = len(pixels) - top
    brightness = np.linspace(draws.uniform(0.75, 0.95), draws.uniform(1.0, 1.2), depth, dtype=np.float32)
    pixels[top:] = brightness[:, None, None] * np.asarray(colour, np.float32)


def _strew(pixels: Array, draws: Draws, cells: int, strength: float) -> None:
    """Varies the brightness in soft patches of an ``1 / cells`` part of the height."""
    height, width = pixels.shape[:2]
    pixels *= 1 + np.float32(strength) * _clouds(draws, height, width, cells)[..., None]


def _clouds(draws: Draws, height: int, width: int, cells: int) -> Array:
    """Draws smooth noise, (height, width) in [-1, 1], with ``cells`` patches over the height."""
    across = max(2, round(cells * width / max(height, 1)))
    grid = draws.field(cells + 1, across + 1)
    rows = np.linspace(0, cells - 1e-3, height, dtype=np.float32)
    columns = np.linspace(0, across - 1e-3, width, dtype=np.float32)
    down = _interpolate(grid, rows)
    return _interpolate(down.T, columns).T


def _interpolate(grid: Array, places: Array) -> Array:
    """Interpolates the rows of ``grid`` at fractional indices."""
    low = places.astype(np.intp)
    share = (places - low)[:, None]
    return ((1 - share) * grid[low] + share * grid[low + 1]).astype(np.float32)
