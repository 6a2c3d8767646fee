"""Writes docs/studies.md with its pictures: what the tables of really trained networks say.

    python -m tools.write_studies                # after a table has grown
    python -m tools.write_studies --folder OUT   # elsewhere

Every number comes from what is in tables/; a test checks that the page is the one that it gives.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

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
from search.compare import Comparison, estimate_unpaired_difference, list_comparison, list_targets
from search.compare import Interval as Mean
from search.effects import EffectsFit
from search.judge import Interval, Judge, Judgement, compare_orders, estimate_tau
from search.places import PLACE_NAMES, Place, say_what_is_sure
from search.report.figures import NAMED, draw_places
from search.studies import HELD_OUT, average, can_be_studied, count_passes, list_named, study_budgets, study_signals
from search.study_searches import (
    HAND_PICKED,
    MIN_NETWORKS,
    NUM_CONFIRMED_ALL,
    NUM_RUNS,
    judge_fewest_norms,
    list_searches,
    study_designs,
    study_left_out,
    study_random,
    study_searches,
)
from search.table import FOLDER, UNSEEN, Table
from tools.judge_search import MEASURES, format_ends, format_expected, format_interval
from utils.drawing import Figure
from utils.files import write_atomically
from utils.plots import save_figure
from utils.tool import tool

PAGE_NAME = "studies.md"
PAPER = "gumbel"  # the method
CHILD_IMAGES = 3.5  # that take as long as one of the paper's super-network, see docs/search.md
MARGIN = 0.1  # of tau, that a smaller budget may lose
NUM_RANDOM = (8, NUM_RUNS, NUM_CONFIRMED_ALL)  # networks, of which the best is taken


class Studied(NamedTuple):
    """A table, and the fits of its largest budget by metric."""

    table: Table
    fits: Mapping[str, EffectsFit]


def write_page(folder: Path) -> None:
    """Writes the page and its pictures into a folder.

    Raises:
        UserError: a table or a comparison is damaged, or the folder cannot be written.
    """
    tables = [Table.load(path) for path in sorted(FOLDER.glob("*.jsonl"))]
    studied = {
        table.name: Studied(table, {metric: table.predict(metric) for metric in (UNSEEN, HELD_OUT)})
        for table in tables
        if can_be_studied(table)
    }
    parts = [INTRODUCTION, *(describe_table(table, table.name in studied) for table in tables)]
    for heading, about, describe in STUDIES:
        bodies = {name: describe(study) for name, study in studied.items()}
        if any(bodies.values()):
            parts += [f"## {heading}\n", about, *(f"**{name}**\n\n{body}" for name, body in bodies.items() if body)]
    comparisons = {path.stem: Comparison.read(path) for path in sorted((FOLDER / "comparisons").glob("*.json"))}
    if comparisons:
        parts += ["## Found against published\n", ABOUT_COMPARISONS, describe_comparisons(comparisons)]
    write_atomically(folder / PAGE_NAME, "\n".join(parts))
    for study in studied.values():
        save_figure(draw_effects(study.fits), folder / name_picture(study.table))


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


def describe_budgets(studied: Studied) -> str:
    """Shows when the order settles."""
    table = studied.table
    rows = [
        (str(s.budget), f"{s.image_passes:,}", "–" if s.budget == table.budgets[-1] else format_tau(s.unseen),
         *map(format_tau, (s.held_out, s.loss, s.seeds)))
        for s in study_budgets(table)
    ]  # fmt: skip
    header = ("epochs", "images passed", "unseen domains, then and at the end", "held-out people and cameras",
              "training loss, lowest first", "unseen domains, another seed and fold")  # fmt: skip
    return format_markdown(header, rows)


def describe_signals(studied: Studied) -> str:
    """Shows what foretells the order by the unseen domains."""
    found = study_signals(studied.table)
    seen = {name: (s, s.difference) for name, s in found.items() if s.difference}
    single = [s.tau.value for s in found.values() if s.difference is None]
    rows = [
        (f"`{name}`", format_tau(s.tau), "–" if name == HELD_OUT else format_interval(difference, "+.2f"),
         format_tau(s.seeds))
        for name, (s, difference) in seen.items()
    ]  # fmt: skip
    sure = [f"`{name}`" for name, (_, d) in seen.items() if d.low > 0 or d.high < 0]
    told = f"At 95 % for each comparison, {', '.join(sure) or 'no score'} differs from"
    header = ("score", "tau", f"above `{HELD_OUT}`", "unseen domains, another seed and fold")
    text = f"{format_markdown(header, rows)}\n{told} `{HELD_OUT}`.\n"
    if single:
        text += (f"\nOne unseen domain alone, with the mean of the others: tau {min(single):.2f} to {max(single):.2f}, "
                 f"median {statistics.median(single):.2f}.\n")  # fmt: skip
    return text


def describe_places(studied: Studied) -> str:
    """Shows what IN is worth, and where."""
    table, fits = studied
    rows = [(name, *(format_place(fit.places[i]) for fit in fits.values())) for i, name in enumerate(PLACE_NAMES)]
    sure = "".join(f"- `{metric}`: {say_what_is_sure(fit.places)}\n" for metric, fit in fits.items())
    named = [(f"{name} ({digits})", *(f"{v:.1%}" for v in values))
             for name, digits, values in list_named(table, NAMED, list(fits))]  # fmt: skip
    metrics = [f"`{metric}`" for metric in fits]
    picture = f"![effects at the twelve places]({name_picture(table)})\n"
    text = f"{picture}\n{format_markdown(('place', *metrics), rows)}\n{sure}\n{describe_fit(fits)}\n"
    return f"{text}\n{format_markdown(('network', *metrics), named)}" if named else text


def describe_fit(fits: Mapping[str, EffectsFit]) -> str:
    """Says how well each metric's fit predicts architectures that it has not seen."""
    parts = []
    for metric, fit in fits.items():
        seen, predicted = np.array(list(fit.left_out.values())).T
        tau = format_tau(estimate_tau([compare_orders(seen, predicted)]))
        parts.append(f"`{metric}` tau {tau}, root mean square error {fit.left_out_error:.1%} where scores have a "
                     f"standard deviation of {seen.std(ddof=1):.1%}")  # fmt: skip
    return f"Each network predicted by a fit of the others, beside its own score: {'; '.join(parts)}."


