"""The report's figures. Colours that follow the page's are set by ``as_inline_svg``."""

import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from genotype import BLOCK_NAMES, CANDIDATE_NAMES, Genotype, number_of
from search.answer import Answer, BlockAnswer
from search.picture import Picture, show_places
from search.places import PLACE_NAMES, Place
from utils.drawing import Axes, Figure, MaxNLocator, rc_context
from utils.plots import COLOURS, MARKERS, draw_architecture

TEXT = "#010203"  # stands for the page's text colour until the figure is in the page
FOUND = "#d95f02"
STYLES = ("--", ":", "-.", "-")
NAMED = {"OSNet, IN stem": "000000", "OSNet-IBN": "220000", "OSNet-AIN": "110110"}


def draw_grid(answer: Answer) -> Figure:
    """Draws ``architecture.png``: what each candidate is worth in each block as a grid, the found ones framed."""
    low, high = (np.array([getattr(block, end) for block in answer.blocks]) for end in ("low", "high"))
    labels = [
        f"{name}\n{'decided' if block.is_decided else 'undetermined'}"
        for name, block in zip(BLOCK_NAMES, answer.blocks, strict=True)
    ]
    return draw_architecture(
        np.array([block.values for block in answer.blocks]),
        answer.genotype.indices,
        labels,
        CANDIDATE_NAMES,
        answer.value_name,
        (high - low) / 2 if low.size else None,
    )


def draw_blocks(answer: Answer) -> Figure:
    """Draws what each candidate is worth in each block, with intervals where there are any; the found ones framed."""
    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    panels = figure.subplots(1, len(BLOCK_NAMES), sharey=True)
    for axes, name, block in zip(panels, BLOCK_NAMES, answer.blocks, strict=True):
        _draw_block(axes, block)
        verdict = "decided" if block.is_decided else "undetermined"
        axes.set_title(f"{name}\n{verdict}", fontsize=10, fontweight="bold" if block.is_decided else "normal")
        _plain(axes)
    panels[0].set_ylabel(answer.value_name)
    return figure


def _draw_block(axes: Axes, block: BlockAnswer) -> None:
    places = np.arange(len(CANDIDATE_NAMES))
    values = np.asarray(block.values)
    for k, name in enumerate(CANDIDATE_NAMES):
        is_found = name == block.candidate
        colour = FOUND if is_found else TEXT
        if len(block.low):
            axes.plot([k, k], [block.low[k], block.high[k]], color=colour, lw=2, solid_capstyle="butt")
        axes.plot(k, values[k], "D" if is_found else "o", color=colour, ms=8 if is_found else 5)
    axes.set_xticks(places, [name.removeprefix("OSBlock") or "plain" for name in CANDIDATE_NAMES], fontsize=8)
    axes.set_xlim(-0.6, len(places) - 0.4)


def draw_places(series: Mapping[str, Sequence[Place]]) -> Figure:
    """Draws what IN is worth at each of the twelve places, by label, with intervals; where that is sure, filled."""
    return draw_picture(show_places("effects at the twelve places", series))


def draw_picture(picture: Picture) -> Figure:
    """Draws values with intervals side by side; the last word of a tick's name goes to a line of its own."""
    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0, color=TEXT, lw=0.8)
    step = min(0.3, 0.7 / len(picture.series))
    for number, (label, marks) in enumerate(picture.series.items()):
        colour = COLOURS[number % len(COLOURS)]
        shift = step * (number - (len(picture.series) - 1) / 2)
        shown = [(i + shift, mark) for i, mark in enumerate(marks) if mark is not None]
        for i, (x, mark) in enumerate(shown):
            axes.plot([x] * 2, [mark.low, mark.high], color=colour, lw=2, solid_capstyle="butt")
            axes.plot(x, mark.value, MARKERS[number % len(MARKERS)], color=colour, ms=7,
                      fillstyle="full" if mark.is_filled else "none", label=label if i == 0 else None)  # fmt: skip
    if len(picture.series) > 1:
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    ticks = ["\n".join(name.rsplit(" ", 1)) for name in picture.ticks]
    axes.set_xticks(range(len(ticks)), ticks, fontsize=8)
    axes.set_xlim(-0.5, len(ticks) - 0.5)
    axes.set_ylabel(picture.y_name, fontsize=9)
    _plain(axes)
    return figure


