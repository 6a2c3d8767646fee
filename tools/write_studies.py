"""Writes docs/studies.md with its pictures: what the tables of really trained networks say.

    python -m tools.write_studies                # after a table has grown
    python -m tools.write_studies --folder OUT   # elsewhere

Every number comes from what is in tables/; a test checks that the page is the one that it gives.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from search.compare import Interval as Mean
from search.effects import EffectsFit
from search.judge import Interval
from search.places import PLACE_NAMES, Place, say_what_is_sure
from search.report.figures import NAMED, draw_places
from search.studies import HELD_OUT, UNSEEN, can_be_studied, list_named, study_budgets, study_signals
from search.study_searches import study_designs, study_random, study_searches
from search.table import FOLDER, Table
from tools.judge_search import format_interval
from utils.drawing import Figure
from utils.files import write_atomically
from utils.plots import save_figure
from utils.tool import tool

PAGE_NAME = "studies.md"
NUM_RANDOM = (8, 32)  # networks, of which the best is taken
INTRODUCTION = """\
# Studies

```
python -m tools.write_studies
```

This page is written from the rows of [tables](../tables/README.md), and from searches that lie beside them, alone.
Orders of architectures are compared by Kendall's tau-b (1: the same, 0: unrelated); where nothing else is said,
intervals hold 95 % and come from a bootstrap over architectures. The parts of the held-out fold and of the seed are
taken out of all scores first. Nothing was tuned on the `unseen` columns.
"""


def write_page(folder: Path) -> None:
    """Writes the page and its pictures into a folder.

    Raises:
        UserError: a table is damaged, or the folder cannot be written.
    """
    parts = [INTRODUCTION]
    for path in sorted(FOLDER.glob("*.jsonl")):
        table = Table.load(path)
        parts.append(describe_table(table))
        if can_be_studied(table):
            fits = {metric: table.predict(metric) for metric in (UNSEEN, HELD_OUT)}
            parts += [describe_budgets(table), describe_signals(table), describe_drawn_searches(table)]
            parts += filter(None, [describe_searches(table, FOLDER / "searches" / table.name)])
            parts.append(describe_places(table, fits))
            save_figure(draw_effects(fits), folder / name_picture(table))
        else:
            parts.append("Too few trainings so far to take folds and seeds out of their scores: nothing is said yet.\n")
    write_atomically(folder / PAGE_NAME, "\n".join(parts))


def describe_table(table: Table) -> str:
    """Introduces a table."""
    rows = table.at() if table.rows else []
    counts = [sum(row.digits == d for row in rows) for d in {row.digits for row in rows}]
    repeated = sum(count > 1 for count in counts)
    return (
        f"## {table.name}\n\n{table.about}. {len(counts)} architectures, {len(rows)} trainings; {repeated} "
        "architectures were trained by more than one seed.\n"
    )


def describe_budgets(table: Table) -> str:
    """Study 1: when the order settles."""
    rows = [
        (str(s.budget), f"{s.image_passes:,}", *map(format_tau, (s.unseen, s.held_out, s.loss, s.seeds)))
        for s in study_budgets(table)
    ]
    header = ("epochs", "images passed", "unseen domains, then and at the end", "held-out people and cameras",
              "training loss, lowest first", "two seeds, unseen domains")  # fmt: skip
    return (
        "### When does the order settle?\n\nTau of the order at each budget with the order by the unseen domains at "
        "the largest budget; in the last column of two seeds with each other at the same budget: how far "
        f"chance alone keeps orders apart.\n\n{format_markdown(header, rows)}"
    )


def describe_signals(table: Table) -> str:
    """Study 2: what should judge an architecture while searching."""
    found = study_signals(table)
    unseen = set(table.groups[UNSEEN])
    seen = [(f"`{name}`", format_tau(tau)) for name, tau in found.items() if name not in unseen]
    single = sorted(tau.value for name, tau in found.items() if name in unseen)
    text = (
        "### What should judge an architecture while searching?\n\nTau of each score with the mean over the unseen "
        f"domains, all at the largest budget.\n\n{format_markdown(('score', 'tau'), seen)}"
    )
    if single:
        middle = single[len(single) // 2]
        text += (f"\nOne unseen domain alone, with the mean of the others: {single[0]:.2f} to {single[-1]:.2f}, median "
                 f"{middle:.2f}: what a held-out source would have said.\n")  # fmt: skip
    return text


def describe_places(table: Table, fits: Mapping[str, EffectsFit]) -> str:
    """Study 4: what IN is worth, and where; ``fits`` of the largest budget, by metric."""
    found = {metric: fit.places for metric, fit in fits.items()}
    rows = [(name, *(format_place(found[metric][i]) for metric in found)) for i, name in enumerate(PLACE_NAMES)]
    sure = "\n".join(f"- `{metric}`: {say_what_is_sure(places)}" for metric, places in found.items())
    named = [(f"{name} ({digits})", *(f"{v:.1%}" for v in values))
             for name, digits, values in list_named(table, NAMED, [UNSEEN, HELD_OUT])]  # fmt: skip
    text = (
        "### What is IN worth, and where?\n\nmAP with IN at a place minus mAP without it, over all other choices, at "
        f"the largest budget.\n\n![effects at the twelve places]({name_picture(table)})\n\n"
        f"{format_markdown(('place', f'`{UNSEEN}`', f'`{HELD_OUT}`'), rows)}\n{sure}\n\n"
        f"The fit orders architectures that it has not seen at tau {fits[UNSEEN].left_out_tau:.2f} (`{UNSEEN}`).\n"
    )
    return f"{text}\n{format_markdown(('network', f'`{UNSEEN}`', f'`{HELD_OUT}`'), named)}" if named else text


def describe_drawn_searches(table: Table) -> str:
    """Study 3, searches that the table's rows stand in for."""
    random = [study_random(table, size, budget) for size in NUM_RANDOM for budget in table.budgets]
    designs = [study for budget in table.budgets if (study := study_designs(table, budget))]
    rows = [
        (f"{kind} {s.num_trainings} random networks", str(s.budget), f"{s.image_passes:,}", format_tau(s.tau),
         format_interval(s.regret, ".1%"), format_interval(s.percentile, ".0%"))
        for kind, studies in (("the best of", random), ("a fit of", designs)) for s in studies
    ]  # fmt: skip
    header = ("search", "epochs", "images passed", "tau", "behind the best", "better than")
    note = "" if designs else "\nFor the fits the table has too few networks yet.\n"
    return (
        "### Which search?\n\nSearches that train each child alone, drawn from the rows: means, and in brackets where "
        "95 % of such searches lie. They decide by held-out people and cameras and are judged by the unseen domains at "
        "the largest budget: tau of their order, by how much mAP their answer is behind the best that they could have "
        "given, and what share of those it is better than. A fit answers with a network that it has not seen; the best "
        "of some random ones is judged by the very training that it was chosen by, which flatters it.\n\n"
        f"{format_markdown(header, rows)}{note}"
    )


