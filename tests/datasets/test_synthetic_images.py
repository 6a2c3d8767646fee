"""What is on drawn images: shapes against their areas, style against formulas, people and domains that differ."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from datasets.synthetic_camera import Camera, _gaussian
from datasets.synthetic_domains import DOMAINS, Spread
from datasets.synthetic_figure import Pose, paint_person
from datasets.synthetic_paint import PATTERNS, Canvas, Frame, weave
from datasets.synthetic_people import BOTTOM_PATTERNS, TOP_PATTERNS, Draws, Fabric, draw_person

WHITE = (1.0, 1.0, 1.0)
FRAME = Frame(feet=0.9, centre=0.0, scale=0.8)


def blank(height=256, width=128):
    return np.zeros((height, width, 3), np.float32)


def painted_area(pixels):
    """Area of white paint in squared body heights; a scene is 1 image height high and half as wide."""
    return pixels[..., 0].mean() * 0.5 / FRAME.scale**2


def test_shapes_have_the_area_of_geometry():
    ellipse, limb, column = (Canvas(blank(), FRAME, light=0.0) for _ in range(3))
    ellipse.ellipse((0.05, 0.5), (0.1, 0.2), WHITE)
    assert painted_area(ellipse.pixels) == pytest.approx(math.pi * 0.1 * 0.2, rel=0.02)
    limb.limb((-0.1, 0.3), (0.1, 0.6), (0.05, 0.05), WHITE)
    assert painted_area(limb.pixels) == pytest.approx(2 * 0.05 * math.hypot(0.2, 0.3) + math.pi * 0.05**2, rel=0.02)
    column.column(0.0, [(0.2, 0.1), (0.6, 0.2)], WHITE)
    assert painted_area(column.pixels) == pytest.approx(0.4 * (0.1 + 0.2), rel=0.02)


def test_shapes_stand_where_they_are_put():
    canvas = Canvas(blank(), FRAME, light=0.0)
    canvas.ellipse((0.1, 0.25), (0.05, 0.05), WHITE)
    rows, columns = np.nonzero(canvas.pixels[..., 0] > 0.5)
    assert rows.mean() / 256 == pytest.approx(0.9 - 0.25 * 0.8, abs=0.01)
    assert (columns.mean() / 128 - 0.5) * 0.5 == pytest.approx(0.1 * 0.8, abs=0.01)


@pytest.mark.parametrize("place", [(5.0, 0.5), (0.0, 4.0), (-0.28, 1.1)])
def test_shapes_may_lie_outside_of_the_image(place):
    canvas = Canvas(blank(), FRAME, light=0.1)
    canvas.ellipse(place, (0.1, 0.1), WHITE)
    canvas.limb(place, (place[0] + 0.1, place[1]), (0.1, 0.05), WHITE)
    canvas.column(place[0], [(place[1], 0.1), (place[1] + 0.2, 0.1)], WHITE)
    assert np.isfinite(canvas.pixels).all()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_mix_the_two_colours(pattern):
    u, v = np.meshgrid(np.linspace(-1, 1, 64, dtype=np.float32), np.linspace(-0.2, 0.2, 96, dtype=np.float32))
    share = weave(Fabric((0.0, 0.0, 0.0), WHITE, pattern, period=0.1, phase=0.3), u, v)
    assert share.dtype == np.float32
    assert 0 <= share.min() < 0.1
    assert 0.9 < share.max() <= 1.0
    assert 0.1 < share.mean() < 0.9


def test_every_pattern_that_is_worn_can_be_woven():
    assert {*TOP_PATTERNS, *BOTTOM_PATTERNS} == {"plain", *PATTERNS}


def test_bands_repeat_with_their_period():
    v = np.linspace(-0.2, 0.2, 400, endpoint=False, dtype=np.float32)[:, None]
    share = weave(Fabric((0.0, 0.0, 0.0), WHITE, "bands", period=0.05), np.zeros((400, 1), np.float32), v)[:, 0, 0]
    np.testing.assert_allclose(share[50:], share[:-50], atol=1e-3)
    assert np.abs(share[25:] - share[:-25]).max() > 0.9


def test_picks_follow_their_weights():
    draws = Draws(3)
    picked = [draws.pick({"often": 3.0, "never": 0.0, "rare": 1.0}) for _ in range(4000)]
    assert picked.count("never") == 0
    assert picked.count("often") / 4000 == pytest.approx(0.75, abs=0.03)


def test_draws_depend_on_the_whole_key():
    assert Draws(1, 2, 3).field(4).tolist() == Draws(1, 2, 3).field(4).tolist()
    assert Draws(1, 2, 3).field(4).tolist() != Draws(1, 2, 4).field(4).tolist()
    assert np.abs(Draws(1).field(10_000)).max() <= 1


def test_people_differ_from_each_other():
    """Any two of 30 people, in the same pose under no camera at all, differ in many pixels."""
    pictures = []
    for number in range(30):
        pixels = np.full((64, 32, 3), 0.5, np.float32)
        paint_person(Canvas(pixels, FRAME, 0.1), draw_person(Draws(1, number)), Pose(0.4, 0.05, 0.05))
        pictures.append(pixels)
    figure = np.mean([(np.abs(p - 0.5).max(-1) > 0.05).mean() for p in pictures])
    assert 0.1 < figure < 0.6
    for first, second in combinations(pictures, 2):
        assert (np.abs(first - second).max(-1) > 0.1).mean() > 0.3 * figure


def test_the_far_side_hides_what_the_right_hand_carries():
    person = next(p for i in range(200) if (p := draw_person(Draws(2, i))).bag == "case" and p.top == "shirt")
    visible = {}
    for yaw in (math.pi / 2, -math.pi / 2):  # to the right: the right hand is near
        pixels = blank(128, 64)
        paint_person(Canvas(pixels, FRAME, 0.0), person, Pose(yaw, 0.1, 0.0))
        visible[yaw] = (np.abs(pixels - np.float32(person.bag_colour)).max(-1) < 0.02).sum()
    assert visible[math.pi / 2] > visible[-math.pi / 2] > 0


def test_the_lens_blurs_as_a_gaussian():
    signal = Draws(5).field(200).astype(np.float64)
    expected = gaussian_filter1d(signal, 1.6, truncate=2.5)
    np.testing.assert_allclose(np.convolve(signal, _gaussian(1.6), "same")[10:-10], expected[10:-10], atol=1e-6)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_camera_develops_as_the_formulas_say(domain):
    """Every step in float64 on an even grey scene, where lens and place do not matter."""
    camera = Camera(DOMAINS[domain], 32, 16, Draws(1))
    style = {"warmth": 0.2, "tint": -0.1, "exposure": 0.1, "gamma": 0.3, "contrast": -0.2, "saturation": 0.5}
    style |= {"haze": 0.2, "detail": 0.7, "noise": 0.0, "slope": 0.0}
    image = camera._develop(np.full((32, 16, 3), 0.4, np.float32), style, Draws(2))
    light = 0.4 * np.exp(0.1 + np.array([0.2, -0.1, -0.2]))
    tone = 0.5 + np.exp(-0.2) * (light ** np.exp(0.3) - 0.5)
    expected = 255 * (0.8 * tone + 0.2 * np.array(DOMAINS[domain].haze_colour))
    np.testing.assert_allclose(image[14:18, 7:9].mean((0, 1)), expected, atol=2.5)


def test_saturation_leaves_grey_alone_and_moves_colour():
    camera = Camera(DOMAINS["a"], 32, 16, Draws(1))
    style = dict.fromkeys(("warmth", "tint", "exposure", "gamma", "contrast", "haze", "detail", "noise", "slope"), 0.0)
    scene = np.tile(np.float32([0.6, 0.3, 0.3]), (32, 16, 1))
    spread = [
        np.ptp(camera._develop(scene.copy(), style | {"saturation": s}, Draws(2))[16, 8].astype(int))
        for s in (-0.5, 0.0)
    ]
    assert spread[0] == pytest.approx(math.exp(-0.5) * spread[1], abs=2)


def photographs(domain, num_people=12):
    cameras = [Camera(DOMAINS[domain], 64, 32, Draws(1, c)) for c in range(3)]
    people = [draw_person(Draws(2, p)) for p in range(num_people)]
    return np.stack([c.photograph(p, Draws(3, i, j)) for i, p in enumerate(people) for j, c in enumerate(cameras)])


@pytest.mark.parametrize(("domains", "share"), [("abc", 0.85), (DOMAINS, 0.5)])
def test_domains_can_be_told_by_style_alone(domains, share):
    """The same people and cameras' numbers in each domain: mean and spread of the channels name the domain."""
    styles = {}
    for domain in domains:
        images = photographs(domain).astype(np.float64)
        styles[domain] = np.concatenate([images.mean((1, 2)), images.std((1, 2))], axis=1)
    for domain, rows in styles.items():
        distances = np.stack([np.linalg.norm(rows - other.mean(0), axis=1) for other in styles.values()])
        assert (np.array(list(styles))[distances.argmin(0)] == domain).mean() > share


