"""The drawn domains: where their styles come from, and that they stay what they are."""

import math
from dataclasses import astuple

import numpy as np
import pytest

from datasets.synthetic_domains import (
    BACKGROUND_CAST,
    BACKGROUNDS,
    BLUR,
    DOMAINS,
    HAZE_COLOUR,
    QUALITY,
    STYLES,
    VIGNETTE,
    Domain,
    draw_style,
)

COLOURS = [(light[0] + cast[0], light[1] + cast[1]) for light, cast in (HAZE_COLOUR, BACKGROUND_CAST)]
EVEN = [*(bounds for ranges in STYLES.values() for bounds in ranges), BLUR, VIGNETTE, QUALITY]
RANGES = np.array([*EVEN, *COLOURS, *COLOURS])


def values_of(domain: Domain) -> list[float]:
    """Lists the numbers of a style in the order of ``RANGES``: colours last, by darkest, then by brightest channel."""
    spreads = [value for name in STYLES for value in astuple(getattr(domain, name))]
    colours = (domain.haze_colour, domain.background_cast)
    return [*spreads, domain.blur, domain.vignette, domain.quality, *map(min, colours), *map(max, colours)]


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_domain_may_come_from_the_stated_distribution(domain):
    values = np.array(values_of(DOMAINS[domain]))
    assert (RANGES[:, 0] <= values).all()
    assert (values <= RANGES[:, 1]).all()
    for colour, (_, cast) in (
        (DOMAINS[domain].haze_colour, HAZE_COLOUR),
        (DOMAINS[domain].background_cast, BACKGROUND_CAST),
    ):
        assert max(colour) - min(colour) <= cast[1] - cast[0]
    assert DOMAINS[domain].paint_background in BACKGROUNDS


def test_styles_are_drawn_evenly_over_their_ranges():
    """Of 600 styles, each value but the colours has mean, variance and ends of an even distribution."""
    styles = [draw_style(code) for code in range(1000, 1600)]
    values = np.array([values_of(style)[: len(EVEN)] for style in styles])
    low, high = np.array(EVEN).T
    shares = (values - low) / (high - low)
    np.testing.assert_allclose(shares.mean(0), 0.5, atol=5 / math.sqrt(12 * 600))
    np.testing.assert_allclose(shares.var(0), 1 / 12, atol=0.012)
    assert shares.min(0).max() < 0.06
    assert shares.max(0).min() > 0.94
    correlations = np.corrcoef(shares.T) - np.eye(shares.shape[1])
    assert np.abs(correlations).max() < 5 / math.sqrt(600)
    painters = [style.paint_background for style in styles]
    assert all(painters.count(painter) > 150 for painter in BACKGROUNDS)


# Code, background, its cast, middles of warmth and detail, blur, the images' slope, vignette, quality. Other values are
# other domains under the same names.
DRAWN = {
    "d": (4, "paint_station", (1.252, 1.131, 1.226), -0.201, 0.729, 0.007, 0.13, 0.014, 51),
    "e": (5, "paint_station", (1.27, 1.125, 1.18), 0.257, 0.569, 0.013, 0.175, 0.143, 75),
    "f": (6, "paint_street", (1.249, 1.274, 1.301), 0.012, 0.631, 0.011, 0.133, 0.147, 55),
    "g": (7, "paint_station", (1.051, 0.961, 1.12), -0.191, 0.808, 0.007, 0.119, 0.152, 59),
    "h": (8, "paint_station", (1.221, 1.129, 1.231), -0.287, 0.304, 0.014, 0.182, 0.089, 75),
    "i": (9, "paint_park", (0.914, 0.932, 0.845), -0.144, -0.408, 0.009, 0.218, 0.052, 69),
    "j": (10, "paint_park", (0.743, 0.751, 0.793), 0.297, 0.108, 0.011, 0.197, 0.032, 59),
    "k": (11, "paint_street", (1.014, 0.993, 0.987), -0.064, 0.219, 0.007, 0.19, 0.141, 69),
    "l": (12, "paint_park", (0.805, 0.858, 0.975), -0.329, 0.537, 0.011, 0.172, 0.087, 81),
}


def test_the_drawn_domains_keep_their_values():
    assert list(DOMAINS) == [*"abc", *DRAWN]
    for name, values in DRAWN.items():
        d = DOMAINS[name]
        painter = getattr(d.paint_background, "__name__", "")
        style = (d.warmth.middle, d.detail.middle, d.blur, d.slope.image, d.vignette, d.quality)
        assert (d.code, painter, d.background_cast, *style) == values
        assert d == draw_style(d.code)
