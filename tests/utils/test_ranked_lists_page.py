"""The page of ranked lists: well-formed, escaped, self-contained; and the sheets of pictures."""

import base64
import io
import os
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from datasets.decode import decode_image
from utils.errors import UserError
from utils.plots import save_figure
from utils.ranked_lists import Neighbour, RankedList
from utils.ranked_lists_page import THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH, format_ranked_lists_page
from utils.ranked_lists_sheet import draw_ranked_lists
from utils.thumbnails import read_thumbnail, shorten

VOID = {"meta", "img", "br", "link"}
NASTY = "a & b <i>\"'$x_y$ c.jpg"
EXTERNAL = {"src", "href", "action", "srcset", "poster", "data"}


class PageParser(HTMLParser):
    """Collects what the tests look at and checks that elements are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def parse(page):
    parser = PageParser()
    parser.feed(page)
    parser.close()
    assert not parser.open
    return parser


@pytest.fixture
def ranked(tmp_path):
    """A query whose two shown neighbours are wrong, files with names that need care."""
    folder = tmp_path / "<data> & more"
    folder.mkdir()
    paths = [str(folder / NASTY), str(folder / "tall.png"), str(folder / "wide palette.png"), str(folder / "grey.bmp")]
    Image.new("RGB", (64, 128), "red").save(paths[0], format="JPEG")
    Image.new("RGB", (300, 900), "green").save(paths[1])
    Image.new("P", (500, 100)).save(paths[2], transparency=0)
    Image.new("L", (20, 30), 128).save(paths[3])
    neighbours = (Neighbour(1, paths[1], "8", "yard & door", 0.25, False), Neighbour(2, paths[2], "0", "2", 0.5, False))
    return RankedList(paths[0], "<i>zoë", "1", 0.125, 3, neighbours, Neighbour(9, paths[3], "<i>zoë", "3", 0.75, True))


def test_page_is_well_formed_and_says_what_it_shows(ranked):
    page = format_ranked_lists_page("mar<key>", {"mAP": "12.0%"}, {"best": [ranked], "random": []}, "cosine distance")
    parser = parse(page)
    text = "".join(parser.text)
    assert page.startswith("<!DOCTYPE html>")
    assert ("html", {"lang": "en"}) in parser.elements
    assert "Ranked lists on mar<key>" in text
    for part in (
        NASTY,
        "12.0%",
        "12.50%",
        "cosine distance",
        "✗ 1",
        "✗ 2",
        "✓ 9",
        "id 8, cam yard & door",
        "id <i>zoë, cam 1",
        "0.250",
    ):
        assert part in text, part
    assert not {"i", "key", "script"} & {tag for tag, _ in parser.elements}
    links = [attributes["href"] for tag, attributes in parser.elements if tag == "a"]
    ids = [attributes["id"] for _, attributes in parser.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert links == ["#best", "#random"]
    named = {a["aria-labelledby"] for _, a in parser.elements if "aria-labelledby" in a}
    assert {*named, "best", "random"} <= set(ids)


def test_images_are_embedded_small_and_described(ranked):
    parser = parse(format_ranked_lists_page("x", {}, {"best": [ranked]}, "cosine distance"))
    images = [attributes for tag, attributes in parser.elements if tag == "img"]
    assert [i["alt"] for i in images] == [
        "Query: identity <i>zoë, camera 1",
        "Rank 1, another person: identity 8, camera yard & door, distance 0.250",
        "Rank 2, another person: identity 0, camera 2, distance 0.500",
        "First right match, rank 9, the same person: identity <i>zoë, camera 3, distance 0.750",
    ]
    sizes = []
    for attributes in images:
        head, data = attributes["src"].split(",", 1)
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
            image.load()
            assert (str(image.width), str(image.height)) == (attributes["width"], attributes["height"])
            sizes.append(image.size)
    assert sizes == [(64, 128), (53, THUMBNAIL_HEIGHT), (THUMBNAIL_WIDTH, 24), (20, 30)]


def test_page_needs_nothing_from_outside(ranked):
    page = format_ranked_lists_page("x", {}, {"best": [ranked], "worst": [ranked]}, "cosine distance")
    for tag, attributes in parse(page).elements:
        for name in EXTERNAL & attributes.keys():
            assert attributes[name].startswith(("#", "data:")), (tag, name)
    assert "url(" not in page
    assert "@import" not in page


def test_shown_first_match_is_not_repeated(ranked):
    first = Neighbour(1, ranked.path, "7", "2", 0.1, True)
    found = RankedList(ranked.path, "7", "1", 1.0, 1, (first,), first)
    text = "".join(parse(format_ranked_lists_page("x", {}, {"best": [found]}, "cosine distance")).text)
    assert text.count("✓ 1") == 1


def render(figure):
    """Draws a figure; returns its pixels, (H, W, 3) float."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(float)


