"""The section on searches that were run: what the page of studies says of those beside a table."""

import math
from collections.abc import Sequence
from pathlib import Path

from search.confirm import PLAIN
from search.format_studies import (
    MEASURES,
    format_domains,
    format_ends,
    format_expected,
    format_interval,
    format_markdown,
    format_mean,
)
from search.judge import Expected, Judge, Judgement
from search.orders import Interval
from search.section import Picture, Section, mark
from search.studies import count_passes
from search.study_drawn import list_random_answers, study_random
from search.study_searches import FIRST_ROUND, PAPER, SearchStudy, judge_fewest_norms, list_searches, study_searches
from search.table import UNSEEN, Table

CHILD_IMAGES = 2.8  # that cost as much as one of the paper's super-network, see docs/search.md
AIM_TAU, AIM_SHARE, AIM_ANSWER = 0.7, 0.9, 0.95  # set before any search was judged
ORDERS_HEADER = (
    "order",
    "seeds",
    "images passed",
    "tau",
    "above the fewest norms",
    f"above `{PAPER}`",
    "tau within the best tenth",
    "tau by single unseen domains",
)
ANSWERS_HEADER = (
    "order",
    "images passed",
    "its first: behind the best",
    "best of its first ten: behind the best",
    "its answers: better than, all predicted",
    "its trained answers: better than",
)


def describe_searches(table: Table, folder: Path) -> Section:
    """Shows searches that ran at a table's setting: their orders, then their answers.

    Args:
        table: That judges them.
        folder: Of the searches' folders.

    Raises:
        UserError: as ``study_searches``.
    """
    methods = list_searches(folder)
    if not methods:
        return Section("")
    judge = Judge(table, table.at(), UNSEEN)
    searches, fewest = study_searches(table, judge, methods), judge_fewest_norms(judge)
    orders = [s for s in searches if not s.method.endswith(FIRST_ROUND)]  # which has the same order
    parts = [
        _describe_orders(orders, fewest),
        _describe_answers(table, judge, searches, fewest),
        f"{_say_what_is_sure(orders)}\n",
        f"{_say_what_is_decided(orders)}\n",
        f"{_say_how_the_aim_is_met(judge, orders, fewest)}\n",
    ]
    return Section("\n".join(parts), _picture(table, orders, fewest))


def _name(search: SearchStudy) -> str:
    rest = FIRST_ROUND if search.method.endswith(FIRST_ROUND) else ""
    return f"`{search.method.removesuffix(FIRST_ROUND)}`{rest}"


def _describe_orders(searches: Sequence[SearchStudy], fewest: Judgement) -> str:
    rows = [(name, "–", "–", m["tau"], "–", "–", m["top_tau"], "–") for name, m in _list_references(fewest).items()]
    for s in searches:
        rows.append((
            _name(s), str(s.tau.num), f"{s.image_passes:,.0f}",
            format_mean(s.tau, ".2f") + format_ends(s.tau_over_networks, ".2f"),
            format_interval(s.above_fewest, "+.2f"), _format_gap(s), format_mean(s.top_tau, ".2f"),
            format_domains(s.by_domain),
        ))  # fmt: skip
    return format_markdown(ORDERS_HEADER, rows)


def _describe_answers(table: Table, judge: Judge, searches: Sequence[SearchStudy], fewest: Judgement) -> str:
    predicted = {"fewest norms first": format_interval(judge.predict_share(PLAIN), ".0%")}
    rows: list[tuple[str, ...]] = [
        (name, "–", m["regret"], m["regret_of_ten"], predicted.get(name, "–"), m["percentile"])
        for name, m in _list_references(fewest).items()
    ]
    if paper := next((s for s in searches if s.method == PAPER), None):
        rows.append(_describe_random_at_equal_cost(table, judge, paper.image_passes))
    for s in searches:
        trained = f"{s.trained:.0%} ({s.num_trained} of {s.tau.num})" if s.num_trained else "–"
        rows.append((
            _name(s), f"{s.image_passes:,.0f}", format_mean(s.regret, ".1%"), format_mean(s.regret_of_ten, ".1%"),
            format_interval(s.predicted, ".0%"), trained,
        ))  # fmt: skip
    return format_markdown(ANSWERS_HEADER, rows)


def _list_references(fewest: Judgement) -> dict[str, dict[str, str]]:
    """Writes the measures of what stands beside searches."""
    found = {"a random order": _list_measures(fewest.random), "fewest norms first": _list_single(fewest)}
    return found | ({"the true order": _list_measures(fewest.perfect)} if fewest.perfect else {})


def _list_measures(expected: Expected) -> dict[str, str]:
    """Writes the mean and the range of each measure."""
    return dict(zip(MEASURES, format_expected(expected), strict=True))


