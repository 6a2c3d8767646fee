"""Where and how people are seen: the domains and their styles.

A domain is a place with its own cameras. Its images differ from those of other domains in *style*: colour response,
contrast, sharpness, haze, light, background, compression. Each style value has a middle that belongs to the domain, a
part that belongs to the camera and a part that changes from image to image.

Domains a, b and c are composed by hand. All others are drawn, each from its code and ``STYLE_SEED`` alone, from one
distribution: even and independent over the ranges of ``STYLES`` and the constants below it, which hold a, b and c too.
None was chosen or changed after a look at scores.
"""

from collections.abc import Callable
from dataclasses import dataclass

from datasets.synthetic_backgrounds import paint_park, paint_station, paint_street
from datasets.synthetic_paint import Array
from datasets.synthetic_people import Colour, Draws

Range = tuple[float, float]

STYLE_SEED = 1
STYLES: dict[str, tuple[Range, Range, Range]] = {  # ranges of a value's middle, ± camera and ± image
    "warmth": ((-0.35, 0.35), (0.08, 0.15), (0.05, 0.18)),
    "tint": ((-0.12, 0.12), (0.04, 0.07), (0.03, 0.06)),
    "exposure": ((-0.4, 0.2), (0.14, 0.22), (0.10, 0.22)),
    "gamma": ((-0.3, 0.3), (0.08, 0.14), (0.05, 0.12)),
    "contrast": ((-0.45, 0.15), (0.08, 0.16), (0.06, 0.16)),
    "saturation": ((-0.5, 0.25), (0.08, 0.16), (0.04, 0.12)),
    "haze": ((0.0, 0.35), (0.03, 0.10), (0.02, 0.11)),
    "detail": ((-0.9, 1.0), (0.10, 0.35), (0.05, 0.25)),
    "noise": ((0.0, 0.06), (0.005, 0.02), (0.0, 0.02)),
    "slope": ((-0.1, 0.1), (0.08, 0.18), (0.10, 0.22)),
}
BLUR: Range = (0.005, 0.014)
VIGNETTE: Range = (0.0, 0.25)
QUALITY: Range = (40, 95)
HAZE_COLOUR: tuple[Range, Range] = ((0.1, 0.85), (-0.1, 0.1))  # its brightness, and what is added to each channel
BACKGROUND_CAST: tuple[Range, Range] = ((0.7, 1.2), (-0.15, 0.15))
BACKGROUNDS: dict[Callable[[Array, Draws], None], float] = {paint_street: 1.0, paint_station: 1.0, paint_park: 1.0}


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
        background_cast: Factors of the panorama's red, green and blue.
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
        quality: Of the JPEG files, as Pillow counts it, 1 to 95.
    """

    code: int
    paint_background: Callable[[Array, Draws], None]
    background_cast: Colour
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
    quality: int


def draw_style(code: int) -> Domain:
    """Draws a domain; its values end after three decimals.

    Args:
        code: The domain's; nothing else is drawn from.
    """
    draws = Draws(STYLE_SEED, code)

    def value(bounds: Range) -> float:
        return round(draws.uniform(*bounds), 3)

    def spread(name: str) -> Spread:
        middle, camera, image = (value(bounds) for bounds in STYLES[name])
        return Spread(middle, camera, image)

    def colour(bounds: tuple[Range, Range]) -> Colour:
        light = value(bounds[0])
        red, green, blue = (round(light + value(bounds[1]), 3) for _ in range(3))
        return red, green, blue

    return Domain(
        code=code,
        paint_background=draws.pick(BACKGROUNDS),
        background_cast=colour(BACKGROUND_CAST),
        haze_colour=colour(HAZE_COLOUR),
        warmth=spread("warmth"),
        tint=spread("tint"),
        exposure=spread("exposure"),
        gamma=spread("gamma"),
        contrast=spread("contrast"),
        saturation=spread("saturation"),
        haze=spread("haze"),
        detail=spread("detail"),
        blur=value(BLUR),
        noise=spread("noise"),
        slope=spread("slope"),
        vignette=value(VIGNETTE),
        quality=round(value(QUALITY)),
    )


DOMAINS: dict[str, Domain] = {
    "a": Domain(  # a street at noon: clear, neutral, sharp
        code=1,
        paint_background=paint_street,
        background_cast=(1.0, 1.0, 1.0),
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
        quality=92,
    ),
    "b": Domain(  # a station hall: hazy, greenish, soft
        code=2,
        paint_background=paint_station,
        background_cast=(1.0, 1.0, 1.0),
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
        quality=92,
    ),
    "c": Domain(  # a park at dusk: dark, warm, noisy, over-sharpened
        code=3,
        paint_background=paint_park,
        background_cast=(1.0, 1.0, 1.0),
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
        quality=92,
    ),
    **{name: draw_style(code) for code, name in enumerate("defghijkl", start=4)},
}