def describe_drawn_searches(studied: Studied) -> str:
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
    return f"{text}. {describe_best(table)}\n\n{format_markdown(header, rows)}\n{describe_left_out(table)}"


def describe_left_out(table: Table) -> str:
    """Shows how fits at each budget predict networks that they were not made of, and which budget is enough."""
    found = study_left_out(table)
    if not found:
        return "Without one of these networks there are not enough for a fit.\n"
    rows = [(str(s.budget), format_tau(s.tau), "–" if s is found[-1] else format_interval(s.difference, "+.2f"))
            for s in found]  # fmt: skip
    enough = next(s.budget for i, s in enumerate(found) if all(t.difference.low > -MARGIN for t in found[i:]))
    return (
        "Each of these networks predicted by a fit, by held-out images, of all others: tau of the predictions with the "
        "order by the unseen domains at the largest budget, and by how much it is above that of fits at the largest "
        "budget, here with the bootstrap's intervals. Left-out networks are predicted somewhat worse than others.\n\n"
        f"{format_markdown(('epochs', 'tau', 'above that at the end'), rows)}\n"
        f"The smallest budget from which on fits lose less than {MARGIN} of tau (95 %): {enough} epochs.\n"
    )


def describe_best(table: Table) -> str:
    """Says which network is the table's best, and how near to it networks come that were not picked by hand."""
    truth = average(table.observe(UNSEEN))
    best = max(truth, key=lambda digits: truth[digits])
    text = f"The best of the table by the unseen domains is {best}"
    behind = truth[best] - max(score for digits, score in truth.items() if digits not in HAND_PICKED)
    return f"{text}, picked by hand; the best of the others is {behind:.1%} behind it." if behind else f"{text}."


