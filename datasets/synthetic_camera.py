"""What a camera makes of a scene: its place and view, the people before it, light, lens, colours, tones and noise."""

import math
from collections.abc import Mapping

import numpy as np
from scipy.ndimage import correlate1d

from datasets.synthetic_domains import STYLES, Domain, Spread
from datasets.synthetic_figure import Pose, paint_person
from datasets.synthetic_paint import Array, Canvas, Frame
from datasets.synthetic_people import Draws, Person

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
LEVELS = 1024  # steps of the table that holds a camera's tone curve
TONE_TOP = 1.5  # the brightest value that the table knows
PANORAMA_WIDTH = 3  # width of a camera's scene by the image's width
PANORAMA_HEIGHT = 1.15


class Camera:
    """One camera: its viewpoint, scene and style.

    Args:
        domain: The place that it watches.
        height: Height of its images, px.
        width: Width of its images, px.
        draws: The camera's random numbers.
    """

    def __init__(self, domain: Domain, height: int, width: int, draws: Draws) -> None:
        self._domain = domain
        self._shape = (height, width)
        self._yaw = draws.uniform(-np.pi, np.pi)
        self._tilt = draws.uniform(-0.05, 0.28)
        self._scale = draws.uniform(0.84, 0.92)
        self._light = draws.uniform(0.06, 0.22) * draws.pick({-1: 1.0, 1: 1.0})
        self._style = {name: self._draw_camera_style(name, draws) for name in STYLES}
        self._panorama = np.zeros((round(PANORAMA_HEIGHT * height), PANORAMA_WIDTH * width, 3), np.float32)
        domain.paint_background(self._panorama, draws)
        self._panorama *= np.array(domain.background_cast, np.float32)
        self._kernel = _gaussian(domain.blur * height)
        across = np.linspace(-1, 1, width, dtype=np.float32)
        down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        self._across = across
        self._vignette = (1 - domain.vignette * 0.5 * (across * across + down * down)).astype(np.float32)

    def _draw_camera_style(self, name: str, draws: Draws) -> Spread:
        spread: Spread = getattr(self._domain, name)
        return Spread(draws.around(spread.middle, spread.camera), 0.0, spread.image)

    def photograph(self, person: Person, draws: Draws) -> np.ndarray:
        """Draws one image of a person.

        Args:
            person: Who is seen.
            draws: The image's random numbers.

        Returns:
            (height, width, 3) uint8, RGB.
        """
        pixels = self._draw_place(draws)
        frame = Frame(
            feet=draws.around(0.95, 0.035),
            centre=draws.around(0.0, 0.025),
            scale=draws.around(self._scale, 0.05),
            tilt=draws.around(self._tilt, 0.05),
            lean=draws.around(0.0, 0.03),
        )
        yaw = self._yaw + draws.around(0.0, 1.0)
        pose = Pose(yaw, stride=draws.uniform(-0.13, 0.13), arm_swing=draws.uniform(-0.12, 0.12))
        style = {name: draws.around(spread.middle, spread.image) for name, spread in self._style.items()}
        paint_person(Canvas(pixels, frame, self._light), person, pose)
        self._occlude(pixels, draws)
        return self._develop(pixels, style, draws)

    def _draw_place(self, draws: Draws) -> Array:
        """Cuts the image's background out of the camera's panorama."""
        height, width = self._shape
        top = round(draws.uniform(0, self._panorama.shape[0] - height))
        left = round(draws.uniform(0, self._panorama.shape[1] - width))
        return self._panorama[top : top + height, left : left + width].copy()

    def _occlude(self, pixels: Array, draws: Draws) -> None:
        """Puts a post or a box before the person in some images."""
        if not draws.chance(0.12):
            return
        height, width = self._shape
        grey = draws.uniform(0.15, 0.6)
        left = int(draws.uniform(-0.2, 0.9) * width)
        if draws.chance(0.5):
            pixels[:, max(left, 0) : max(left + round(0.14 * width), 0)] = grey
        else:
            pixels[round(draws.uniform(0.68, 0.85) * height) :, max(left, 0) : max(left + width // 2, 0)] = grey

    def _develop(self, scene: Array, style: Mapping[str, float], draws: Draws) -> np.ndarray:
        """Turns a scene into what the camera stores: light, lens, colours, tones, noise."""
        light = self._vignette * (1 + np.float32(style["slope"]) * self._across)
        scene *= light[..., None]
        blurred = correlate1d(
            correlate1d(scene, self._kernel, axis=0, mode="nearest"), self._kernel, axis=1, mode="nearest"
        )
        scene += np.float32(max(style["detail"], -1.0)) * (scene - blurred)
        saturation = np.float32(math.exp(style["saturation"]))
        grey = scene[..., 0] * LUMA[0] + scene[..., 1] * LUMA[1] + scene[..., 2] * LUMA[2]
        scene = saturation * scene + ((1 - saturation) * grey)[..., None]
        index = np.clip(scene * _compute_gains(style) * np.float32((LEVELS - 1) / TONE_TOP), 0, LEVELS - 1)
        tones = self._compute_tone_curves(style)
        image = np.stack([tones[c][index[..., c].astype(np.intp)] for c in range(3)], axis=-1)
        image += (draws.field(*self._shape) * np.float32(255 * max(style["noise"], 0.0)))[..., None]
        return np.clip(image, 0, 255).astype(np.uint8)

    def _compute_tone_curves(self, style: Mapping[str, float]) -> Array:
        """Computes what each channel stores for a light value: (3, LEVELS) float32 in [0, 255]."""
        tone = np.linspace(0, TONE_TOP, LEVELS) ** math.exp(style["gamma"])
        tone = np.clip(0.5 + math.exp(style["contrast"]) * (tone - 0.5), 0, 1)
        haze = min(max(style["haze"], 0.0), 0.9)
        colours = np.array(self._domain.haze_colour)[:, None]
        return (255 * ((1 - haze) * tone + haze * colours)).astype(np.float32)


def _compute_gains(style: Mapping[str, float]) -> Array:
    """Computes the channels' gains, (3,)."""
    logs = (style["warmth"], style["tint"], -style["warmth"])
    return np.array([math.exp(style["exposure"] + log) for log in logs], np.float32)


def _gaussian(sigma_px: float) -> Array:
    """Makes a Gaussian kernel of standard deviation ``sigma_px`` px; sums to 1."""
    reach = max(1, round(2.5 * sigma_px))
    offsets = np.arange(-reach, reach + 1, dtype=np.float64)
    kernel = np.exp(-0.5 * (offsets / max(sigma_px, 1e-3)) ** 2)
    return (kernel / kernel.sum()).astype(np.float32)
