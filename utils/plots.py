"""Pictures of what a run found."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from utils.files import write_atomically


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
