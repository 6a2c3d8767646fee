"""What a table says of searches that its own rows can stand in for.

A search that trains each child alone needs no run: the table has such trainings. The best of a few random networks by
held-out images is an exact expectation over its rows; a fit, as a designed experiment makes it, is made again and again
of other rows, and judged by the rest. Where a table is small, each network is predicted by a fit of the others.
Networks picked by hand (published ones, one candidate throughout) are neither drawn nor fitted; of them only OSNet with
an IN stem and OSNet-AIN return, when a fit is confirmed.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genotype import NUM_BLOCKS, NUM_CANDIDATES, Genotype
from search.confirm import AIN, CONFIRM_SEEDS, PLAIN
from search.effects import predict, predict_left_out
from search.judge import MIN_ARCHITECTURES
from search.measures import compute_percentiles, measure
from search.orders import LEVEL, Interval, compare_orders, estimate_tau, estimate_tau_difference
from search.studies import HELD_OUT, average, count_passes
from search.table import UNSEEN, Table
from utils.errors import UserError

NUM_RUNS = 32  # trainings that a fit is made of
NUM_CONFIRMED = 6  # architectures of the second round, as in design.yaml
NUM_CONFIRMED_ALL = NUM_RUNS + NUM_CONFIRMED * CONFIRM_SEEDS  # trainings of a confirmed search
NUM_DRAWS = 200  # fits
MIN_NETWORKS = NUM_RUNS + MIN_ARCHITECTURES  # to fit and to judge by
HAND_PICKED = {
    *(Genotype.named(name).digits for name in ("osnet", "osnet_ibn", "osnet_ain")),
    *(str(candidate) * NUM_BLOCKS for candidate in range(NUM_CANDIDATES)),
}


@dataclass(frozen=True)
class DrawnStudy:
    """Searches of one kind whose trainings are drawn from a table; means, and where 95 % of the searches lie.

    Attributes:
        num_networks: From which the trainings are drawn.
        num_trainings: Of one search.
        budget: In epochs.
        image_passes: Of one search.
        tau: Kendall's tau-b with the order of the architectures that it has not trained; None: it orders none.
        regret: By how much its answer is below the best of the table.
        percentile: Share of the table's other architectures that its answer is better than.
        answers: The answers, in digits, and the share of the searches that each has.
    """

    num_networks: int
    num_trainings: int
    budget: int
    image_passes: int
    tau: Interval | None
    regret: Interval
    percentile: Interval
    answers: Mapping[str, float]

    @property
    def most_frequent(self) -> tuple[str, float]:
        """The most frequent answer and its share."""
        return max(self.answers.items(), key=lambda item: item[1])


@dataclass(frozen=True)
class LeftOutStudy:
    """How fits at a budget predict networks that are left out, with the bootstrap's intervals.

    Attributes:
        budget: In epochs.
        tau: Kendall's tau-b of the predictions with the order by the unseen domains at the largest budget.
        difference: That minus the tau-b of fits at the largest budget, over the same networks drawn.
    """

    budget: int
    tau: Interval
    difference: Interval


def study_random(table: Table, num_trainings: int, budget: int) -> DrawnStudy:
    """Studies the best of some random networks by held-out images: exact expectations over all draws with replacement.

    So the table's networks stand for all that could be drawn. The trainings that are chosen by are those that judge:
    chance that favours both is not taken out.

    Raises:
        UserError: too few trainings.
    """
    held_out, truth = _take_first(table, budget), average(table.observe(UNSEEN))
    digits = sorted(held_out.keys() & truth.keys() - HAND_PICKED, key=lambda d: (held_out[d], d))
    chances = np.diff((np.arange(len(digits) + 1) / len(digits)) ** num_trainings)  # of each to be the best drawn
    return _judge_drawn(table, truth, len(digits), num_trainings, budget, digits, chances)


def study_designs(table: Table, budget: int) -> tuple[DrawnStudy, DrawnStudy, DrawnStudy] | None:
    """Studies fits of ``NUM_RUNS`` random networks by held-out images: alone, confirmed, confirmed beside known ones.

    Each fit is judged by the architectures that it has not seen; its answer is the one of them that it ranks first.
    Confirmed, the answer is the best by held-out images of those that a search would train anew (``search.confirm``),
    as far as the table has them: the fit's first, the best seen, the known ones (plain, published) or not, the fit's
    next. The table's trainings stand in for the new ones; that of the best seen is the one that it was chosen by.

    Returns:
        All three, or None where fewer than ``MIN_NETWORKS`` were trained or most draws cannot be fitted, as with many
        folds.
    """
    held_out, truth = average(table.observe(HELD_OUT, budget)), average(table.observe(UNSEEN))
    first_seen = _take_first(table, budget)
    digits = sorted(held_out.keys() & truth.keys() - HAND_PICKED)
    fits = list(_draw_fits(table, budget, digits)) if len(digits) >= MIN_NETWORKS else []
    if len(fits) < NUM_DRAWS / 2:  # the others would be no fair sample
        return None
    known = [d for d in (PLAIN, AIN) if d in held_out.keys() & truth.keys()]
    taus, alone, confirmed, beside = [], [], [], []
    for chosen, rest, predicted in fits:
        taus.append(measure(predicted, np.array([truth[d] for d in rest])).tau)
        first, *others = (rest[i] for i in np.argsort(-predicted, kind="stable"))
        best_seen = max(chosen, key=lambda d: first_seen[d])
        alone.append(first)
        confirmed.append(max([first, best_seen, *others][:NUM_CONFIRMED], key=lambda d: held_out[d]))
        beside.append(max([first, best_seen, *known, *others][:NUM_CONFIRMED], key=lambda d: held_out[d]))
    fit = _judge_drawn(table, truth, len(digits), NUM_RUNS, budget, alone)
    return (
        replace(fit, tau=_summarize(np.array(taus))),
        _judge_drawn(table, truth, len(digits), NUM_CONFIRMED_ALL, budget, confirmed),
        _judge_drawn(table, truth, len(digits), NUM_CONFIRMED_ALL, budget, beside),
    )


def _take_first(table: Table, budget: int) -> dict[str, float]:
    """Returns of each architecture the first training's score on held-out images, the parts of fold and seed out."""
    return {digits: float(scores[0]) for digits, scores in table.adjust(HELD_OUT, budget).items()}


