"""What a table says of searches: those that ran, and those that its own rows can stand in for.

A search that ran is a folder METHOD-seedN with its genotype.json and ranking.npz. A search that trains each child alone
needs no run: the table has such trainings. The best of a few random networks by held-out images is an exact expectation
over its rows; a fit, as a designed experiment makes it, is made again and again of other rows, and judged by the rest.
Where a table is small, each network is predicted by a fit of the others. Networks that were picked by hand (published
ones, one candidate throughout) are neither drawn nor fitted; of them only OSNet with an IN stem and OSNet-AIN return,
when a fit is confirmed.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from genotype import NUM_BLOCKS, NUM_CANDIDATES, NUM_INS, Genotype
from search.answer import list_digits
from search.compare import Interval as Mean
from search.compare import estimate
from search.confirm import AIN, CONFIRM_SEEDS, PLAIN
from search.effects import predict, predict_left_out
from search.judge import (
    LEVEL,
    MIN_ARCHITECTURES,
    Interval,
    Judge,
    Judgement,
    check_unseen,
    compare_orders,
    compute_percentiles,
    estimate_difference,
    estimate_tau,
    measure,
)
from search.places import PLACE_NAMES, Place
from search.studies import HELD_OUT, average, count_passes
from search.submission import read_submission
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
class SearchStudy:
    """Searches by one method, each with a seed of its own; means with 95 % intervals.

    Attributes:
        method: Its name.
        taus: Of each search, Kendall's tau-b with the order by the unseen domains.
        tau: Their mean.
        tau_over_networks: That of all searches together, with the bootstrap's interval over architectures.
        top_tau: The same within the best tenth of the architectures.
        regret: By how much the network that it ranks first among the trained ones is below the best of them.
        regret_of_ten: By how much the best of its first ten is.
        percentile: Share of the trained architectures that its answer, trained or predicted, is better than.
        image_passes: Images that passed forward and backward.
        num_right: Places that it calls decided and the table does too, with the same sign, over all searches.
        num_wrong: With the other sign.
        alone: What the table says of the only search; None: there are several.
    """

    method: str
    taus: Sequence[float]
    tau: Mean
    tau_over_networks: Interval
    top_tau: Mean
    regret: Mean
    regret_of_ten: Mean
    percentile: Mean
    image_passes: float
    num_right: int
    num_wrong: int
    alone: Judgement | None


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
        most_frequent: The most frequent answer, in digits, and its share of the searches.
    """

    num_networks: int
    num_trainings: int
    budget: int
    image_passes: int
    tau: Interval | None
    regret: Interval
    percentile: Interval
    most_frequent: tuple[str, float]


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


def list_searches(folder: Path) -> dict[str, list[Path]]:
    """Lists the folders METHOD-seedN below a folder by method; none where that does not exist.

    Raises:
        UserError: a folder has another name.
    """
    if not folder.is_dir():
        return {}
    methods: dict[str, list[Path]] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_dir()):
        match = re.fullmatch(r"(.+)-seed\d+", path.name)
        if match is None:
            raise UserError(f"{path}: expected is a folder METHOD-seedN with a search's genotype.json and ranking.npz")
        methods.setdefault(match[1], []).append(path)
    return methods


def study_searches(table: Table, judge: Judge, methods: Mapping[str, Sequence[Path]]) -> list[SearchStudy]:
    """Judges searches, method by method.

    Args:
        table: At whose setting they ran.
        judge: By its largest budget and unseen domains.
        methods: Folders of searches, as ``list_searches``.

    Raises:
        UserError: what is in a folder is no search at the table's setting.
    """
    return [_study_method(table, judge, method, paths) for method, paths in methods.items()]


