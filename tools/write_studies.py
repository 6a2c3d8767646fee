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
from search.compare import Comparison, Mean, list_comparison, list_targets
from search.effects import EffectsFit
from search.judge import Expected, Judge, Judgement
from search.orders import Interval, compare_orders, estimate_tau
from search.places import PLACE_NAMES, Place, say_what_is_sure
from search.report.figures import NAMED, draw_places
from search.studies import HELD_OUT, average, can_be_studied, count_passes, list_named, study_budgets, study_signals
from search.study_drawn import (
    HAND_PICKED,
    MIN_NETWORKS,
    NUM_CONFIRMED_ALL,
    NUM_RUNS,
    study_designs,
    study_left_out,
    study_random,
)
from search.study_searches import PAPER, SearchStudy, judge_fewest_norms, list_searches, study_searches
from search.table import FOLDER, UNSEEN, Table
from tools.judge_search import MEASURES, format_ends, format_expected, format_interval
from utils.drawing import Figure
from utils.files import write_atomically
from utils.plots import save_figure
from utils.tool import tool

PAGE_NAME = "studies.md"
CHILD_IMAGES = 2.8  # that cost as much as one of the paper's super-network, see docs/search.md
ANSWERS_HEADER = (
    "order",
    "its first: behind the best",
    "best of its first ten: behind the best",
    "its answers better than",
)
ROUNDING = 1e-9  # half-widths below are of equal values
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
    smallest = (
        f"The smallest budget from which on fits lose less than {MARGIN} of tau (95 %): {enough} epochs."
        if enough < found[-1].budget
        else f"No smaller budget than the largest is sure to lose less than {MARGIN} of tau (95 %)."
    )
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


def describe_searches(studied: Studied) -> str:
    """Shows searches that ran and lie beside a table: their orders, then their answers."""
    table = studied.table
    methods = list_searches(FOLDER / "searches" / table.name)
    if not methods:
        return ""
    judge = Judge(table, table.at(), UNSEEN)
    searches, fewest = study_searches(table, judge, methods), judge_fewest_norms(judge)
    references = {"a random order": list_measures(fewest.random), "fewest norms first": list_single(fewest)}
    if fewest.perfect:
        references["the true order"] = list_measures(fewest.perfect)
    orders = [(name, "–", "–", m["tau"], "–", "–", m["top_tau"], "–") for name, m in references.items()]
    answers = [(name, m["regret"], m["regret_of_ten"], m["percentile"]) for name, m in references.items()]
    if paper := next((s for s in searches if s.method == PAPER), None):
        answers.append(describe_random_at_equal_cost(table, paper.image_passes))
    for s in searches:
        name, tau, places = f"`{s.method}`", format_mean(s.tau, ".2f"), (s.num_right, s.num_wrong, s.num_open)
        orders.append((
            name, str(s.tau.num), f"{s.image_passes:,.0f}", tau + format_ends(s.tau_over_networks, ".2f"),
            format_interval(s.above_fewest, "+.2f"), format_gap(s), format_mean(s.top_tau, ".2f"),
            " / ".join(map(str, places)) if any(places) else "–",
        ))  # fmt: skip
        share = format_interval(s.percentile, ".0%") + (f", {s.num_predicted} predicted" if s.num_predicted else "")
        answers.append((name, format_mean(s.regret, ".1%"), format_mean(s.regret_of_ten, ".1%"), share))
    header = ("order", "seeds", "images passed", "tau", "above the fewest norms", f"above `{PAPER}`",
              "tau within the best tenth", "places right / wrong / open")  # fmt: skip
    return (
        f"{format_markdown(header, orders)}\n{format_markdown(ANSWERS_HEADER, answers)}\nNo prediction by this table's "
        f"fit is above more than {judge.highest_predicted_share:.0%} of these scores.\n"
    )


def format_gap(search: SearchStudy) -> str:
    """Writes how far a search's tau is above the paper's: over the seeds, and over architectures."""
    if search.above_paper is None:
        return "–"
    over_seeds = search.above_paper_over_seeds
    value = f"{search.above_paper.value:+.2f}" if over_seeds is None else format_mean(over_seeds, "+.2f")
    return value + format_ends(search.above_paper, "+.2f")


def describe_random_at_equal_cost(table: Table, image_passes: float) -> tuple[str, str, str, str]:
    """Shows the best of as many random networks, trained for the smallest budget, as cost what the paper's search does.

    Args:
        table: Of the networks.
        image_passes: Of the paper's search.
    """
    budget = table.budgets[0]
    num = max(1, round(CHILD_IMAGES * image_passes / count_passes(table.at(budget))))
    study = study_random(table, num, budget)
    name = f"the best of {num} random networks, {budget} epochs"
    return name, format_interval(study.regret, ".1%"), "–", format_interval(study.percentile, ".0%")


def describe_comparisons(comparisons: Mapping[str, Comparison]) -> str:
    """Shows networks that were found, retrained beside published and random ones."""
    parts = []
    for name, comparison in comparisons.items():
        above = f"above {next(iter(comparison.scores))}"
        settings = ", ".join(f"`{key} {format_value(value)}`" for key, value in sorted(comparison.settings.items()))
        parts.append(f"### {name}\n\nAll settings that are not at their defaults: {settings}.\n")
        for target in list_targets(comparison.scores):
            rows = list_comparison(comparison.scores, target)
            parts.append(format_markdown((f"mAP on {target}", "mean", above, "seeds"), rows))
    return "\n".join(parts)


def format_value(value: Any) -> str:
    """Writes a setting's value as a command line takes it."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def list_measures(expected: Expected) -> dict[str, str]:
    """Writes the mean and the range of each measure."""
    return dict(zip(MEASURES, format_expected(expected), strict=True))


def list_single(judgement: Judgement) -> dict[str, str]:
    """Writes the measures of a single order, of which tau alone has an interval."""
    found = {name: Interval(getattr(judgement.search, name), math.nan, math.nan) for name in MEASURES}
    found["tau"] = judgement.tau
    return {name: format_interval(found[name], spec) for name, spec in MEASURES.items()}


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
    """Writes a mean with the half of its interval, if it has one; equal values, which say little of it, as such."""
    if math.isnan(mean.mean):
        return "–"
    return f"{mean.mean:{spec}} each" if mean.half_width < ROUNDING else mean.format(spec)


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