def describe_searches(table: Table, folder: Path) -> str:
    """Study 3, searches that ran and lie in a folder."""
    rows = [
        (f"`{s.method}`", str(s.tau.num), f"{s.image_passes:,.0f}", format_mean(s.tau, ".2f"),
         format_mean(s.top_tau, ".2f"), format_mean(s.regret, ".1%"), format_mean(s.regret_of_ten, ".1%"),
         format_mean(s.percentile, ".0%"), f"{s.num_right} / {s.num_wrong}")
        for s in study_searches(table, folder)
    ]  # fmt: skip
    if not rows:
        return ""
    header = ("search", "seeds", "images passed", "tau", "tau within the best tenth", "its first behind the best",
              "the best of its first ten", "its answer better than", "places right / wrong")  # fmt: skip
    return (
        "Searches that ran: means over the seeds with 95 % intervals, by Student's t, in which the noise of the "
        "table's own trainings is not. Of the places that both a search and the fit of the table call decided, the "
        f"last column counts those of the same sign and those of the other.\n\n{format_markdown(header, rows)}"
    )


def draw_effects(fits: Mapping[str, EffectsFit]) -> Figure:
    """Draws the effects of IN at the twelve places, of unseen domains beside held-out images."""
    labels = {UNSEEN: "unseen domains", HELD_OUT: "held-out people and cameras"}
    return draw_places({labels[metric]: fit.places for metric, fit in fits.items()})


def name_picture(table: Table) -> str:
    """Names a table's picture, beside the page."""
    return f"studies_{table.name}.png"


def format_tau(tau: Interval | None) -> str:
    """Writes tau with its interval."""
    return "–" if tau is None else format_interval(tau, ".2f")


def format_mean(mean: Mean, spec: str) -> str:
    """Writes a mean with the half of its interval, if it has one."""
    return "–" if math.isnan(mean.mean) else mean.format(spec)


def format_place(place: Place) -> str:
    """Writes an effect with its interval, bold where it is decided."""
    text = f"{place.value:+.1%} ({place.low:+.1%} … {place.high:+.1%})"
    return f"**{text}**" if place.is_decided else text


def format_markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Sets a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


@tool("write_studies")
def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    docs = FOLDER.parent / "docs"
    parser.add_argument("--folder", type=Path, default=docs, help="where the page goes (default: docs)")
    folder = parser.parse_args(words).folder
    write_page(folder)
    print(folder / PAGE_NAME)
    return 0


if __name__ == "__main__":
    sys.exit(main())
