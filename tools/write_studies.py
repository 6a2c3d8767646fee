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

from search.compare import ABOUT_RANDOM_MEAN, Comparison, list_comparison, list_targets
from search.compare import Interval as Mean
from search.confirm import CONFIRM_SEEDS
from search.effects import EffectsFit
from search.judge import Interval, Judgement, compare_orders, estimate_tau
from search.places import PLACE_NAMES, Place, say_what_is_sure
from search.report.figures import NAMED, draw_places
from search.studies import HELD_OUT, can_be_studied, list_named, study_budgets, study_signals
from search.study_searches import (
    MIN_NETWORKS,
    NUM_RUNS,
    judge_fewest_norms,
    study_designs,
    study_left_out,
    study_random,
    study_searches,
)
from search.table import FOLDER, UNSEEN, Table
from tools.judge_search import MEASURES, format_interval
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

This page is generated, from nothing but what lies in [tables](../tables/README.md): their rows, and the searches and
comparisons beside them. Orders of architectures are compared by Kendall's tau-b (1: the same, 0: unrelated), with the
95 % interval of a bootstrap over architectures. The estimated parts of fold and seed are subtracted from all scores
first; the intervals take these parts as known.

## The tables
"""


ABOUT_BUDGETS = """\
Tau of the order at each budget with the order by the unseen domains at the largest budget. Both orders come from the
same trainings, so shared luck counts as agreement. The last column compares one seed's order at the budget with
another's at the end, over the same architectures: how far an order can be trusted at all (–: too few architectures were
trained twice).
"""
ABOUT_SIGNALS = f"""\
Tau of each score with the mean over the unseen domains, all at the largest budget and of the same trainings; and by how
much it is above that of `{HELD_OUT}`, the same architectures drawn for both. A search that is judged by these tables
may use `heldout_*` scores alone.
"""
ABOUT_DRAWN = f"""\
Simulated searches, each of which trains networks alone, their results taken from the rows of networks that were not
picked by hand. Shown are the mean and, in brackets, the range of 95 % of such searches among these rows; chance in the
rows themselves is not taken out. They decide by held-out people and cameras and are judged by the unseen domains at the
largest budget: tau of their order, by how much mAP their answer is behind the best of the whole table, and what share
of its other networks it is better than.