def _list_single(judgement: Judgement) -> dict[str, str]:
    """Writes the measures of a single order, of which tau alone has an interval."""
    found = {name: Interval(getattr(judgement.search, name), math.nan, math.nan) for name in MEASURES}
    found["tau"] = judgement.tau
    return {name: format_interval(found[name], spec) for name, spec in MEASURES.items()}


def _format_gap(search: SearchStudy) -> str:
    """Writes how far a search's tau is above the paper's: over the seeds, and over architectures."""
    if search.above_paper is None:
        return "–"
    over_seeds = search.above_paper_over_seeds
    value = f"{search.above_paper.value:+.2f}" if over_seeds is None else format_mean(over_seeds, "+.2f")
    return value + format_ends(search.above_paper, "+.2f")


def _describe_random_at_equal_cost(table: Table, judge: Judge, image_passes: float) -> tuple[str, ...]:
    """Shows the best of as many random networks, trained for the smallest budget, as cost what the paper's search does.

    Args:
        table: Of the networks.
        judge: By its rows.
        image_passes: Of the paper's search.
    """
    budget = table.budgets[0]
    num = max(1, round(CHILD_IMAGES * image_passes / count_passes(table.at(budget))))
    study, answers = study_random(table, num, budget), list_random_answers(table, num, budget)
    predicted = math.fsum(chance * judge.predict_share(digits).value for digits, chance in answers.items())
    return (
        f"the best of {num} random networks, {budget} epochs",
        f"{study.image_passes:,}",
        format_interval(study.regret, ".1%"),
        "–",
        f"{predicted:.0%}",
        format_interval(study.percentile, ".0%"),
    )


def _say_what_is_sure(searches: Sequence[SearchStudy]) -> str:
    """Says which orders are surely above or below the two that all are compared with."""
    gaps = {
        "the fewest norms'": {_name(s): s.above_fewest for s in searches},
        f"`{PAPER}`'s": {_name(s): s.above_paper for s in searches if s.above_paper is not None},
    }
    found = []
    for name, of_searches in gaps.items():
        if of_searches:
            above = [search for search, gap in of_searches.items() if gap.low > 0]
            below = [search for search, gap in of_searches.items() if gap.high < 0]
            found.append(f"above {name}: {'; '.join(above) or 'none'}; below: {'; '.join(below) or 'none'}")
    return f"Orders that are, at 95 % over architectures and each by itself, {'. Those '.join(found)}."


def _say_what_is_decided(searches: Sequence[SearchStudy]) -> str:
    """Says what searches call decided, and whether the table's fit does too."""
    parts = [
        f"{_name(s)} {kind} {' / '.join(map(str, verdicts))}"
        for s in searches
        for kind, verdicts in (("places", s.places), ("blocks", s.blocks))
        if any(verdicts)
    ]
    return f"Called decided, over all seeds, right / wrong / open: {'; '.join(parts) or 'nothing'}."


def _say_how_the_aim_is_met(judge: Judge, searches: Sequence[SearchStudy], fewest: Judgement) -> str:
    """Says which methods' means reach the aim."""
    ceiling = fewest.perfect.mean.tau if fewest.perfect else math.nan
    good = [f"{_name(s)} ({s.tau.mean / ceiling:.0%} of it)" if fewest.perfect else _name(s) for s in searches
            if s.tau.mean >= AIM_TAU or s.tau.mean >= AIM_SHARE * ceiling]  # fmt: skip
    answers = [_name(s) for s in searches if s.predicted.value >= AIM_ANSWER]
    most = judge.highest_predicted_share
    text = (
        f"An aim was set before any search was judged, for the means over seeds: tau of at least {AIM_TAU} or "
        f"{AIM_SHARE:.0%} of the true order's, and answers better than {AIM_ANSWER:.0%} of the networks. Tau: reached "
        f"by {'; '.join(good) or 'none'}. Answers, by prediction: reached by {'; '.join(answers) or 'none'}. The best "
        f"of all predictions is above {most:.0%} of the scores"
    )
    return f"{text}, so no predicted answer can reach it." if most < AIM_ANSWER else f"{text}."


def _picture(table: Table, searches: Sequence[SearchStudy], fewest: Judgement) -> Picture:
    found = {"fewest norms": fewest.tau} | {s.method.replace("_", " "): s.tau_over_networks for s in searches}
    if fewest.perfect:
        found["true order"] = Interval(*(measures.tau for measures in fewest.perfect))
    label = "tau with the order by the unseen domains"
    return Picture(f"searches beside {table.name}", {label: [mark(i) for i in found.values()]}, list(found), label)
