"""Pictures of what a run found."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from utils.files import write_atomically
from utils.histogram import DistanceHistogram

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # told apart by the colour-blind too
MARKERS = "os^Dv*P"
SHOWN_BINS = 60  # a histogram is drawn in as many bins at least, if it has them
MAP_COLUMNS = 4


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, all or nothing."""
    FigureCanvasAgg(figure)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))


def draw_architecture(
    probabilities: np.ndarray, block_names: Sequence[str], candidate_names: Sequence[str], path: Path
) -> None:
    """Draws a search's result: every candidate's probability, the chosen ones framed, each block's margin.

    Args:
        probabilities: (L, K), rows sum to 1.
        block_names: L names in the order of the network.
        candidate_names: K names.
        path: PNG file to write.
    """
    num_blocks, num_candidates = probabilities.shape
    figure = Figure(figsize=(1.5 * num_blocks + 2, 0.62 * num_candidates + 1.6), layout="constrained")
    axes = figure.add_subplot()
    shades = axes.imshow(
        probabilities.T, cmap="Blues", vmin=0, vmax=max(0.5, float(probabilities.max())), aspect="auto"
    )
    chosen = probabilities.argmax(axis=1)
    for block in range(num_blocks):
        for candidate in range(num_candidates):
            value = probabilities[block, candidate]
            axes.text(
                block, candidate, f"{value:.3f}", ha="center", va="center", fontsize=10,
                color="white" if value > 0.6 * shades.get_clim()[1] else "#333333",
                weight="bold" if candidate == chosen[block] else "normal",
            )  # fmt: skip
        axes.add_patch(Rectangle((block - 0.47, chosen[block] - 0.46), 0.94, 0.92, fill=False, lw=2.5, ec="#d95f02"))
    ordered = np.sort(probabilities, axis=1)
    margins = ordered[:, -1] - ordered[:, -2]
    labels = [f"{name}\nmargin {margin:.3f}" for name, margin in zip(block_names, margins, strict=True)]
    axes.set_xticks(range(num_blocks), labels)
    axes.set_yticks(range(num_candidates), candidate_names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Candidates' probabilities, input to the left; framed: the found architecture", fontsize=11)
    save_figure(figure, path)


def draw_cmc(curves: Mapping[str, np.ndarray], path: Path) -> None:
    """Draws CMC curves in one picture.

    Args:
        curves: By label, (ranks,) each, in [0, 1], from rank 1 on.
        path: PNG file to write.
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
    save_figure(figure, path)


def draw_distances(histogram: DistanceHistogram, title: str, distance: str, path: Path) -> None:
    """Draws how far right matches and other identities are from the queries, each as shares of its own kind.

    Args:
        histogram: At least one distance of each kind counted.
        title: Above the picture.
        distance: Label of the axis.
        path: PNG file to write.
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
    save_figure(figure, path)


def draw_activation_maps(images: np.ndarray, maps: np.ndarray, captions: Sequence[str], title: str, path: Path) -> None:
    """Draws each image, its activation map, and the one laid over the other.

    Args:
        images: (N, H, W, 3) uint8.
        maps: (N, H, W) in [0, 1].
        captions: N texts.
        title: Above the sheet.
        path: PNG file to write.
    """
    columns = min(MAP_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    height_in = 1.6
    width_in = height_in * images.shape[2] / images.shape[1]
    pitch = 3 * width_in + 0.3
    figure = Figure(figsize=(columns * pitch + 0.3, rows * (height_in + 0.5) + 0.75))
    total_width, total_height = figure.get_size_inches()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.text(0.3, 0.15, title, fontsize=11, va="top", parse_math=False, linespacing=1.4)
    for number, (image, activation, caption) in enumerate(zip(images, maps, captions, strict=True)):
        left, top = 0.3 + number % columns * pitch, 0.75 + number // columns * (height_in + 0.5)
        heat = colormaps["inferno"](activation)[..., :3]
        for i, shown in enumerate((image / 255, heat, 0.45 * image / 255 + 0.55 * heat)):
            extent = (left + i * width_in, left + (i + 1) * width_in, top + height_in, top)
            axes.imshow(shown, extent=extent, aspect="auto", interpolation="bilinear")
        axes.text(left, top + height_in + 0.05, caption, fontsize=6.5, va="top", color="#333333", parse_math=False)
    axes.set_xlim(0, total_width)  # one unit is an inch
    axes.set_ylim(total_height, 0)
    save_figure(figure, path)