def _study_method(table: Table, judge: Judge, method: str, paths: Sequence[Path]) -> SearchStudy:
    truth = judge.fit.places
    judgements, rankings, percentiles, passes, signs = [], [], [], [], list[bool]()
    for path in paths:
        submission = read_submission(path)
        if submission.scores is None:
            raise UserError(f"{path} has no ranking.npz")
        check_unseen(table, submission)
        found = Genotype.from_json(path / "genotype.json").found
        length = table.at()[0].of_epochs
        if found.get("method") != "design" and found.get("epochs", length) != length:  # a design's trainings are short
            raise UserError(f"{path} searched for {found['epochs']} epochs, table {table.name} trained for {length}")
        judgement = judge.judge(submission.scores, submission.digits)
        judgements.append(judgement)
        rankings.append(submission.scores)
        percentiles.append(judgement.answer.percentile.value if judgement.answer else float("nan"))
        try:
            passes.append(float(found["costs"]["image_passes"]))
            signs += _compare_places(found["places"], truth)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: genotype.json lacks what the search cost or found at each place") from error
    columns = {
        name: estimate([getattr(j.search, name) for j in judgements])
        for name in ("tau", "top_tau", "regret", "regret_of_ten")
    }
    return SearchStudy(
        method,
        [j.search.tau for j in judgements],
        **columns,
        tau_over_networks=judge.estimate_mean_tau(rankings),
        percentile=estimate(percentiles),
        image_passes=float(np.mean(passes)),
        num_right=sum(signs),
        num_wrong=len(signs) - sum(signs),
        alone=judgements[0] if len(judgements) == 1 else None,
    )


def judge_fewest_norms(judge: Judge) -> Judgement:
    """Judges the simplest order of all: the fewer instance norms, the better, as trials before the table had it."""
    num_norms = [sum(NUM_INS[int(k)] for k in digits) for digits in list_digits()]
    return judge.judge(-np.array(num_norms, dtype=float), "0" * NUM_BLOCKS)


def _compare_places(found: Iterable[Mapping[str, Any]], truth: Sequence[Place]) -> Iterator[bool]:
    """Yields for each place that both call decided whether they agree."""
    values = {place["place"]: place["value"] for place in found if place["decided"]}
    for name, place in zip(PLACE_NAMES, truth, strict=True):
        if place.is_decided and name in values:
            yield (values[name] > 0) == (place.value > 0)


def study_random(table: Table, num_trainings: int, budget: int) -> DrawnStudy:
    """Studies the best of some random networks by held-out images: exact expectations over all draws with replacement.

    So the table's networks stand for all that could be drawn. The trainings that are chosen by are those that judge:
    chance that favours both is not taken out.

    Raises:
        UserError: too few trainings.
    """
    held_out, truth = average(table.observe(HELD_OUT, budget)), average(table.observe(UNSEEN))
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
    digits = sorted(held_out.keys() & truth.keys() - HAND_PICKED)
    fits = list(_draw_fits(table, budget, digits)) if len(digits) >= MIN_NETWORKS else []
    if len(fits) < NUM_DRAWS / 2:  # the others would be no fair sample
        return None
    known = [d for d in (PLAIN, AIN) if d in held_out.keys() & truth.keys()]
    taus, alone, confirmed, beside = [], [], [], []
    for chosen, rest, predicted in fits:
        taus.append(measure(predicted, np.array([truth[d] for d in rest])).tau)
        first, *others = (rest[i] for i in np.argsort(-predicted, kind="stable"))
        best_seen = max(chosen, key=lambda d: held_out[d])
        alone.append(first)
        confirmed.append(max([first, best_seen, *others][:NUM_CONFIRMED], key=lambda d: held_out[d]))
        beside.append(max([first, best_seen, *known, *others][:NUM_CONFIRMED], key=lambda d: held_out[d]))
    fit = _judge_drawn(table, truth, len(digits), NUM_RUNS, budget, alone)
    return (
        replace(fit, tau=_summarize(np.array(taus))),
        _judge_drawn(table, truth, len(digits), NUM_CONFIRMED_ALL, budget, confirmed),
        _judge_drawn(table, truth, len(digits), NUM_CONFIRMED_ALL, budget, beside),
    )


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
        LeftOutStudy(budget, estimate_tau([order]), estimate_difference(order, orders[-1]))
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
        most_frequent=shares.most_common(1)[0],
    )


def _summarize(values: np.ndarray, chances: np.ndarray | None = None) -> Interval:
    """Returns the mean of values, (n,), and the ends between which 95 % lie; ``chances``: of each, default equal."""
    chances = np.full(len(values), 1 / len(values)) if chances is None else chances
    order = np.argsort(values)
    rising, below = values[order], np.cumsum(chances[order])
    low, high = rising[np.searchsorted(below, [LEVEL / 2, 1 - LEVEL / 2]).clip(max=len(rising) - 1)]
    return Interval(math.fsum(values * chances), float(low), float(high))  # rounded alike on every processor
