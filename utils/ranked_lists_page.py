"""Ranked lists as one static HTML page that needs nothing but itself: images are embedded, there is no script."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.log import progress
from utils.printable import make_printable
from utils.ranked_lists import RankedList
from utils.thumbnails import encode_data_uri, read_thumbnail

THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH = 160, 120  # px
ORDERS = {"best": "highest", "worst": "lowest"}


def format_ranked_lists_page(
    target: str, summary: Mapping[str, str], sections: Mapping[str, Sequence[RankedList]], distance: str
) -> str:
    """Sets ranked lists as an HTML page, ``templates/ranked_lists.html``; reads their images.

    Args:
        target: Name of what was tested on.
        summary: Figures for the head of the page, by name.
        sections: Ranked lists by the kind of their choice, such as ``best``.
        distance: What the distances are, such as "cosine distance".

    Returns:
        The document; all text in it is escaped.

    Raises:
        UserError: an image cannot be read.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["file_name"] = lambda path: make_printable(PurePath(path).name)
    environment.filters["data_uri"] = encode_data_uri
    page = environment.get_template("ranked_lists.html")
    return page.render(
        target=target,
        summary=summary,
        sections=sections,
        distance=distance,
        orders=ORDERS,
        thumbnail=lambda path: read_thumbnail(path, THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH),
        progress=progress,
    )
