"""Collects what the report shows and sets the page."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from genotype import BLOCK_NAMES, CANDIDATE_NAMES
from search.answer import Answer
from search.places import PLACE_NAMES
from search.report import figures
from utils.files import write_atomically
from utils.log import format_duration

SHOWN_GENOTYPES = 24


@dataclass(frozen=True)
class Trajectories:
    """Numbers over time that a method shows.

    Attributes:
        title: Heading of the figure.
        x_name: What x is.
        y_name: What y is.
        lines: By label the points (x, y) of each.
    """

    title: str
    x_name: str
    y_name: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class ReportData:
    """What a report shows beside the answer.

    Attributes:
        command: The command line that repeats the search, in words.
        settings: The merged settings, as YAML.
        trajectories: Figures of numbers over time.
        tables: Further tables by title: a header and rows.
    """

    command: Sequence[str]
    settings: str
    trajectories: Sequence[Trajectories] = ()
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[str]]]] = field(default_factory=dict)


def write_report(path: Path, answer: Answer, facts: Mapping[str, Any], data: ReportData) -> None:
    """Writes the report: one static HTML page with nothing to fetch.

    Args:
        path: HTML file to write.
        answer: What was found.
        facts: Data, settings, versions and fingerprints, by name.
        data: What is shown beside them.

    Raises:
        UserError: it cannot be written.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = format_duration
    environment.globals["zip"] = zip
    blocks_text, spread_text = figures.describe_blocks(answer), figures.describe_distribution(answer)
    page = environment.get_template("report.html").render(
        answer=answer,
        data=data,
        facts=facts,
        command=shlex.join(("python", *data.command)),
        block_names=BLOCK_NAMES,
        candidate_names=CANDIDATE_NAMES,
        verdict=answer.verdict,
        not_worse=[figures.name_genotype(digits) for digits in answer.not_worse[:SHOWN_GENOTYPES]],
        place_names=PLACE_NAMES,
        places_figure=Markup(_draw_places(answer)) if answer.places else "",
        blocks_figure=Markup(figures.as_inline_svg(figures.draw_blocks(answer), blocks_text)),
        spread_figure=Markup(figures.as_inline_svg(figures.draw_distribution(answer), spread_text)),
        trajectories=[(t.title, Markup(_draw(t))) for t in data.trajectories],
    )
    write_atomically(path, page)


def _draw_places(answer: Answer) -> str:
    figure = figures.draw_places({answer.value_name: answer.places})
    return figures.as_inline_svg(figure, figures.describe_places(answer))


def _draw(trajectories: Trajectories) -> str:
    figure = figures.draw_trajectories(trajectories.lines, trajectories.x_name, trajectories.y_name)
    ends = ", ".join(f"{label} {points[-1][1]:.3f}" for label, points in trajectories.lines.items())
    alt = f"{trajectories.title}: {trajectories.y_name} by {trajectories.x_name}; at the end {ends}"
    return figures.as_inline_svg(figure, alt)