def draw_distribution(answer: Answer) -> Figure:
    """Draws how the scores of all 4,096 genotypes are spread, and where the known and the found ones are."""
    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    low, high = float(answer.scores.min()), float(answer.scores.max())
    margin = max(0.0, 1e-6 * max(abs(low), abs(high)) - (high - low))  # where all are the same but for rounding
    axes.hist(answer.scores, bins=60, range=(low - margin, high + margin), color=COLOURS[4])
    for (name, digits), style in zip({**NAMED, "found": answer.genotype.digits}.items(), STYLES, strict=True):
        value, is_found = answer.scores[number_of(digits)], name == "found"
        colour, width = (FOUND, 2.5) if is_found else (TEXT, 1.2)
        axes.axvline(value, color=colour, lw=width, ls=style, label=f"{name}  {value:.3f}")
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_xlabel(answer.score_name)
    axes.set_ylabel("genotypes")
    _plain(axes)
    return figure


def draw_trajectories(lines: Mapping[str, Sequence[tuple[float, float]]], x_name: str, y_name: str) -> Figure:
    """Draws numbers over time.

    Args:
        lines: By label the points (x, y) of each.
        x_name: What x is.
        y_name: What y is.
    """
    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for i, (label, points) in enumerate(lines.items()):
        x, y = zip(*points, strict=True)
        axes.plot(x, y, marker=MARKERS[i % len(MARKERS)], ms=4, color=COLOURS[i % len(COLOURS)],
                  ls=("-", "--", ":")[i // len(COLOURS) % 3], label=label)  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _plain(axes)
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(TEXT)
    axes.tick_params(colors=TEXT)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(TEXT)
    if legend := axes.get_legend():
        for text in legend.get_texts():
            text.set_color(TEXT)


def as_inline_svg(figure: Figure, alt: str) -> str:
    """Returns a figure as SVG to stand inside a page: with a text for screen readers, in the page's text colour."""
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "report", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(TEXT, "currentColor")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt, quote=True)}" ', 1)


def describe_blocks(answer: Answer) -> str:
    """Says in words what ``draw_blocks`` shows."""
    parts = []
    for name, block in zip(BLOCK_NAMES, answer.blocks, strict=True):
        values = ", ".join(f"{c} {v:.3f}" for c, v in zip(CANDIDATE_NAMES, block.values, strict=True))
        parts.append(f"{name}: {block.candidate} found, {'decided' if block.is_decided else 'undetermined'}; {values}")
    return f"{answer.value_name} of each candidate in each block. " + ". ".join(parts)


def describe_places(answer: Answer) -> str:
    """Says in words what ``draw_places`` shows."""
    parts = [
        f"{name} {place.value:+.3f}, {'decided' if place.is_decided else 'open'}"
        for name, place in zip(PLACE_NAMES, answer.places, strict=True)
    ]
    return f"Score with IN at a place minus that without: {'; '.join(parts)}"


def describe_distribution(answer: Answer) -> str:
    """Says in words what ``draw_distribution`` shows."""
    low, middle, high = np.percentile(answer.scores, [5, 50, 95])
    marked = ", ".join(
        f"{n} {answer.scores[int(d, 4)]:.3f}" for n, d in {**NAMED, "found": answer.genotype.digits}.items()
    )
    return (
        f"{answer.score_name} of all {len(answer.scores):,} genotypes: 5 % below {low:.3f}, half below {middle:.3f}, "
        f"95 % below {high:.3f}. {marked}"
    )


def name_genotype(digits: str) -> str:
    """Returns a genotype's published name with its digits, or the digits alone."""
    names = {known: name for name, known in NAMED.items()}
    return f"{names[digits]} ({digits})" if digits in names else Genotype.from_digits(digits).digits
