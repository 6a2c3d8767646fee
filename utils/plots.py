"""Figures of what a run found, and how any figure is saved.

Every ``draw_*`` function returns a figure; ``save_figure`` writes it.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.drawing import Axes, Figure, Rectangle, colormaps, rc_context
from utils.errors import UserError
from utils.files import write_atomically
from utils.histogram import DistanceHistogram

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # the colour-blind can tell them apart too
MARKERS = "os^Dv*P"
SHOWN_BINS = 60  # a histogram is drawn in at least this many bins, if it has them
MAP_COLUMNS = 4
PIXELS_PER_INCH = 150
SHEET_MARGIN, SHEET_TITLE = 0.3, 0.75  # inches to the left of a sheet's images, and above them for its title


def save_figure(figure: Figure, path: Path, description: str = "") -> None:
    """Writes a figure as PNG or SVG, by the name's ending, all or nothing; the same figure gives the same bytes.

    Args:
        figure: What to write.
        path: Where.
        description: What it shows, in words, kept in the file.

    Raises:
        UserError: another ending, or the file cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise UserError(f"cannot write {path}: a figure's name ends in .png or .svg")
    # level 3 takes a quarter of the time that 6 takes for photographs, and their files grow by 2 %
    options: dict[str, Any] = {"metadata": {"Description": description} if description else {}}
    if kind == "svg":
        options["metadata"]["Date"] = None
    else:
        options["pil_kwargs"] = {"compress_level": 3}
    with rc_context({"svg.hashsalt": "figure"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box stands in its place
        write_atomically(path, lambda file: figure.savefig(file, format=kind, dpi=PIXELS_PER_INCH, **options))


def start_sheet(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """Starts a figure on which images are placed in inches, from its upper left corner.

    Args:
        width: In inches.
        height: In inches.
        title: One or two lines at the top, within ``SHEET_TITLE``.
    """
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.text(SHEET_MARGIN, 0.15, title, fontsize=11, va="top", parse_math=False, linespacing=1.4)
    return figure, axes


def place_image(axes: Axes, image: np.ndarray, left: float, top: float, width: float, height: float) -> None:
    """Draws an image at a place on a sheet, in inches."""
    extent = (left, left + width, top + height, top)
    axes.imshow(image, extent=extent, aspect="auto", interpolation="bilinear")


def draw_architecture(
    values: np.ndarray,
    chosen: Sequence[int],
    labels: Sequence[str],
    candidate_names: Sequence[str],
    value_name: str,
    half_widths: np.ndarray | None = None,
) -> Figure:
    """Draws a search's result: what every candidate is worth in each block, the chosen ones framed.

    Args:
        values: (L, K).
        chosen: L candidates, 0 … K − 1.
        labels: L texts below the blocks, in the order of the network.
        candidate_names: K names.
        value_name: What the values are.
        half_widths: Of the values' intervals, (L, K); None: there are none.
    """
    num_blocks, num_candidates = values.shape
    figure = Figure(figsize=(1.6 * num_blocks + 2, 0.7 * num_candidates + 1.7), layout="constrained")
    axes = figure.add_subplot()
    low, high = float(values.min()), float(values.max())
    top = max(high, low + 2 * max(high - low, 1e-9))  # differences between equal candidates stay pale
    axes.imshow(values.T, cmap="Blues", vmin=low, vmax=top, aspect="auto")
    for block in range(num_blocks):
        for candidate in range(num_candidates):
            text = f"{values[block, candidate]:.3f}"
            if half_widths is not None:
                text += f"\n± {half_widths[block, candidate]:.3f}"
            weight = "bold" if candidate == chosen[block] else "normal"
            axes.text(block, candidate, text, ha="center", va="center", fontsize=9, color="#222222", weight=weight)
        axes.add_patch(Rectangle((block - 0.47, chosen[block] - 0.46), 0.94, 0.92, fill=False, lw=2.5, ec="#d95f02"))
    axes.set_xticks(range(num_blocks), labels)
    axes.set_yticks(range(num_candidates), candidate_names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{value_name}, input to the left; framed: the found architecture", fontsize=11)
    return figure


def draw_cmc(curves: Mapping[str, np.ndarray]) -> Figure:
    """Draws CMC curves in one figure.

    Args:
        curves: By label, (ranks,) each, in [0, 1], from rank 1 on.
    """
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.add_subplot()
    styles = ("-", "--", "-.", ":")
    for number, (label, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        style = styles[number // len(COLOURS) % len(styles)]
        ranks = np.arange(1, len(curve) + 1)
        axes.plot(ranks, 100 * curve, style, color=colour, marker=MARKERS[number % len(MARKERS)], ms=4, label=label)
    axes.set_xlabel("rank")
    axes.set_ylabel("queries with a right match up to there (%)")
    axes.set_xlim(0, None)
    axes.grid(alpha=0.3)
    axes.set_title("Cumulative matching characteristic", fontsize=11)
    for text in axes.legend(loc="lower right", fontsize=9).get_texts():
        text.set_parse_math(False)
    return figure


def draw_distances(histogram: DistanceHistogram, title: str, distance: str) -> Figure:
    """Draws how far right matches and other identities are from the queries, each as shares of its own kind.

    Args:
        histogram: At least one distance of each kind counted.
        title: Above the figure.
        distance: Label of the axis.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    fine = histogram.same + histogram.other
    used = np.flatnonzero(fine)
    merged = 2 ** max(0, int(np.log2((used[-1] - used[0] + 1) / SHOWN_BINS)))
    edges = histogram.edges()[::merged]
    for counts, label, median, colour, hatch, style in (
        (histogram.same, "same person, other camera", histogram.medians()[0], "#0072b2", "///", "-"),
        (histogram.other, "other people", histogram.medians()[1], "#d55e00", "", "--"),
    ):
        total = int(counts.sum())
        share = 100 * counts.reshape(-1, merged).sum(axis=1) / max(total, 1)
        label = f"{label}: {total:,} pairs, median {median:.3g}"
        axes.stairs(share, edges, color=colour, lw=1.8, ls=style, label=label)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.15)
        axes.stairs(share, edges, fill=True, fc="none", ec=colour, lw=0, hatch=hatch)
        axes.axvline(median, color=colour, lw=1, ls=style)
    margin = (used[-1] - used[0] + 1) * 0.03
    low, high = used[0] - margin, used[-1] + 1 + margin
    width = histogram.limit / len(fine)
    axes.set_xlim(max(0.0, low * width), high * width)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)  # room for the legend
    axes.set_xlabel(distance)
    axes.set_ylabel("pairs of that kind (%)")
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.legend(loc="upper left", fontsize=9, framealpha=1)
    return figure


def draw_activation_maps(images: np.ndarray, maps: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """Draws each image, its activation map, and the one laid over the other.

    Args:
        images: (N, H, W, 3) uint8.
        maps: (N, H, W) in [0, 1].
        captions: N texts.
        title: Above the sheet.
    """
    columns = min(MAP_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    height_in = 1.6
    width_in = height_in * images.shape[2] / images.shape[1]
    pitch = 3 * width_in + 0.3
    figure, axes = start_sheet(columns * pitch + 0.3, rows * (height_in + 0.5) + SHEET_TITLE, title)
    for number, (image, activation, caption) in enumerate(zip(images, maps, captions, strict=True)):
        left, top = SHEET_MARGIN + number % columns * pitch, SHEET_TITLE + number // columns * (height_in + 0.5)
        heat = colormaps["inferno"](activation)[..., :3]
        for i, shown in enumerate((image / 255, heat, 0.45 * image / 255 + 0.55 * heat)):
            place_image(axes, shown, left + i * width_in, top, width_in, height_in)
        axes.text(left, top + height_in + 0.05, caption, fontsize=6.5, va="top", color="#333333", parse_math=False)
    return figure
