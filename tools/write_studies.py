"""Writes docs/studies.md with its pictures: what the tables of really trained networks say.

    python -m tools.write_studies                # after a table has grown
    python -m tools.write_studies --folder OUT   # elsewhere

Every number comes from what is in tables/, but for one ratio of costs (``search.describe_searches.CHILD_IMAGES``); a
test checks that the page and its pictures are those that it gives.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from search.about_studies import (
    ABOUT_BUDGETS,
    ABOUT_COMPARISONS,
    ABOUT_DRAWN,
    ABOUT_PLACES,
    ABOUT_SEARCHES,
    ABOUT_SIGNALS,
    INTRODUCTION,
)
from search.compare import Comparison, compare, list_comparison, list_targets
from search.describe_searches import describe_searches
from search.effects import EffectsFit
from search.format_values import format_interval, format_markdown, format_place, format_tau
from search.orders import Interval, compare_orders, estimate_tau
from search.picture import Picture, show_places
from search.places import PLACE_NAMES, say_what_is_sure
from search.report.figures import NAMED, draw_picture
from search.section import Section, mark
from search.studies import HELD_OUT, average, can_be_studied, list_named, study_budgets, study_signals, study_sources
from search.study_drawn import (
    HAND_PICKED,
    MIN_NETWORKS,
    NUM_CONFIRMED_ALL,
    NUM_RUNS,
    study_designs,
    study_left_out,
    study_random,
)
from search.study_searches import check_folders
from search.table import FOLDER, UNSEEN, Table
from utils.files import check_writable, make_folder, write_atomically
from utils.plots import save_figure
from utils.tool import tool

PAGE_NAME = "studies.md"
MARGIN = 0.1  # of tau, that a smaller budget may lose
NUM_RANDOM = (8, NUM_RUNS, NUM_CONFIRMED_ALL)  # networks, of which the best is taken


class Studied(NamedTuple):
    """A table, and the fits of its largest budget by metric."""

    table: Table
    fits: Mapping[str, EffectsFit]


def write_page(folder: Path) -> None:
    """Writes the page and its pictures into a folder, which is made.

    Raises:
        UserError: a table, a search or a comparison is damaged, a search is where it does not belong, or the folder
            cannot be written.
    """
    tables = [Table.load(path) for path in sorted(FOLDER.glob("*.jsonl"))]
    check_folders(FOLDER / "searches", {table.name for table in tables})
    check_writable(make_folder(folder) / PAGE_NAME)
    studied = {
        table.name: Studied(table, {metric: table.predict(metric) for metric in (UNSEEN, HELD_OUT)})
        for table in tables
        if can_be_studied(table)
    }
    parts = [INTRODUCTION, *(describe_table(table, table.name in studied) for table in tables)]
    pictures: dict[str, Picture] = {}

    def show(title: str, name: str, section: Section) -> str:
        if not section.picture:
            return f"{title}\n\n{section.text}"
        pictures[name] = section.picture
        return f"{title}\n\n![{section.picture.about}](studies_{name}.png)\n\n{section.text}"

    for kind, heading, about, describe in STUDIES:
        sections = {name: section for name, study in studied.items() if (section := describe(study)).text}
        if sections:
            parts += [f"## {heading}\n", about]
            parts += [show(f"**{name}**", f"{name}_{kind}", section) for name, section in sections.items()]
    comparisons = {path.stem: Comparison.read(path) for path in sorted((FOLDER / "comparisons").glob("*.json"))}
    if comparisons:
        parts += ["## Found against published\n", ABOUT_COMPARISONS]
        parts += [show(f"### {name}", name, describe_comparison(name, c)) for name, c in comparisons.items()]
    write_atomically(folder / PAGE_NAME, "\n".join(parts))
    for name, picture in pictures.items():
        save_figure(draw_picture(picture), folder / f"studies_{name}.png", picture.describe())


def describe_table(table: Table, is_studied: bool) -> str:
    """Introduces a table."""
    rows = table.at() if table.rows else []
    counts = [sum(row.digits == d for row in rows) for d in {row.digits for row in rows}]
    repeated = sum(count > 1 for count in counts)
    text = (
        f"**{table.name}**: {table.about}. {len(counts)} architectures, {len(rows)} trainings; {repeated} "
        "architectures were trained by more than one seed."
    )
    if not is_studied:
        text += (
            " Nothing is said of it yet: too few trainings to take folds and seeds out of scores, or no unseen domain."
        )
    return f"{text}\n"


def describe_budgets(studied: Studied) -> Section:
    """Shows when the order settles."""
    table, found = studied.table, study_budgets(studied.table)
    rows = [
        (str(s.budget), f"{s.image_passes:,}", "–" if s is found[-1] else format_tau(s.unseen), format_tau(s.held_out),
         "–" if s is found[-1] else format_interval(s.difference, "+.2f"), *map(format_tau, (s.loss, s.seeds)))
        for s in found
    ]  # fmt: skip
    header = ("epochs", "images passed", "unseen domains, then and at the end", "held-out people and cameras",
              "above that at the end", "training loss, lowest first",
              "unseen domains, another seed and fold")  # fmt: skip
    series = {
        "unseen domains": [None if s is found[-1] else mark(s.unseen) for s in found],
        "held-out people and cameras": [mark(s.held_out) for s in found],
        "training loss": [mark(s.loss) for s in found],
        "unseen domains, another seed": [mark(s.seeds) for s in found],
    }
    picture = Picture(f"orders at each budget of {table.name}", series, [f"{s.budget} epochs" for s in found],
                      "tau with the order at the end")  # fmt: skip
    enough = say_enough({s.budget: s.difference for s in found}, "the order by held-out people and cameras loses")
    return Section(f"{format_markdown(header, rows)}\n{enough}\n", picture)


def say_enough(differences: Mapping[int, Interval], what: str) -> str:
    """Says from which budget on little is lost: its tau surely, and that of all larger ones, less than ``MARGIN``."""
    budgets = list(differences)
    enough = (b for i, b in enumerate(budgets) if all(differences[a].low > -MARGIN for a in budgets[i:]))
    if (budget := next(enough, budgets[-1])) < budgets[-1]:
        return f"From {budget} epochs on, {what} at most {MARGIN} of tau (95 %)."
    return f"No smaller budget is known from which on {what} at most {MARGIN} of tau (95 %)."


def describe_signals(studied: Studied) -> Section:
    """Shows what foretells the order by the unseen domains."""
    signals, sources = study_signals(studied.table), study_sources(studied.table)
    shown = {f"`{name}`": signal for name, signal in signals.items()}
    if sources:
        shown["one unseen domain"] = sources.mean
    rows = [
        (name, format_tau(s.tau), "–" if name == f"`{HELD_OUT}`" else format_interval(s.difference, "+.2f"),
         format_tau(s.seeds))
        for name, s in shown.items()
    ]  # fmt: skip
    above = [name for name, s in shown.items() if s.difference.low > 0]
    below = [name for name, s in shown.items() if s.difference.high < 0]
    header = ("score", "tau", f"above `{HELD_OUT}`", "unseen domains, another seed and fold")
    text = (
        f"{format_markdown(header, rows)}\nAt 95 %, each comparison by itself, above `{HELD_OUT}`: "
        f"{', '.join(above) or 'none'}; below: {', '.join(below) or 'none'}.\n"
    )
    if sources:
        rising = sorted(sources.single.items(), key=lambda item: item[1])
        ends = [f"{tau:.2f} (`{name}`)" for name, tau in (rising[0], rising[len(rising) // 2], rising[-1])]
        text += f"\nOne unseen domain: tau from {ends[0]} over {ends[1]}, the middle one, to {ends[2]}.\n"
    series = {
        "the same trainings": [mark(s.tau) for s in shown.values()],
        "another seed and fold": [mark(s.seeds) for s in shown.values()],
    }
    ticks = [name.strip("`").replace("+", " +") for name in shown]
    picture = Picture(f"scores of {studied.table.name} as judges", series, ticks, "tau with the unseen domains")
    return Section(text, picture)


def describe_places(studied: Studied) -> Section:
    """Shows what IN is worth, and where."""
    table, fits = studied
    rows = [(name, *(format_place(fit.places[i]) for fit in fits.values())) for i, name in enumerate(PLACE_NAMES)]
    sure = "".join(f"- `{metric}`: {say_what_is_sure(fit.places)}\n" for metric, fit in fits.items())
    named = [(f"{name} ({digits})", *(f"{v:.1%}" for v in values))
             for name, digits, values in list_named(table, NAMED, list(fits))]  # fmt: skip
    metrics = [f"`{metric}`" for metric in fits]
    text = f"{format_markdown(('place', *metrics), rows)}\n{sure}\n{describe_fit(fits)}\n"
    if named:
        text += f"\n{format_markdown(('network', *metrics), named)}"
    labels = {UNSEEN: "unseen domains", HELD_OUT: "held-out people and cameras"}
    series = {labels[metric]: fit.places for metric, fit in fits.items()}
    picture = show_places(f"effects at the twelve places by {table.name}", series)
    return Section(text, picture)


def describe_fit(fits: Mapping[str, EffectsFit]) -> str:
    """Says how well each metric's fit predicts architectures that it has not seen."""
    parts = []
    for metric, fit in fits.items():
        seen, predicted = np.array(list(fit.left_out.values())).T
        tau = format_tau(estimate_tau([compare_orders(seen, predicted)]))
        parts.append(f"`{metric}` tau {tau}, root mean square error {fit.left_out_error:.1%} where scores have a "
                     f"standard deviation of {seen.std(ddof=1):.1%}")  # fmt: skip
    return f"Each network predicted by a fit of the others, beside its own score: {'; '.join(parts)}."


