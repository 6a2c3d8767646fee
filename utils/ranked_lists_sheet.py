"""Ranked lists as a sheet of images: one line per query, its nearest gallery images beside it."""

from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from utils.drawing import Axes, Figure, Rectangle
from utils.plots import PIXELS_PER_INCH, SHEET_MARGIN, SHEET_TITLE, place_image, start_sheet
from utils.ranked_lists import Neighbour, RankedList
from utils.thumbnails import read_thumbnail, shorten

RIGHT, WRONG, QUERY = "#1a7f37", "#cf222e", "#59636e"
SHEET_COLUMNS = 10  # neighbours that fit beside a query; a longer list is cut there
# inches
BOX_HEIGHT, BOX_WIDTH, PITCH, CAPTION = 1.7, 0.98, 1.22, 0.56
GAP = 0.3  # beside the neighbours
MIN_WIDTH = 6.0  # for the title
NAME_LENGTH = 24


def draw_ranked_lists(lists: Sequence[RankedList], title: str) -> Figure:
    """Draws ranked lists; reads their images.

    Right matches have a tick and a solid frame, wrong ones a cross and a dashed frame. Where no right match is shown,
    the first one stands at the end of the line.

    Args:
        lists: At least one.
        title: Above the sheet, one or two lines.

    Raises:
        UserError: an image cannot be read.
    """
    columns = min(SHEET_COLUMNS, max(len(ranked.neighbours) for ranked in lists))
    width = max(MIN_WIDTH, SHEET_MARGIN + 2 * GAP + (columns + 2) * PITCH)
    figure, axes = start_sheet(width, SHEET_TITLE + len(lists) * (BOX_HEIGHT + CAPTION), title)
    for line, ranked in enumerate(lists):
        _draw_line(axes, ranked, columns, SHEET_TITLE + line * (BOX_HEIGHT + CAPTION))
    return figure


def _draw_line(axes: Axes, ranked: RankedList, columns: int, top: float) -> None:
    query = f"query  AP {ranked.average_precision:.2%}\n{_name_labels(ranked)}"
    _draw_image(axes, ranked.path, query, SHEET_MARGIN, top, QUERY, "solid")
    shown = ranked.neighbours[:columns]
    first_left = SHEET_MARGIN + PITCH + GAP
    for column, neighbour in enumerate(shown):
        _draw_neighbour(axes, neighbour, first_left + column * PITCH, top)
    if ranked.first_match.rank > len(shown):
        _draw_neighbour(axes, ranked.first_match, first_left + columns * PITCH + GAP, top)


def _draw_neighbour(axes: Axes, neighbour: Neighbour, left: float, top: float) -> None:
    colour, style, sign = (RIGHT, "solid", "✓") if neighbour.is_match else (WRONG, "dashed", "✗")
    caption = f"{sign} {neighbour.rank}   {neighbour.distance:.3f}\n{_name_labels(neighbour)}"
    _draw_image(axes, neighbour.path, caption, left, top, colour, style)


def _name_labels(shown: RankedList | Neighbour) -> str:
    return shorten(f"id {shown.person}, camera {shown.camera}", NAME_LENGTH)


def _draw_image(axes: Axes, path: str, caption: str, left: float, top: float, colour: str, style: str) -> None:
    """Draws an image in the middle of its box, a frame around the box and the caption below it."""
    image = read_thumbnail(path, round(BOX_HEIGHT * PIXELS_PER_INCH), round(BOX_WIDTH * PIXELS_PER_INCH))
    scale = min(BOX_WIDTH / image.width, BOX_HEIGHT / image.height) * 0.94
    x = left + (BOX_WIDTH - image.width * scale) / 2
    y = top + (BOX_HEIGHT - image.height * scale) / 2
    place_image(axes, np.asarray(image), x, y, image.width * scale, image.height * scale)
    axes.add_patch(Rectangle((left, top), BOX_WIDTH, BOX_HEIGHT, fill=False, lw=2, ec=colour, ls=style))
    heading, rest = caption.split("\n", 1)
    below = top + BOX_HEIGHT + 0.04
    axes.text(left, below, heading, fontsize=8, weight="bold", color=colour, va="top")
    rest = f"{rest}\n{shorten(PurePath(path).name, NAME_LENGTH)}"
    axes.text(left, below + 0.145, rest, fontsize=6, color="#333333", va="top", parse_math=False)
