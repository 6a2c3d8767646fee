"""What tables of really trained networks say: how early the order settles, what foretells it, what IN is worth where.

Scores are those of architectures, the parts of fold and seed taken out; an order of architectures agrees with another
by Kendall's tau-b, with the 95 % interval of a bootstrap over architectures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.orders import Interval, compare_orders, compare_seeds, estimate_tau, estimate_tau_difference
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
        loss: The same of the training loss, the lowest first.
        seeds: Order by the unseen domains of one seed at this budget, with that of another at the largest; None: too
            few repeats.
    """

    budget: int
    image_passes: int
    unseen: Interval
    held_out: Interval
    loss: Interval
    seeds: Interval | None


def study_budgets(table: Table) -> list[BudgetStudy]:
    """Studies when the order of architectures settles.

    Raises:
        UserError: too few trainings to take folds and seeds out.
    """
    last = table.adjust(UNSEEN)
    final = _take_means(last)
    found = []
    for budget in table.budgets:
        rows = table.at(budget)
        unseen = table.adjust(UNSEEN, budget)
        losses = [Observation(row.digits, row.fold, row.seed, -row.loss) for row in rows]
        found.append(
            BudgetStudy(
                budget,
                count_passes(rows),
                unseen=_compare(_take_means(unseen), final),
                held_out=_compare(average(table.observe(HELD_OUT, budget)), final),
                loss=_compare(average(losses), final),
                seeds=_compare_seeds(unseen, last),
            )
        )
    return found


@dataclass(frozen=True)
class SignalStudy:
    """How well a score foretells the order by the unseen domains.

    Attributes:
        tau: Kendall's tau-b of the two.
        difference: By how much that is above the tau-b of ``HELD_OUT``, over the same architectures drawn; None for an
            unseen domain, which is compared with the mean of the others.
        seeds: Tau-b of one training's score with the unseen domains of another's; None: too few repeats.
    """

    tau: Interval
    difference: Interval | None
    seeds: Interval | None


def study_signals(table: Table) -> dict[str, SignalStudy]:
    """Studies which scores foretell the order by the unseen domains, all at the largest budget, by name.

    Raises:
        UserError: as ``study_budgets``.
    """
    unseen = table.groups[UNSEEN]
    seen = [name for name in table.metrics if name.endswith("/mAP") and name not in {*unseen, *table.groups}]
    last, scores = table.adjust(UNSEEN), {name: table.adjust(name) for name in seen}
    final = _take_means(last)
    orders = {name: _compare_orders(_take_means(scores[name]), final) for name in seen}
    found = {
        name: SignalStudy(
            estimate_tau([order]),
            estimate_tau_difference([order], [orders[HELD_OUT]]),
            _compare_seeds(scores[name], last),
        )
        for name, order in orders.items()
    }
    for name in unseen if len(unseen) > 1 else ():
        others = [other for other in unseen if other != name]
        rest = [
            Observation(row.digits, row.fold, row.seed, float(np.mean([table.score(row, other) for other in others])))
            for row in table.at()
        ]
        found[name] = SignalStudy(_compare(average(table.observe(name)), average(rest)), None, None)
    return found


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


def _compare_seeds(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> Interval | None:
    """Compares one score of each training with another score of the same architecture's other trainings."""
    repeated = [d for d in other if len(one.get(d, ())) == len(other[d]) > 1]
    return compare_seeds([one[d] for d in repeated], [other[d] for d in repeated])


def _compare(one: Mapping[str, float], other: Mapping[str, float]) -> Interval:
    return estimate_tau([_compare_orders(one, other)])


def _compare_orders(one: Mapping[str, float], other: Mapping[str, float]) -> np.ndarray:
    shared = sorted(one.keys() & other.keys())
    return compare_orders(np.array([one[d] for d in shared]), np.array([other[d] for d in shared]))