def describe_drawn_searches(studied: Studied) -> Section:
    """Shows searches that a table's rows stand in for."""
    table, budgets = studied.table, studied.table.budgets
    kinds = {f"the best of {size} random networks": [study_random(table, size, budget) for budget in budgets]
             for size in NUM_RANDOM}  # fmt: skip
    num_networks = kinds[f"the best of {NUM_RUNS} random networks"][-1].num_networks
    fit = f"a fit of {NUM_RUNS} random networks"
    designs = [studies for budget in budgets if (studies := study_designs(table, budget))]
    for name, studies in zip(
        (fit, f"{fit}, confirmed", f"{fit}, confirmed beside the known"), zip(*designs, strict=True), strict=False
    ):
        kinds[name] = list(studies)
    rows = [
        (kind, str(s.budget), f"{s.image_passes:,}", format_tau(s.tau), format_interval(s.regret, ".1%"),
         format_interval(s.percentile, ".0%"), "{} ({:.0%})".format(*s.most_frequent))
        for kind, studies in kinds.items() for s in studies
    ]  # fmt: skip
    header = ("search", "epochs", "images passed", "tau", "behind the best", "better than", "most frequent answer")
    text = f"Drawn from {num_networks} networks"
    if num_networks < MIN_NETWORKS:
        text += f", too few for fits of {NUM_RUNS}, which need {MIN_NETWORKS}"
    elif not designs:
        text += f"; most draws of {NUM_RUNS} cannot tell the effects of candidates and folds apart"
    return Section(f"{text}. {describe_best(table)}\n\n{format_markdown(header, rows)}\n{describe_left_out(table)}")