The best of some random networks (drawn with replacement) is judged by the very training that it was chosen by, which
flatters it. A fit answers with a network that it has not seen. Confirmed, six are trained anew, as the [designed
search](search.md#the-three) does, {CONFIRM_SEEDS} times each: the fit's first, the best of those it was made of, OSNet
with an IN stem, OSNet-AIN, and the fit's next; the best of them by held-out images is the answer. Their trainings in
the table, one each, stand in for the new ones.
"""
ABOUT_SEARCHES = """\
The mean over their seeds ± 95 % (Student's t). Of a single one, tau has the bootstrap's interval, in which other seeds
of the search are not, and an answer that was not trained the fit's prediction interval. Above them a random order, its
mean and the range of 95 %, and the simplest order, fewer instance norms first, whose direction trials before the table
had shown. The first ones are those among the trained networks. The last column: places that both the search and the fit
of the table call decided, of the same sign and of the other. An image costs a super-network of four separate candidates
several times what it costs a child ([costs](search.md#measured)).
"""
ABOUT_PLACES = """\
mAP with IN at a place minus mAP without it, averaged over all other choices, at the largest budget. Intervals are
Student's t, of each place by itself; bold: the sign is sure at 5 % over the column's twelve places (Holm). How well the
fit orders networks is measured by leaving each out; the intervals take the predictions as given, and left-out members
of an orthogonal array are those that the others say least about, so tau is somewhat higher for networks outside the
table. Scores of named networks are means of their trainings, minus the parts of fold and seed, which are estimates.
"""
ABOUT_COMPARISONS = f"""\
Networks that `tools.compare_genotypes` trained alike, each alone: mean mAP ± 95 % over the seeds (Student's t), and
differences to the first network, paired by seed. {ABOUT_RANDOM_MEAN}
"""


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
    studied = [
        Studied(table, {metric: table.predict(metric) for metric in (UNSEEN, HELD_OUT)})
        for table in tables
        if can_be_studied(table)
    ]
    parts = [INTRODUCTION, *map(describe_table, tables)]
    for heading, about, describe in STUDIES:
        bodies = {study.table.name: describe(study) for study in studied}
        if any(bodies.values()):
            parts += [f"## {heading}\n", about, *(f"**{name}**\n\n{body}" for name, body in bodies.items() if body)]
    comparisons = {path.stem: Comparison.read(path) for path in sorted((FOLDER / "comparisons").glob("*.json"))}
    if comparisons:
        parts += ["## Found against published\n", ABOUT_COMPARISONS, describe_comparisons(comparisons)]
    write_atomically(folder / PAGE_NAME, "\n".join(parts))
    for study in studied:
        save_figure(draw_effects(study.fits), folder / name_picture(study.table))


def describe_table(table: Table) -> str:
    """Introduces a table."""
    rows = table.at() if table.rows else []
    counts = [sum(row.digits == d for row in rows) for d in {row.digits for row in rows}]
    repeated = sum(count > 1 for count in counts)
    text = (
        f"**{table.name}**: {table.about}. {len(counts)} architectures, {len(rows)} trainings; {repeated} "
        "architectures were trained by more than one seed."
    )
    if not can_be_studied(table):
        text += " Too few trainings so far to take folds and seeds out of their scores: nothing is said of it yet."
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
    seen = {name: (s.tau, s.difference) for name, s in found.items() if s.difference is not None}
    single = [s.tau.value for s in found.values() if s.difference is None]
    rows = [
        (f"`{name}`", format_tau(tau), "–" if name == HELD_OUT else f"{difference.value:+.2f} ({difference.low:+.2f} … "
         f"{difference.high:+.2f})")
        for name, (tau, difference) in seen.items()
    ]  # fmt: skip
    sure = [f"`{name}`" for name, (_, d) in seen.items() if d.low > 0 or d.high < 0]
    told = f"At 95 % each, {', '.join(sure)} can be told from" if sure else "At 95 % each, none can be told from"
    text = f"{format_markdown(('score', 'tau', f'above `{HELD_OUT}`'), rows)}\n{told} `{HELD_OUT}`.\n"
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
        parts.append(f"`{metric}` at tau {tau}, root mean square error {fit.left_out_error:.1%} where scores have a "
                     f"standard deviation of {seen.std(ddof=1):.1%}")  # fmt: skip
    return f"The fit orders architectures that it has not seen by {'; by '.join(parts)}."


def describe_drawn_searches(studied: Studied) -> str:
    """Shows searches that a table's rows stand in for."""
    table, budgets = studied.table, studied.table.budgets
    designs = [pair for budget in budgets if (pair := study_designs(table, budget))]
    kinds = {f"the best of {size} random networks": [study_random(table, size, budget) for budget in budgets]
             for size in NUM_RANDOM}  # fmt: skip
    kinds |= {f"a fit of {NUM_RUNS} random networks": [fit for fit, _ in designs],
              "the same, confirmed": [confirmed for _, confirmed in designs]}  # fmt: skip
    rows = [
        (kind, str(s.budget), f"{s.image_passes:,}", format_tau(s.tau), format_interval(s.regret, ".1%"),
         format_interval(s.percentile, ".0%"))
        for kind, studies in kinds.items() for s in studies
    ]  # fmt: skip
    header = ("search", "epochs", "images passed", "tau", "behind the best", "better than")
    num_networks = next(iter(kinds.values()))[0].num_networks
    drawn_from = f"Drawn from {num_networks} networks"
    if designs:
        known = statistics.mean(confirmed.known for _, confirmed in designs)
        drawn_from += f". Of the confirmed searches {known:.0%} answer with one of the two known networks."
    else:
        drawn_from += f", too few for fits of {NUM_RUNS}, which need {MIN_NETWORKS}."
    left_out = "; ".join(f"{budget}: {format_tau(study_left_out(table, budget))}" for budget in budgets)
    return (
        f"{drawn_from}\n\n{format_markdown(header, rows)}\nTau of the order in which each of the {num_networks} is "
        f"predicted by a fit of all others, by epochs: {left_out}.\n"
    )


def describe_searches(studied: Studied) -> str:
    """Shows searches that ran and lie beside a table, a random order and the simplest one."""
    table = studied.table
    searches = study_searches(table, FOLDER / "searches" / table.name)
    if not searches:
        return ""
    fewest = judge_fewest_norms(table)
    rows = [
        ("a random order", "–", "–", *format_random(fewest), "–"),
        ("fewest norms first", "–", "–", *format_single(fewest), "–"),
    ]
    for s in searches:
        means = (format_mean(getattr(s, name), spec) for name, spec in MEASURES.items())
        places = f"{s.num_right} / {s.num_wrong}" if s.num_right + s.num_wrong else "–"
        measures = format_single(s.alone) if s.alone else means
        rows.append((f"`{s.method}`", str(s.tau.num), f"{s.image_passes:,.0f}", *measures, places))
    header = ("search", "seeds", "images passed", "tau", "tau within the best tenth", "its first: behind the best",
              "best of its first ten: behind the best", "its answer better than", "places right / wrong")  # fmt: skip
    return format_markdown(header, rows)


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


def format_random(judgement: Judgement) -> list[str]:
    """Writes the measures of a random order: mean and range."""
    found = (judgement.random, *judgement.random_range)
    return [format_interval(Interval(*(getattr(m, name) for m in found)), spec) for name, spec in MEASURES.items()]


def format_single(judgement: Judgement) -> list[str]:
    """Writes the measures of a single order, of its answer the share of networks that it is better than."""
    unknown = Interval(math.nan, math.nan, math.nan)
    found = {name: Interval(getattr(judgement.search, name), math.nan, math.nan) for name in MEASURES}
    found |= {"tau": judgement.tau, "percentile": judgement.answer.percentile if judgement.answer else unknown}
    return [format_interval(found[name], spec) for name, spec in MEASURES.items()]


STUDIES: tuple[tuple[str, str, Callable[[Studied], str]], ...] = (
    ("When does the order settle?", ABOUT_BUDGETS, describe_budgets),
    ("What should judge an architecture while searching?", ABOUT_SIGNALS, describe_signals),
    ("Which search? Simulated ones", ABOUT_DRAWN, describe_drawn_searches),
    ("Which search? Those that ran", ABOUT_SEARCHES, describe_searches),
    ("What is IN worth, and where?", ABOUT_PLACES, describe_places),
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