@pytest.mark.parametrize("domain", DOMAINS)
def test_people_are_seen_in_every_domain(domain, monkeypatch):
    """Images are neither dark nor pale as a whole, nor clipped, and a person stands out from the same empty place."""
    images = photographs(domain)
    assert images.mean((1, 2, 3)).min() > 20
    assert images.mean((1, 2, 3)).max() < 235
    assert ((images.max(-1) == 0) | (images.min(-1) == 255)).mean() < 0.05
    quiet = replace(DOMAINS[domain], noise=Spread(0.0))
    person = draw_person(Draws(2, 1))
    seen = Camera(quiet, 64, 32, Draws(1, 1)).photograph(person, Draws(3)).astype(int)
    monkeypatch.setattr("datasets.synthetic_camera.paint_person", lambda *_: None)
    empty = Camera(quiet, 64, 32, Draws(1, 1)).photograph(person, Draws(3)).astype(int)
    assert (np.abs(seen - empty).max(-1) > 16).mean() > 0.1


def test_a_cast_colours_the_background_alone():
    plain = DOMAINS["a"]
    cast = replace(plain, background_cast=(1.2, 1.0, 0.5))
    first, second = (Camera(domain, 64, 32, Draws(1))._panorama for domain in (plain, cast))
    np.testing.assert_allclose(second, first * [1.2, 1.0, 0.5], rtol=1e-6)