def describe_left_out(table: Table) -> str:
    """Shows how fits at each budget predict networks that they were not made of, and which budget is enough."""
    found = study_left_out(table)
    if not found:
        return "Without one of these networks there are not enough for a fit.\n"
    rows = [(str(s.budget), format_tau(s.tau), "–" if s is found[-1] else format_interval(s.difference, "+.2f"))
            for s in found]  # fmt: skip
    smallest = say_enough({s.budget: s.difference for s in found}, "fits lose")
    return (
        "Each of these networks predicted by a fit, by held-out images, of all others: tau of the predictions with the "
        "order by the unseen domains at the largest budget, and by how much it is above that of fits at the largest "
        "budget, here with the bootstrap's intervals. Left-out networks are predicted somewhat worse than others.\n\n"
        f"{format_markdown(('epochs', 'tau', 'above that at the end'), rows)}\n"
        f"{smallest}\n"
    )


def describe_best(table: Table) -> str:
    """Says which network is the table's best, and how near to it networks come that were not picked by hand."""
    truth = average(table.observe(UNSEEN))
    best = max(truth, key=lambda digits: truth[digits])
    text = f"The best of the table by the unseen domains is {best}"
    behind = truth[best] - max(score for digits, score in truth.items() if digits not in HAND_PICKED)
    return f"{text}, picked by hand; the best of the others is {behind:.1%} behind it." if behind else f"{text}."


def describe_comparison(name: str, comparison: Comparison) -> Section:
    """Shows networks that were found, retrained beside published and random ones."""
    above = f"above {next(iter(comparison.scores))}"
    settings = ", ".join(f"`{key} {format_value(value)}`" for key, value in sorted(comparison.settings.items()))
    parts = [f"All settings that are not at their defaults: {settings}.\n"]
    labels, series = list(comparison.scores), {}
    for target in list_targets(comparison.scores):
        rows = list_comparison(comparison.scores, target)
        parts.append(format_markdown((f"mAP on {target}", "mean", above, "seeds"), rows))
        means = compare(comparison.scores, target)
        series[target] = [mark(means[label][0]) for label in labels]
    return Section("\n".join(parts), Picture(f"networks retrained in {name}", series, labels, "mAP"))


def format_value(value: Any) -> str:
    """Writes a setting's value as a command line takes it."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def describe_run_searches(studied: Studied) -> Section:
    """Shows the searches that lie beside a table."""
    return describe_searches(studied.table, FOLDER / "searches" / studied.table.name)


STUDIES: tuple[tuple[str, str, str, Callable[[Studied], Section]], ...] = (
    ("budgets", "When does the order settle?", ABOUT_BUDGETS, describe_budgets),
    ("scores", "What should judge an architecture while searching?", ABOUT_SIGNALS, describe_signals),
    ("simulated", "Which search? Simulated searches", ABOUT_DRAWN, describe_drawn_searches),
    ("searches", "Which search? Searches that were run", ABOUT_SEARCHES, describe_run_searches),
    ("places", "What is IN worth, and where?", ABOUT_PLACES, describe_places),
)


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