def test_sheet_grows_with_its_lists(ranked):
    one, three = draw_ranked_lists([ranked], "one $ & <title>"), draw_ranked_lists([ranked] * 3, "three")
    (width, height), (same_width, height_of_three) = one.get_size_inches(), three.get_size_inches()
    assert width == same_width == pytest.approx(6)
    assert height_of_three - height == pytest.approx(2 * 2.26)
    assert render(one).std() > 1


def test_sheet_shows_frames_in_colour_and_style(ranked):
    pixels = render(draw_ranked_lists([ranked], "x"))
    wrong, right = (np.abs(pixels - colour).sum(axis=2) < 30 for colour in ((0xCF, 0x22, 0x2E), (0x1A, 0x7F, 0x37)))
    # frames are two pictures wide against one; dashes leave more than a quarter of a wrong one's line open
    assert 0 < wrong.sum() < 2 * 0.75 * right.sum()


def test_long_list_is_cut_in_the_sheet(ranked):
    neighbours = tuple(Neighbour(i, ranked.path, "8", "1", 0.5, False) for i in range(1, 16))
    long = RankedList(ranked.path, "7", "1", 0.1, 1, neighbours, ranked.first_match)
    assert draw_ranked_lists([long], "x").get_size_inches()[0] == pytest.approx(0.9 + 12 * 1.22)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (os.fsdecode(b"K\xf6ln <1>.png"), r"K\udcf6ln <1>.png"),
        ("a\nb\r\t\x1b[31m.png", r"a\nb\r\t\x1b[31m.png"),
        ("gpj.\u202e\u2028\x85.png", r"gpj.\u202e\u2028\x85.png"),
        ("行人 😀.png", "行人 😀.png"),
    ],
    ids=["no UTF-8", "control characters", "marks that change the order or break lines", "glyphs that a font may lack"],
)
def test_every_name_is_shown(name, shown, tmp_path):
    """In one line, on the page and on the sheet, whose saving gives no warning."""
    path = str(tmp_path / name)
    Image.new("RGB", (32, 64), "blue").save(path)
    first = Neighbour(1, path, "7" * 40, "2", 0.1, True)
    found = RankedList(path, "7" * 40, "1", 1.0, 1, (first,), first)
    page = format_ranked_lists_page("x", {}, {"best": [found]}, "cosine distance").encode().decode()
    assert [text.strip() for text in parse(page).text].count(shown) == 2
    for ending in ("png", "svg"):
        save_figure(draw_ranked_lists([found], "x"), tmp_path / f"sheet.{ending}")


def test_sixteen_bit_grey_is_not_white(tmp_path):
    grey = np.repeat(np.array([0, 255, 256, 40_000, 65_535], np.uint16)[:, None], 3, axis=1)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    shown = read_thumbnail(tmp_path / "grey.png", 5, 3)
    assert shown.mode == "RGB"
    assert np.asarray(shown)[:, 0].tolist() == [[v] * 3 for v in (0, 0, 1, 156, 255)]
    np.testing.assert_array_equal(np.asarray(shown), decode_image(tmp_path / "grey.png").permute(1, 2, 0).numpy())


def test_long_name_loses_its_middle():
    assert shorten("short.jpg", 9) == "short.jpg"
    assert shorten("0123456789.jpg", 9) == "0123….jpg"
    assert shorten("\udcff\n.jpg", 12) == r"\udcff\n.jpg"


def test_unreadable_image_is_reported(tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    for path in (broken, tmp_path / "missing.jpg"):
        with pytest.raises(UserError, match=rf"cannot read image .*{path.name}"):
            read_thumbnail(path, 10, 10)
