"""What tables of really trained networks say: how early the order settles, what foretells it, what IN is worth where.

Scores are those of architectures, the parts of fold and seed taken out; an order of architectures agrees with another
by Kendall's tau-b, with the 95 % interval of a bootstrap over architectures.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.orders import (
    Interval,
    compare_orders,
    estimate_tau,
    estimate_tau_difference,
    pair_seeds,
)
from search.table import UNSEEN, Row, Table
from search.trainings import Observation, list_by_architecture
from utils.errors import UserError

HELD_OUT = "heldout_new/mAP"


@dataclass(frozen=True)
class BudgetStudy:
    """How far the order at a budget is that of the largest one.

    Attributes:
        budget: In epochs.
        image_passes: Images that passed forward and backward.
        unseen: Order by the unseen domains at this budget, with that at the largest.
        held_out: Order by held-out people and cameras at this budget, with that by the unseen domains at the largest.
        difference: By how much that is above the same at the largest budget, over the same architectures drawn.
        loss: The same of the training loss, the lowest first.
        seeds: Order by the unseen domains of one seed at this budget, with that of another at the largest; None: too
            few repeats.
    """

    budget: int
    image_passes: int
    unseen: Interval
    held_out: Interval
    difference: Interval
    loss: Interval
    seeds: Interval | None


def study_budgets(table: Table) -> list[BudgetStudy]:
    """Studies when the order of architectures settles.

    Raises:
        UserError: too few trainings to take folds and seeds out.
    """
    last = table.adjust(UNSEEN)
    final = _take_means(last)
    means = {budget: average(table.observe(HELD_OUT, budget)) for budget in table.budgets}
    shared = final.keys() & set.intersection(*(set(scores) for scores in means.values()))
    held_out = {budget: _compare(scores, {d: final[d] for d in shared}) for budget, scores in means.items()}
    found = []
    for budget, order in held_out.items():
        rows = table.at(budget)
        unseen = table.adjust(UNSEEN, budget)
        losses = [Observation(row.digits, row.fold, row.seed, -row.loss) for row in rows]
        found.append(
            BudgetStudy(
                budget,
                count_passes(rows),
                unseen=estimate_tau([_compare(_take_means(unseen), final)]),
                held_out=estimate_tau([order]),
                difference=estimate_tau_difference([order], [held_out[table.budgets[-1]]]),
                loss=estimate_tau([_compare(average(losses), final)]),
                seeds=_compare_seeds([unseen], [last]),
            )
        )
    return found


@dataclass(frozen=True)
class SignalStudy:
    """How well a score foretells the order by the unseen domains.

    Attributes:
        tau: Kendall's tau-b of the two.
        difference: By how much that is above the tau-b of ``HELD_OUT``, over the same architectures drawn.
        seeds: Tau-b of one training's score with the unseen domains of another's; None: too few repeats.
    """

    tau: Interval
    difference: Interval
    seeds: Interval | None


@dataclass(frozen=True)
class SourceStudy:
    """How well one unseen domain foretells the order by the others, as a held-out source would.

    Attributes:
        mean: Each domain in turn, all together; ``difference`` is to ``HELD_OUT`` with the same others.
        single: Tau-b of each domain by its score's name.
    """

    mean: SignalStudy
    single: Mapping[str, float]


def study_signals(table: Table) -> dict[str, SignalStudy]:
    """Studies which scores foretell the order by the unseen domains, all at the largest budget, by name.

    Raises:
        UserError: as ``study_budgets``.
    """
    apart = {*table.groups[UNSEEN], *table.groups}
    seen = [name for name in table.metrics if name.endswith("/mAP") and name not in apart]
    last, scores = table.adjust(UNSEEN), {name: table.adjust(name) for name in seen}
    final = _take_means(last)
    orders = {name: _compare(_take_means(scores[name]), final) for name in seen}
    return {
        name: SignalStudy(
            estimate_tau([order]),
            estimate_tau_difference([order], [orders[HELD_OUT]]),
            _compare_seeds([scores[name]], [last]),
        )
        for name, order in orders.items()
    }


def study_sources(table: Table) -> SourceStudy | None:
    """Studies whether an unseen domain would foretell the others, were it a search's held-out source.

    Returns:
        None for a single unseen domain; one that gives all networks the same score does not count.

    Raises:
        UserError: as ``study_budgets``.
    """
    unseen = {}
    for name in table.groups[UNSEEN]:
        with contextlib.suppress(UserError):
            unseen[name] = table.adjust(name)
    if len(unseen) < 2:
        return None
    own, rest = list(unseen.values()), [_adjust_mean(table, unseen.keys() - {name}) for name in unseen]
    held_out = average(table.observe(HELD_OUT))
    orders = [_compare(_take_means(one), _take_means(others)) for one, others in zip(own, rest, strict=True)]
    references = [_compare(held_out, _take_means(others)) for others in rest]
    mean = SignalStudy(estimate_tau(orders), estimate_tau_difference(orders, references), _compare_seeds(own, rest))
    return SourceStudy(mean, {name: estimate_tau([order]).value for name, order in zip(unseen, orders, strict=True)})


def _adjust_mean(table: Table, names: Collection[str]) -> dict[str, np.ndarray]:
    """Lists the means of several scores of each architecture's trainings, fold and seed out, by its digits."""
    means = [float(np.mean([table.score(row, name) for name in sorted(names)])) for row in table.at()]
    rows = zip(table.at(), means, strict=True)
    return list_by_architecture([Observation(row.digits, row.fold, row.seed, value) for row, value in rows])


