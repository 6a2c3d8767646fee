"""Figures: their size, that something is drawn, and how they are saved."""

import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from utils.errors import UserError
from utils.histogram import DistanceHistogram
from utils.plots import draw_activation_maps, draw_architecture, draw_cmc, draw_distances, save_figure


def size_in_inches(figure):
    """Draws a figure, checks that something is in it, and returns its size."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    with Image.open(buffer) as image:
        assert np.asarray(image.convert("L")).std() > 1
    return tuple(figure.get_size_inches())


def texts_in(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def make_histogram(distances):
    histogram = DistanceHistogram()
    histogram.add(np.array(distances, dtype=np.float32), np.array([0]), np.array([], dtype=int))
    return histogram


@pytest.mark.parametrize("has_intervals", [False, True])
def test_architecture_shows_every_value_and_frames_the_chosen(has_intervals):
    values = np.array([[0.5, 0.3, 0.2], [0.1, 0.15, 0.75]])
    half_widths = np.full((2, 3), 0.01) if has_intervals else None
    figure = draw_architecture(values, [0, 1], ["conv2-1\nopen", "conv2-2"], ["a", "b", "c"], "worth", half_widths)
    shown = [f"{value:.3f}" + ("\n± 0.010" if has_intervals else "") for value in values.flatten()]
    assert texts_in(figure) == shown
    labels = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert labels == ["conv2-1\nopen", "conv2-2"]
    frames = [(round(frame.get_x()), round(frame.get_y())) for frame in figure.axes[0].patches]
    assert frames == [(0, 0), (1, 1)]


def test_cmc_is_drawn_in_percent():
    figure = draw_cmc({"a $b$": np.linspace(0.5, 1, 50), "c": np.ones(50)})
    assert size_in_inches(figure) == pytest.approx((7, 4.8))
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["a $b$", "c"]
    np.testing.assert_allclose(lines[0].get_xydata()[[0, -1]], [[1, 50], [50, 100]])


@pytest.mark.parametrize("distances", [[0.1, 0.5, 0.7], [0, 0, 0]], ids=["spread", "all equal"])
def test_distances_are_drawn(distances):
    figure = draw_distances(make_histogram(distances), "Distances on $x$", "cosine distance")
    assert size_in_inches(figure) == pytest.approx((7, 4.2))


def test_activation_sheet_has_three_pictures_per_image():
    images = np.full((5, 32, 16, 3), 200, dtype=np.uint8)
    maps = np.tile(np.linspace(0, 1, 32)[:, None], (5, 1, 16))
    figure = draw_activation_maps(images, maps, ["$a\nb"] * 5, "title")
    assert size_in_inches(figure) == pytest.approx((4 * (3 * 0.8 + 0.3) + 0.3, 2 * 2.1 + 0.75))
    assert len(figure.axes[0].images) == 3 * 5


def test_png_has_150_dots_per_inch(tmp_path):
    save_figure(Figure(figsize=(2, 1)), tmp_path / "f.PNG")
    with Image.open(tmp_path / "f.PNG") as image:
        assert (image.format, image.size) == ("PNG", (300, 150))


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_same_figure_gives_the_same_file(ending, tmp_path):
    for name in ("one", "two"):
        figure = draw_distances(make_histogram([0.1, 0.5, 0.7]), "distances", "cosine distance")
        save_figure(figure, tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


def test_svg_is_whole_and_has_no_date(tmp_path):
    save_figure(draw_cmc({"a < b": np.ones(50)}), tmp_path / "cmc.svg")
    text = (tmp_path / "cmc.svg").read_text(encoding="utf-8")
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "date>" not in text


@pytest.mark.parametrize("name", ["figure", "figure.jpg", "no/such/folder.png"])
def test_a_figure_that_cannot_be_saved(name, tmp_path):
    with pytest.raises(UserError, match=f"cannot write .*{name}") as caught:
        save_figure(Figure(), tmp_path / name)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def fail(self, file, **settings):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(UserError, match="No space left"):
        save_figure(Figure(), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"]
