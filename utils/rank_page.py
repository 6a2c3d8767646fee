"""Ranked lists as one static HTML page that needs nothing but itself: images are embedded, there is no script."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import PurePath

from utils.neighbours import Neighbour, RankedList
from utils.thumbnails import encode_data_uri, make_printable, read_thumbnail

THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH = 160, 120  # px

_STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --soft: #59636e; --ground: #ffffff; --line: #d1d9e0;
  --right: #1a7f37; --wrong: #cf222e; --link: #0969da; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9da7b3; --ground: #0d1117; --line: #3d444d;
  --right: #3fb950; --wrong: #ff7b72; --link: #58a6ff; } }
body { margin: 0 auto; padding: 1rem 1.5rem 3rem; max-width: 90rem; background: var(--ground); color: var(--text);
  font: 1rem/1.45 system-ui, sans-serif; }
h1 { margin: 0.5rem 0; font-size: 1.6rem; }
h2 { margin: 2.5rem 0 0; font-size: 1.3rem; }
h3 { margin: 0; font-size: 1rem; overflow-wrap: anywhere; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: 0.3rem 1.5rem; margin: 1rem 0; padding: 0; list-style: none; }
dl { display: flex; flex-wrap: wrap; gap: 0.3rem 2rem; margin: 0.5rem 0; }
dl div { display: flex; gap: 0.4rem; }
dt, .soft, figcaption { color: var(--soft); }
dd { margin: 0; font-variant-numeric: tabular-nums; }
article { margin: 1rem 0; padding-top: 1rem; border-top: 1px solid var(--line); }
.row, .row ol { display: flex; flex-wrap: wrap; gap: 0.45rem; }
.row { margin-top: 0.6rem; flex-wrap: nowrap; }
.row ol { margin: 0; padding: 0; list-style: none; }
figure { margin: 0; width: 5.7rem; flex: none; }
img { display: block; box-sizing: border-box; width: 100%; height: 9.5rem; object-fit: contain; padding: 3px;
  border: 3px solid var(--line); border-radius: 4px; }
.right img { border-color: var(--right); }
.wrong img { border: 3px dashed var(--wrong); }
figcaption { font-size: 0.75rem; line-height: 1.35; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
strong { color: var(--text); }
.right strong { color: var(--right); }
.wrong strong { color: var(--wrong); }
.later { padding-left: 0.6rem; border-left: 1px solid var(--line); }
@media (max-width: 40rem) { .row { flex-wrap: wrap; } .later { border: 0; padding: 0; } }
"""


def format_rank_page(
    target: str, summary: Mapping[str, str], sections: Mapping[str, Sequence[RankedList]], distance: str
) -> str:
    """Sets ranked lists as an HTML page; reads their images.

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
    title = f"Ranked lists on {target}"
    links = "".join(f'<li><a href="#{escape(kind)}">{escape(_heading(kind, lists))}</a></li>'
                    for kind, lists in sections.items())  # fmt: skip
    figures = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in summary.items())
    body = "\n".join(_format_section(kind, lists) for kind, lists in sections.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<dl>{figures}</dl>
<p>Each line is a query and the gallery images nearest to it by {escape(distance)}.
<span class="right"><strong>✓ solid frame</strong></span>: the same person;
<span class="wrong"><strong>✗ dashed frame</strong></span>: another one. Images of the query's person from the
query's own camera, and junk images, do not count and are not shown. Cameras are numbered from 0.</p>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{body}
</main>
</body>
</html>
"""


def _heading(kind: str, lists: Sequence[RankedList]) -> str:
    order = {"best": "highest", "worst": "lowest"}.get(kind)
    noun = "query" if len(lists) == 1 else "queries"
    return f"{len(lists)} {kind} {noun}" + (f" ({order} average precision)" if order else "")


def _format_section(kind: str, lists: Sequence[RankedList]) -> str:
    name = escape(kind)
    articles = "\n".join(_format_list(f"{name}-{i}", ranked) for i, ranked in enumerate(lists, start=1))
    return f"""<section id="{name}" aria-labelledby="{name}-title">
<h2 id="{name}-title">{escape(_heading(kind, lists))}</h2>
{articles}
</section>"""


def _format_list(anchor: str, ranked: RankedList) -> str:
    name = _format_name(ranked.path)
    first = ranked.first_match
    alt = f"Query: identity {ranked.pid}, camera {ranked.camid}"
    later = ""
    if first.rank > len(ranked.neighbours):
        later = f'<div class="later">{_format_neighbour(first, "First right match")}</div>'
    items = "".join(f"<li>{_format_neighbour(n, 'Rank')}</li>" for n in ranked.neighbours)
    return f"""<article id="{anchor}" aria-labelledby="{anchor}-title">
<h3 id="{anchor}-title">{name}</h3>
<dl><div><dt>average precision</dt><dd>{ranked.average_precision:.2%}</dd></div>
<div><dt>first right match at rank</dt><dd>{first.rank}</dd></div>
<div><dt>right matches in the gallery</dt><dd>{ranked.num_matches}</dd></div></dl>
<div class="row">
<figure>{_format_image(ranked.path, alt)}
<figcaption><strong>query</strong><br>id {ranked.pid}, cam {ranked.camid}</figcaption></figure>
<ol>{items}</ol>
{later}
</div>
</article>"""


def _format_neighbour(neighbour: Neighbour, label: str) -> str:
    css, sign, word = ("right", "✓", "the same person") if neighbour.is_match else ("wrong", "✗", "another person")
    place = f"identity {neighbour.pid}, camera {neighbour.camid}, distance {neighbour.distance:.3f}"
    at = f"Rank {neighbour.rank}" if label == "Rank" else f"{label}, rank {neighbour.rank}"
    return f"""<figure class="{css}">{_format_image(neighbour.path, f"{at}, {word}: {place}")}
<figcaption><strong>{sign} {neighbour.rank}</strong> · {neighbour.distance:.3f}<br>id {neighbour.pid}, \
cam {neighbour.camid}<br>{_format_name(neighbour.path)}</figcaption></figure>"""


def _format_name(path: str) -> str:
    return escape(make_printable(PurePath(path).name))


def _format_image(path: str, alt: str) -> str:
    image = read_thumbnail(path, THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH)
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img src="{encode_data_uri(image)}" {size} alt="{escape(alt)}">'