def _draw_fits(table: Table, budget: int, digits: Sequence[str]) -> Iterator[tuple[list[str], list[str], np.ndarray]]:
    """Yields of each fit the networks that it was made of, the rest, and its predictions of those, (rest,)."""
    rows = {o.digits: o for o in reversed(table.observe(HELD_OUT, budget))}  # of several trainings the first
    generator = np.random.default_rng(0)
    for _ in range(NUM_DRAWS):
        chosen = sorted(generator.choice(digits, NUM_RUNS, replace=False).tolist())
        rest = [d for d in digits if d not in chosen]
        try:
            predicted = predict([rows[d] for d in chosen], np.array([[int(k) for k in d] for d in rest]))
        except UserError:
            continue  # a candidate that none of them has: an orthogonal array would have it
        yield chosen, rest, predicted


def study_left_out(table: Table) -> list[LeftOutStudy]:
    """Studies how fits by held-out images order random networks, each of which is left out of its own fit.

    It therefore needs fewer networks than ``study_designs``.

    Returns:
        One for each budget; none: too few networks.
    """
    truth = average(table.observe(UNSEEN))
    predicted = []
    for budget in table.budgets:
        rows = [o for o in table.observe(HELD_OUT, budget) if o.digits not in HAND_PICKED]
        try:
            predicted.append({digits: value for digits, (_, value) in predict_left_out(rows).items()})
        except UserError:
            return []
    shared = sorted(truth.keys() & set.intersection(*(set(p) for p in predicted)))
    scores = np.array([truth[d] for d in shared])
    orders = [compare_orders(np.array([p[d] for d in shared]), scores) for p in predicted]
    return [
        LeftOutStudy(budget, estimate_tau([order]), estimate_tau_difference([order], [orders[-1]]))
        for budget, order in zip(table.budgets, orders, strict=True)
    ]


def _judge_drawn(
    table: Table,
    truth: Mapping[str, float],
    num_networks: int,
    num_trainings: int,
    budget: int,
    answers: Sequence[str],
    chances: np.ndarray | None = None,
) -> DrawnStudy:
    """Judges answers of drawn searches by the truth; ``chances``: of each, default equal."""
    scores = np.array(list(truth.values()))
    regrets = dict(zip(truth, scores.max() - scores, strict=True))
    percentiles = dict(zip(truth, compute_percentiles(scores), strict=True))
    chances = np.full(len(answers), 1 / len(answers)) if chances is None else chances
    shares = Counter[str]()
    for digits, chance in zip(answers, chances.tolist(), strict=True):
        shares[digits] += chance
    return DrawnStudy(
        num_networks,
        num_trainings,
        budget,
        num_trainings * count_passes(table.at(budget)),
        tau=None,
        regret=_summarize(np.array([regrets[d] for d in answers]), chances),
        percentile=_summarize(np.array([percentiles[d] for d in answers]), chances),
        answers=shares,
    )


def _summarize(values: np.ndarray, chances: np.ndarray | None = None) -> Interval:
    """Returns the mean of values, (n,), and the ends between which 95 % lie; ``chances``: of each, default equal."""
    chances = np.full(len(values), 1 / len(values)) if chances is None else chances
    order = np.argsort(values)
    rising, below = values[order], np.cumsum(chances[order])
    low, high = rising[np.searchsorted(below, [LEVEL / 2, 1 - LEVEL / 2]).clip(max=len(rising) - 1)]
    return Interval(math.fsum(values * chances), float(low), float(high))  # rounded alike on every processor