def can_be_studied(table: Table) -> bool:
    """Whether a table has enough trainings, held-out images, and unseen domains to judge by.

    Raises:
        UserError: a row lacks one of these domains.
    """
    if UNSEEN not in table.groups or HELD_OUT not in table.metrics:
        return False
    observations = table.observe(UNSEEN)
    try:
        average(observations)
    except UserError:
        return False
    return True


def list_named(
    table: Table, names: Mapping[str, str], metrics: Sequence[str]
) -> Iterator[tuple[str, str, list[float]]]:
    """Lists the named architectures that a table has: name, digits, and the mean of each metric, fold and seed out."""
    means = [average(table.observe(metric)) for metric in metrics]
    for name, digits in names.items():
        if digits in means[0]:
            yield name, digits, [scores[digits] for scores in means]


def count_passes(rows: Sequence[Row]) -> int:
    """Returns how many images passed in one training up to the rows' budget, on the mean."""
    return round(float(np.mean([row.image_passes for row in rows])))


def average(observations: Sequence[Observation]) -> dict[str, float]:
    """Returns each architecture's mean score, the parts of fold and seed taken out, by its digits.

    Raises:
        UserError: too few trainings to know these parts.
    """
    return _take_means(list_by_architecture(observations))


def _take_means(by_architecture: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {digits: float(np.mean(scores)) for digits, scores in by_architecture.items()}


def _compare_seeds(
    one: Sequence[Mapping[str, np.ndarray]], other: Sequence[Mapping[str, np.ndarray]]
) -> Interval | None:
    """Compares scores of each training with other scores of the same architecture's other trainings.

    Args:
        one: Of one or more scores, each architecture's trainings.
        other: The same of the scores that these are compared with, one by one.

    Returns:
        All together; None: too few repeats.
    """
    repeated = [d for d in other[0] if len(one[0].get(d, ())) == len(other[0][d]) > 1]
    pairs = [
        comparison
        for a, b in zip(one, other, strict=True)
        for comparison in pair_seeds([a[d] for d in repeated], [b[d] for d in repeated])
    ]
    return estimate_tau(pairs) if pairs else None


def _compare(one: Mapping[str, float], other: Mapping[str, float]) -> np.ndarray:
    shared = sorted(one.keys() & other.keys())
    return compare_orders(np.array([one[d] for d in shared]), np.array([other[d] for d in shared]))