# Means of the four quarters from top to bottom, R, G, B, of person 1 under camera 1. Other values: another drawing, and
# RENDERER_VERSION must rise, or old caches would be taken for new ones.
GOLDEN = {
    "a": [[129.3, 118.2, 110.6], [134.6, 103.6, 86.0], [135.6, 112.5, 95.9], [124.6, 106.8, 92.2]],
    "b": [[122.5, 155.4, 163.4], [121.8, 143.0, 141.5], [122.6, 146.7, 145.5], [117.2, 140.8, 139.6]],
    "c": [[79.8, 62.1, 45.0], [85.4, 51.7, 35.2], [78.1, 53.0, 29.5], [74.8, 53.7, 23.8]],
    "d": [[113.2, 140.3, 170.1], [110.3, 119.1, 126.0], [112.1, 124.4, 132.5], [107.1, 118.0, 125.2]],
    "e": [[108.2, 93.9, 88.2], [104.7, 83.3, 73.8], [107.1, 86.4, 76.3], [99.7, 81.2, 72.3]],
    "f": [[131.8, 115.9, 127.2], [127.1, 98.5, 97.7], [132.6, 109.8, 111.5], [119.9, 97.7, 100.6]],
    "g": [[92.7, 103.1, 129.1], [93.5, 93.6, 106.3], [94.4, 96.9, 110.8], [88.4, 90.8, 104.7]],
    "h": [[119.3, 130.7, 165.0], [118.3, 120.0, 136.4], [119.3, 122.9, 140.9], [115.4, 118.3, 134.2]],
    "i": [[115.3, 123.4, 118.9], [114.7, 115.4, 109.6], [111.9, 115.6, 105.2], [112.0, 117.3, 102.5]],
    "j": [[88.1, 67.9, 49.3], [92.8, 61.7, 43.3], [86.1, 61.1, 39.9], [83.4, 61.6, 37.1]],
    "k": [[115.7, 113.7, 119.8], [116.6, 107.8, 108.9], [118.6, 112.6, 114.7], [112.8, 108.4, 110.9]],
    "l": [[87.7, 107.8, 145.8], [93.7, 97.4, 125.4], [88.6, 98.7, 116.6], [86.7, 100.9, 111.4]],
}


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_drawing_is_that_of_this_renderer_version(domain):
    image = photographs(domain, 1)[0].reshape(4, 16, 32, 3).mean((1, 2))
    np.testing.assert_allclose(image, GOLDEN[domain], atol=0.2)
