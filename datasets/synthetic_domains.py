"""Where and how people are seen: domains, their cameras, and what a camera makes of a scene.

A domain is a place with its own cameras. Its images differ from those of other domains in *style*: colour response,
contrast, sharpness, haze, light, background. Each style value has a middle that belongs to the domain, a part that
belongs to the camera and a part that changes from image to image.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import correlate1d

from datasets.synthetic_backgrounds import paint_park, paint_station, paint_street
from datasets.synthetic_figure import Pose, paint_person
from datasets.synthetic_paint import Array, Canvas, Frame
from datasets.synthetic_people import Colour, Draws, Person

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
LEVELS = 1024  # steps of the table that holds a camera's tone curve
TONE_TOP = 1.5  # the brightest value that the table knows
PANORAMA_WIDTH = 3  # width of a camera's scene by the image's width
PANORAMA_HEIGHT = 1.15


@dataclass(frozen=True)
class Spread:
    """How a style value varies: ``middle`` of the domain, ± ``camera`` from camera to camera, ± ``image``."""

    middle: float
    camera: float = 0.0
    image: float = 0.0


@dataclass(frozen=True)
class Domain:
    """A place: its backgrounds and the style of its images.

    Attributes:
        code: Part of every random key; never given to another domain.
        paint_background: Fills a panorama of a camera's scene.
        warmth: Log gain of red, and of blue with the other sign.
        tint: Log gain of green.
        exposure: Log gain of all channels.
        gamma: Log exponent of the tone curve.
        contrast: Log factor of the distance from mid-grey.
        saturation: Log factor of the distance from grey.
        haze: Share of the haze colour, 0 to 1.
        haze_colour: Colour of the haze.
        detail: Share of fine detail that is added (sharpened) or, negative down to -1, taken away (blurred).
        blur: Width of the lens's blur that ``detail`` works with, standard deviation in image heights.
        noise: Half-width of the noise of the sensor.
        slope: Half the brightness difference between the left and the right edge, as a share.
        vignette: How much darker the corners are, as a share.
    """

    code: int
    paint_background: Callable[[Array, Draws], None]
    haze_colour: Colour
    warmth: Spread
    tint: Spread
    exposure: Spread
    gamma: Spread
    contrast: Spread
    saturation: Spread
    haze: Spread
    detail: Spread
    blur: float
    noise: Spread
    slope: Spread
    vignette: float


STYLE_NAMES = (
    "warmth",
    "tint",
    "exposure",
    "gamma",
    "contrast",
    "saturation",
    "haze",
    "detail",
    "noise",
    "slope",
)

DOMAINS: dict[str, Domain] = {
    "a": Domain(  # a street at noon: clear, neutral, sharp
        code=1,
        paint_background=paint_street,
        haze_colour=(0.8, 0.82, 0.85),
        warmth=Spread(0.05, 0.1, 0.06),
        tint=Spread(0.0, 0.05, 0.03),
        exposure=Spread(0.0, 0.2, 0.12),
        gamma=Spread(0.0, 0.12, 0.06),
        contrast=Spread(0.05, 0.12, 0.08),
        saturation=Spread(0.05, 0.1, 0.05),
        haze=Spread(0.05, 0.05, 0.03),
        detail=Spread(0.1, 0.3, 0.15),
        blur=0.007,
        noise=Spread(0.02, 0.01, 0.0),
        slope=Spread(0.0, 0.1, 0.12),
        vignette=0.05,
    ),
    "b": Domain(  # a station hall: hazy, greenish, soft
        code=2,
        paint_background=paint_station,
        haze_colour=(0.55, 0.72, 0.66),
        warmth=Spread(-0.22, 0.12, 0.15),
        tint=Spread(0.10, 0.06, 0.05),
        exposure=Spread(0.0, 0.15, 0.15),
        gamma=Spread(-0.25, 0.1, 0.1),
        contrast=Spread(-0.35, 0.15, 0.15),
        saturation=Spread(-0.35, 0.15, 0.1),
        haze=Spread(0.30, 0.08, 0.10),
        detail=Spread(-0.7, 0.15, 0.1),
        blur=0.012,
        noise=Spread(0.03, 0.01, 0.0),
        slope=Spread(0.0, 0.1, 0.15),
        vignette=0.1,
    ),
    "c": Domain(  # a park at dusk: dark, warm, noisy, over-sharpened
        code=3,
        paint_background=paint_park,
        haze_colour=(0.20, 0.12, 0.08),
        warmth=Spread(0.28, 0.10, 0.15),
        tint=Spread(-0.03, 0.05, 0.05),
        exposure=Spread(-0.3, 0.15, 0.2),
        gamma=Spread(0.12, 0.1, 0.1),
        contrast=Spread(-0.05, 0.1, 0.1),
        saturation=Spread(0.0, 0.1, 0.1),
        haze=Spread(0.1, 0.05, 0.05),
        detail=Spread(0.9, 0.3, 0.2),
        blur=0.009,
        noise=Spread(0.05, 0.015, 0.015),
        slope=Spread(0.0, 0.15, 0.2),
        vignette=0.2,
    ),
}


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
        self._style = {name: self._draw_camera_style(name, draws) for name in STYLE_NAMES}
        self._panorama = np.zeros((round(PANORAMA_HEIGHT * height), PANORAMA_WIDTH * width, 3), np.float32)
        domain.paint_background(self._panorama, draws)
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