def describe_searches(studied: Studied) -> str:
    """Shows searches that ran and lie beside a table, a random order and the simplest one."""
    table = studied.table
    methods = list_searches(FOLDER / "searches" / table.name)
    if not methods:
        return ""
    judge = Judge(table, table.at(), UNSEEN)
    searches = study_searches(table, judge, methods)
    paper = next((s for s in searches if s.method == PAPER), None)
    fewest = judge_fewest_norms(judge)
    rows = [
        ("a random order", "–", "–", *list_measures(format_expected(fewest.random)), "–"),
        ("fewest norms first", "–", "–", *list_measures(format_single(fewest)), "–"),
    ]
    if fewest.perfect:
        rows.append(("the true order", "–", "–", *list_measures(format_expected(fewest.perfect)), "–"))
    if paper:
        rows.append(describe_random_at_equal_cost(table, paper.image_passes))
    for s in searches:
        tau, *means = (format_mean(getattr(s, name), spec) for name, spec in MEASURES.items())
        means = [tau + format_ends(s.tau_over_networks, ".2f"), *means]
        places = f"{s.num_right} / {s.num_wrong}" if s.num_right + s.num_wrong else "–"
        gap = estimate_unpaired_difference(s.taus, paper.taus) if paper and s is not paper else None
        measures = list_measures(format_single(s.alone) if s.alone else means, gap)
        rows.append((f"`{s.method}`", str(s.tau.num), f"{s.image_passes:,.0f}", *measures, places))
    header = ("search", "seeds", "images passed", "tau", f"tau above `{PAPER}`'s", "tau within the best tenth",
              "its first: behind the best", "best of its first ten: behind the best", "its answer better than",
              "places right / wrong")  # fmt: skip
    return format_markdown(header, rows)


def list_measures(measures: Sequence[str], gap: Mean | None = None) -> list[str]:
    """Puts behind tau by how much it is above the paper's."""
    tau, *others = measures
    return [tau, "–" if gap is None else format_mean(gap, "+.2f"), *others]


def describe_random_at_equal_cost(table: Table, image_passes: float) -> tuple[str, ...]:
    """Shows the best of as many random networks, trained for the smallest budget, as cost what the paper's search does.

    Args:
        table: Of the networks.
        image_passes: Of the paper's search.
    """
    budget = table.budgets[0]
    num = max(1, int(CHILD_IMAGES * image_passes / count_passes(table.at(budget))))
    study = study_random(table, num, budget)
    name = f"the best of {num} random networks, {budget} epochs"
    regret, better = format_interval(study.regret, ".1%"), format_interval(study.percentile, ".0%")
    return name, "–", f"{study.image_passes:,}", "–", "–", "–", regret, "–", better, "–"


def describe_comparisons(comparisons: Mapping[str, Comparison]) -> str:
    """Shows networks that were found, retrained beside published and random ones."""
    parts = []
    for name, comparison in comparisons.items():
        above = f"above {next(iter(comparison.scores))}"
        settings = ", ".join(f"`{key} {value}`" for key, value in sorted(comparison.settings.items()))
        parts.append(f"### {name}\n\nAll settings that are not at their defaults: {settings}.\n")
        for target in list_targets(comparison.scores):
            rows = list_comparison(comparison.scores, target)
            parts.append(format_markdown((f"mAP on {target}", "mean", above, "seeds"), rows))
    return "\n".join(parts)


def format_single(judgement: Judgement) -> list[str]:
    """Writes the measures of a single order, of its answer the share of networks that it is better than."""
    unknown = Interval(math.nan, math.nan, math.nan)
    found = {name: Interval(getattr(judgement.search, name), math.nan, math.nan) for name in MEASURES}
    found |= {"tau": judgement.tau, "percentile": judgement.answer.percentile if judgement.answer else unknown}
    return [format_interval(found[name], spec) for name, spec in MEASURES.items()]


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


STUDIES: tuple[tuple[str, str, Callable[[Studied], str]], ...] = (
    ("When does the order settle?", ABOUT_BUDGETS, describe_budgets),
    ("What should judge an architecture while searching?", ABOUT_SIGNALS, describe_signals),
    ("Which search? Simulated searches", ABOUT_DRAWN, describe_drawn_searches),
    ("Which search? Searches that were run", ABOUT_SEARCHES, describe_searches),
    ("What is IN worth, and where?", ABOUT_PLACES, describe_places),
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
