"""The section on searches that were run: what the page of studies says of those beside a table."""

import math
from collections.abc import Sequence
from pathlib import Path

from search.compare import Mean
from search.confirm import PLAIN
from search.format_values import (
    MEASURES,
    format_domains,
    format_ends,
    format_expected,
    format_interval,
    format_markdown,
    format_mean,
    format_measures,
)
from search.judge import Judge, Judgement
from search.orders import Interval
from search.picture import Picture
from search.section import Section, mark
from search.studies import count_passes
from search.study_drawn import study_random
from search.study_searches import PAPER, Answers, SearchStudy, judge_fewest_norms, list_searches, study_searches
from search.table import UNSEEN, Table

CHILD_IMAGES = 2.8  # that cost as much as one of the paper's super-network, see docs/search.md
AIM_TAU, AIM_SHARE, AIM_ANSWER = 0.7, 0.9, 0.95
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
TOGETHER_HEADER = (
    "all seeds together",
    "seeds",
    "images passed",
    "tau",
    "above their mean",
    "its first",
    "better than, predicted",
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
    parts = [
        _describe_orders(searches, fewest),
        _describe_answers(table, judge, searches, fewest),
        _describe_together(searches),
        f"{_say_what_is_sure(searches)}\n",
        f"{_say_what_is_decided(searches)}\n",
        f"{_say_how_the_aim_is_met(judge, searches, fewest)}\n",
    ]
    return Section("\n".join(parts), _picture(table, searches, fewest))


def _describe_orders(searches: Sequence[SearchStudy], fewest: Judgement) -> str:
    rows = [(name, "–", "–", m["tau"], "–", "–", m["top_tau"], "–") for name, m in _list_references(fewest).items()]
    for s in searches:
        rows.append((
            f"`{s.method}`", str(s.tau.num), f"{s.answers.image_passes:,.0f}",
            format_mean(s.tau, ".2f") + format_ends(s.tau_over_networks, ".2f"),
            format_interval(s.above_fewest, "+.2f"), _format_gap(s), format_mean(s.top_tau, ".2f"),
            format_domains(s.by_domain),
        ))  # fmt: skip
    return format_markdown(ORDERS_HEADER, rows)


def _describe_answers(table: Table, judge: Judge, searches: Sequence[SearchStudy], fewest: Judgement) -> str:
    mean, most = judge.predicted_shares
    predicted = {
        "a random order": f"{mean:.0%}",
        "fewest norms first": format_interval(judge.predict_share(PLAIN), ".0%"),
        "the true order": f"{most:.0%}",
    }
    rows: list[tuple[str, ...]] = [
        (name, "–", m["regret"], m["regret_of_ten"], predicted[name], m["percentile"])
        for name, m in _list_references(fewest).items()
    ]
    if paper := next((s for s in searches if s.method == PAPER), None):
        rows.append(_describe_random_at_equal_cost(table, judge, paper.answers.image_passes))
    for s in searches:
        shown = [(f"`{s.method}`", s.answers)]
        if s.first_round:
            shown.append((f"`{s.method}`, first round alone", s.first_round))
        rows += [
            (name, f"{answers.image_passes:,.0f}", format_mean(s.regret, ".1%"), format_mean(s.regret_of_ten, ".1%"),
             format_interval(answers.predicted, ".0%"), _format_trained(answers, s.tau.num))
            for name, answers in shown
        ]  # fmt: skip
    return format_markdown(ANSWERS_HEADER, rows)


def _describe_together(searches: Sequence[SearchStudy]) -> str:
    rows = [
        (f"`{s.method}`", str(s.tau.num), f"{s.together.image_passes:,}", format_interval(s.together.tau, ".2f"),
         format_interval(s.together.above_one, "+.2f"), s.together.answer, format_interval(s.together.predicted, ".0%"))
        for s in searches if s.together
    ]  # fmt: skip
    return format_markdown(TOGETHER_HEADER, rows) if rows else ""


def _format_trained(answers: Answers, num: int) -> str:
    return f"{answers.trained:.0%} ({answers.num_trained} of {num})" if answers.num_trained else "–"


def _list_references(fewest: Judgement) -> dict[str, dict[str, str]]:
    """Writes the measures of what stands beside searches."""
    found = {
        "a random order": format_expected(fewest.random),
        "fewest norms first": format_measures(fewest.search, fewest.tau),
    }
    if fewest.perfect:
        found["the true order"] = format_expected(fewest.perfect)
    return {name: dict(zip(MEASURES, measures, strict=True)) for name, measures in found.items()}


def _format_gap(search: SearchStudy) -> str:
    """Writes how far a search's tau is above the paper's: over the seeds, and over architectures."""
    if search.above_paper is None:
        return "–"
    over_seeds = search.above_paper_over_seeds
    if over_seeds is None or math.isnan(search.above_paper.value):
        return format_interval(search.above_paper, "+.2f")
    return format_mean(over_seeds, "+.2f") + format_ends(search.above_paper, "+.2f")


def _describe_random_at_equal_cost(table: Table, judge: Judge, image_passes: float) -> tuple[str, ...]:
    """Shows the best of as many random networks, trained for the smallest budget, as cost what the paper's search does.

    Args:
        table: Of the networks.
        judge: By its rows.
        image_passes: Of the paper's search.
    """
    budget = table.budgets[0]
    num = max(1, round(CHILD_IMAGES * image_passes / count_passes(table.at(budget))))
    study = study_random(table, num, budget)
    predicted = math.fsum(chance * judge.predict_share(digits).value for digits, chance in study.answers.items())
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
    gaps: dict[str, dict[str, tuple[Interval, Mean | None]]] = {
        "the order by the fewest norms": {s.method: (s.above_fewest, s.above_fewest_over_seeds) for s in searches},
        f"`{PAPER}`": {s.method: (s.above_paper, s.above_paper_over_seeds) for s in searches if s.above_paper},
    }
    parts = []
    for name, found in gaps.items():
        for where, sign in (("Above", 1), ("Below", -1)):
            sure = ", ".join(f"`{method}`" for method, (over, seeds) in found.items() if _is_sure(over, seeds, sign))
            parts.append(f"{where} {name}: {sure or 'none'}.")
    return f"At 95 % over architectures and also over seeds, each comparison by itself. {' '.join(parts)}"


def _is_sure(over_networks: Interval, over_seeds: Mean | None, sign: int) -> bool:
    """Whether a difference has a sign, both over architectures and over seeds."""
    if over_seeds is None or math.isnan(over_seeds.half_width):
        return False
    ends = (over_networks.low, over_networks.high, over_seeds.mean - over_seeds.half_width,
            over_seeds.mean + over_seeds.half_width)  # fmt: skip
    return all(sign * end > 0 for end in ends)


def _say_what_is_decided(searches: Sequence[SearchStudy]) -> str:
    """Says what searches call decided, and whether the table's fit does too."""
    parts = [
        f"`{s.method}` {kind} {' / '.join(map(str, verdicts))}"
        for s in searches
        for kind, verdicts in (("places", s.places), ("blocks", s.blocks))
        if any(verdicts)
    ]
    agreeing = [f"`{s.method}` {same} of {pairs}" for s in searches for same, pairs in [s.agreeing] if pairs]
    text = f"Called decided, over all seeds, right / wrong / open: {'; '.join(parts) or 'nothing'}."
    if agreeing:
        text += f" Pairs of seeds that call the same block decided, and name the same candidate: {'; '.join(agreeing)}."
    return text


def _say_how_the_aim_is_met(judge: Judge, searches: Sequence[SearchStudy], fewest: Judgement) -> str:
    """Says which methods' means reach the aim."""
    ceiling = fewest.perfect.mean.tau if fewest.perfect else 0.0
    least = min(AIM_TAU, AIM_SHARE * ceiling) if ceiling > 0 else AIM_TAU
    good = [f"`{s.method}`" + (f" ({s.tau.mean / ceiling:.0%} of the true order's)" if ceiling > 0 else "")
            for s in searches if s.tau.mean >= least]  # fmt: skip
    answers = [f"`{s.method}`" for s in searches if s.answers.predicted.value >= AIM_ANSWER]
    most = judge.predicted_shares[1]
    text = (
        f"The aim, for means over seeds: tau of at least {AIM_TAU} or {AIM_SHARE:.0%} of the true order's, and answers "
        f"better than {AIM_ANSWER:.0%} of the networks. Tau: reached by {', '.join(good) or 'none'}. Answers, as "
        f"predicted: reached by {', '.join(answers) or 'none'}"
    )
    if most < AIM_ANSWER:
        return f"{text}; the best of all predictions is above {most:.0%}, so that none can be seen to reach it."
    return f"{text}."


def _picture(table: Table, searches: Sequence[SearchStudy], fewest: Judgement) -> Picture:
    found = {"fewest norms": fewest.tau} | {s.method.replace("_", " "): s.tau_over_networks for s in searches}
    if fewest.perfect:
        found["true order, by its noise"] = Interval(*(measures.tau for measures in fewest.perfect))
    label = "tau with the order by the unseen domains"
    return Picture(f"searches beside {table.name}", {label: [mark(i) for i in found.values()]}, list(found), label)
