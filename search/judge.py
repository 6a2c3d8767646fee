"""How good a search is: its ranking of all 4,096 genotypes beside really trained networks.

A ranking is judged by the rows of a table at one budget, the parts of fold and seed taken out. Its measures stand
beside those of a random one, whose means are exact, and of a perfect one: noise of the trainings keeps even the true
order from agreeing with the rows, by as much as their repeats say.

Intervals are percentiles of a bootstrap over architectures; that of the noise is a chi-square one.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from math import comb
from typing import NamedTuple

import numpy as np
from scipy import stats

from genotype import number_of
from search.effects import EffectsFit, fit_effects
from search.orders import LEVEL, Interval, compare_orders, compare_seeds, estimate_tau, estimate_tau_difference
from search.submission import Submission
from search.table import UNSEEN, Row, Table
from search.trainings import Observation, Repeats, collect_trainings, group_scores
from utils.errors import UserError

NUM_SIMULATED = 500  # perfect rankings
NUM_RANDOM = 4000
FIRST = 10  # how many of a ranking's first are looked at
MIN_ARCHITECTURES = 21  # so that three are the best tenth
_NUM_NAMED = 10  # architectures in a message


@dataclass(frozen=True)
class Measures:
    """What a ranking is worth among the rows.

    Attributes:
        tau: Kendall's tau-b with the rows' scores.
        top_tau: The same within the tenth of the architectures that scored best; NaN where that is below three, or the
            ranking has them all equal.
        regret: By how much the row that it ranks first is below the best row.
        regret_of_ten: By how much the best of its first ten is.
        percentile: Share of the other rows that its first row is better than, ties counted by half.
    """

    tau: float
    top_tau: float
    regret: float
    regret_of_ten: float
    percentile: float


class Expected(NamedTuple):
    """Measures that are expected of an order, and the ends of their ranges, measure by measure."""

    mean: Measures
    low: Measures
    high: Measures


@dataclass(frozen=True)
class AnswerScore:
    """A search's answer, trained or not.

    Attributes:
        digits: The genotype.
        num_trainings: That the table has of it, whose noise is in its score; 0: it is predicted.
        score: Its score, fold and seed taken out.
        behind: By how much that is below the best of the table; negative: above.
        percentile: Share of the architectures of the table that it is better than, ties counted by half.
    """

    digits: str
    num_trainings: int
    score: Interval
    behind: float
    percentile: Interval


@dataclass(frozen=True)
class Judgement:
    """What a table says of a search.

    Attributes:
        num_architectures: That the table has at this budget.
        num_trainings: Rows.
        search: The search's measures.
        tau: Its tau-b with an interval.
        random: Of a random ranking, and where 95 % of such rankings lie.
        perfect: Of the true order, and what that becomes at the ends of the noise's 95 % interval, since few repeats
            tell the noise; the measures against one set of rows may lie outside. None without repeated trainings.
        num_repeated: Architectures that were trained by several seeds.
        tau_of_seeds: Kendall's tau-b between seeds, over those; None for fewer than ``MIN_REPEATED``.
        noise: Standard deviation between trainings of one architecture; NaN without repeats.
        answer: The search's answer; None: it gave none.
    """

    num_architectures: int
    num_trainings: int
    search: Measures
    tau: Interval
    random: Expected
    perfect: Expected | None
    num_repeated: int
    tau_of_seeds: Interval | None
    noise: float
    answer: AnswerScore | None


def check_unseen(table: Table, submission: Submission) -> None:
    """Refuses a search that was made on one of the domains that a table judges by.

    Raises:
        UserError: it was.
    """
    unseen = {name.partition("/")[0] for name in table.groups.get(UNSEEN, ())}
    if seen := sorted(unseen.intersection(submission.sources)):
        raise UserError(
            f"{submission.name} searched on {', '.join(seen)}, which table {table.name} judges by as never seen"
        )


class Judge:
    """Judges searches by a table's rows; what depends on the rows alone is computed once.

    Args:
        table: Whose metric it is.
        rows: Of one budget, such as ``table.at(20)``.
        metric: A score's name or a group's.

    Raises:
        UserError: rows of several budgets, or too few.
    """

    def __init__(self, table: Table, rows: Sequence[Row], metric: str) -> None:
        if len(budgets := sorted({row.epochs for row in rows})) > 1:
            raise UserError(f"rows of several budgets ({budgets} epochs) cannot be judged together; choose one")
        self._observations = [Observation(row.digits, row.fold, row.seed, table.score(row, metric)) for row in rows]
        self._digits = sorted({o.digits for o in self._observations})
        if (count := len(self._digits)) < MIN_ARCHITECTURES:
            raise UserError(f"{count} architectures are too few to judge a search by; {MIN_ARCHITECTURES} are needed")
        data = collect_trainings(self._observations)
        self._repeats = data.repeats
        self._scores = group_scores(data, self._observations)
        self._truth = np.array([np.mean(self._scores[d]) for d in self._digits])
        self._repeated = [scores for d in self._digits if len(scores := self._scores[d]) > 1]

    def judge(self, ranking: np.ndarray, answer: str | None) -> Judgement:
        """Judges a search.

        Args:
            ranking: The search's score of each genotype, (4096,), higher is better; NaN: none, allowed where no row is.
            answer: The genotype it chose, in digits; None: none.

        Raises:
            UserError: architectures of the rows have no score.
        """
        given = self._choose(ranking)
        return Judgement(
            num_architectures=len(self._digits),
            num_trainings=len(self._observations),
            search=self.measure(ranking),
            tau=estimate_tau([compare_orders(given, self._truth)]),
            random=self._random,
            perfect=self._perfect,
            num_repeated=len(self._repeated),
            tau_of_seeds=self._tau_of_seeds,
            noise=float(np.sqrt(self._repeats.noise)),
            answer=self._score_answer(answer) if answer else None,
        )

    def measure(self, ranking: np.ndarray) -> Measures:
        """Measures a ranking as ``judge`` does, without what stands beside it."""
        return measure(self._choose(ranking), self._truth)

    def estimate_mean_tau(self, rankings: Sequence[np.ndarray]) -> Interval:
        """Estimates tau-b of several searches together, with an interval over architectures.

        Args:
            rankings: Each as for ``judge``.

        Raises:
            UserError: as ``judge``.
        """
        return estimate_tau(self._compare(rankings))

    def estimate_mean_tau_difference(self, rankings: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> Interval:
        """Estimates by how much their tau-b is above that of other searches, the same architectures drawn for both.

        Args:
            rankings: Each as for ``judge``.
            others: The same of the other searches.

        Raises:
            UserError: as ``judge``.
        """
        return estimate_tau_difference(self._compare(rankings), self._compare(others))

    def _compare(self, rankings: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [compare_orders(self._choose(ranking), self._truth) for ranking in rankings]

    def _choose(self, ranking: np.ndarray) -> np.ndarray:
        """Returns the scores of the trained architectures, (n,), after checking that each has one."""
        given = ranking[[number_of(d) for d in self._digits]]
        if missing := [d for d, score in zip(self._digits, given, strict=True) if np.isnan(score)]:
            named = ", ".join(missing[:_NUM_NAMED]) + (", …" if len(missing) > _NUM_NAMED else "")
            raise UserError(
                f"the search has no score for {len(missing)} of the {len(given)} trained architectures: {named}"
            )
        return given

    @cached_property
    def _random(self) -> Expected:
        return Expected(expect_random(self._truth), *spread_random(self._truth))

    @cached_property
    def _perfect(self) -> Expected | None:
        counts = np.array([len(self._scores[d]) for d in self._digits])
        return bound_perfect(self._truth, counts, self._repeats) if self._repeats.df else None

    @cached_property
    def _tau_of_seeds(self) -> Interval | None:
        return compare_seeds(self._repeated)

    @cached_property
    def fit(self) -> EffectsFit:
        """What each candidate is worth by these rows; UserError: too few trainings for it."""
        return fit_effects(self._observations)

    def _score_answer(self, answer: str) -> AnswerScore:
        """Scores the answer by its rows, or by what the others' effects predict."""
        num_trainings = len(self._scores.get(answer, ()))
        if num_trainings:
            score = Interval(float(np.mean(self._scores[answer])), float("nan"), float("nan"))
        else:
            score = self._predict(answer)
        behind = float(self._truth.max()) - score.value
        others = self._truth[[digits != answer for digits in self._digits]]
        return AnswerScore(answer, num_trainings, score, behind, _find_shares(others, score))

    def predict_share(self, digits: str) -> Interval:
        """Predicts of what share of the table's architectures one is better, whether the table has it or not.

        So answers can be compared of which only some were trained: a trained score has noise, a prediction is nearer to
        the mean. The interval is for the score of one new training.

        Raises:
            UserError: too few trainings for a fit.
        """
        return _find_shares(self._truth, self._predict(digits))

    def _predict(self, digits: str) -> Interval:
        number = number_of(digits)
        return Interval(*(float(values[number]) for values in (self.fit.predictions, self.fit.low, self.fit.high)))

    @property
    def highest_predicted_share(self) -> float:
        """Share of the architectures that the best of all predictions is better than.

        A prediction has no noise, so it is nearer to the mean than trained scores are.

        Raises:
            UserError: too few trainings for a fit.
        """
        return _find_share(self._truth, float(self.fit.predictions.max()))


def judge_domains(table: Table, rows: Sequence[Row], metric: str, ranking: np.ndarray) -> dict[str, float]:
    """Judges a ranking by each of the scores that a group is the mean of: its tau-b, by the score's name.

    Args:
        table: Whose metric it is.
        rows: Of one budget.
        metric: The group's name.
        ranking: As for ``Judge.judge``.

    Returns:
        None of them where the metric is a single score, or the mean of one.
    """
    names = table.groups.get(metric, ())
    return {name: Judge(table, rows, name).measure(ranking).tau for name in names} if len(names) > 1 else {}


def _find_shares(others: np.ndarray, score: Interval) -> Interval:
    """Finds the shares of others, (n,), that a score and its ends, where it has some, are better than."""
    ends = (score.value, score.low, score.high)
    return Interval(*(_find_share(others, end) if np.isfinite(end) else end for end in ends))


def _find_share(others: np.ndarray, score: float) -> float:
    """Finds the share of others, (n,), that a score is better than, ties counted by half."""
    return float(np.mean(others < score) + np.mean(others == score) / 2)


def measure(given: np.ndarray, truth: np.ndarray) -> Measures:
    """Measures scores that a search gives architectures against what they scored, (n,) each.

    Where several are first together, or share the tenth place, the mean over their orders is taken.
    """
    best, top = truth.max(), _find_top(truth)
    first = given == given.max()
    return Measures(
        tau=float(stats.kendalltau(given, truth).statistic),
        top_tau=float(stats.kendalltau(given[top], truth[top]).statistic) if len(top) > 2 else float("nan"),
        regret=max(0.0, float(best - truth[first].mean())),  # rounding may go below
        regret_of_ten=max(0.0, float(best - _expect_best_of_first(given, truth))),
        percentile=float(compute_percentiles(truth)[first].mean()),
    )


def expect_random(truth: np.ndarray) -> Measures:
    """Returns the expected measures of a random order."""
    best = truth.max()
    return Measures(0.0, 0.0, float(best - truth.mean()), float(best - expect_best(truth, FIRST)), 0.5)


def spread_random(truth: np.ndarray) -> tuple[Measures, Measures]:
    """Simulates between which measures 95 % of random orders lie."""
    count = len(truth)
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(count), (NUM_RANDOM, 1)), axis=1)
    first = orders.argmax(axis=1)
    of_ten = truth[np.argsort(-orders, axis=1)[:, :FIRST]].max(axis=1)
    top = _find_top(truth)
    taus, top_taus = _correlate(orders, truth), _correlate(orders[:, top], truth[top])
    draws = [taus, top_taus, truth.max() - truth[first], truth.max() - of_ten, compute_percentiles(truth)[first]]
    low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2], axis=1, method="inverted_cdf")
    return Measures(*low.tolist()), Measures(*high.tolist())


def compute_percentiles(truth: np.ndarray) -> np.ndarray:
    """Computes of what share of the others each value is the better one, ties counted by half, (n,)."""
    below, equal = (truth[:, None] > truth).sum(axis=1), (truth[:, None] == truth).sum(axis=1)
    return (below + (equal - 1) / 2) / (len(truth) - 1)


def _find_top(truth: np.ndarray) -> np.ndarray:
    """Finds the tenth of the architectures that scored best."""
    return np.argsort(-truth, kind="stable")[: -(-len(truth) // 10)]


def _correlate(orders: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Computes tau-b of many orders without ties, (draws, n), with one that may have some, (n,); NaN below three."""
    if (count := len(truth)) < 3:
        return np.full(len(orders), np.nan)
    signs = np.sign(truth[:, None] - truth)
    agreement = np.array([np.vdot(np.sign(order[:, None] - order), signs) for order in orders])
    return agreement / np.sqrt(count * (count - 1) * np.abs(signs).sum())


def expect_best(values: np.ndarray, size: int) -> float:
    """Returns the expected largest of ``size`` values drawn without replacement."""
    ways = np.array([comb(i, size - 1) for i in range(len(values))], dtype=float)
    return float(np.sort(values) @ ways / comb(len(values), size))


def expect_perfect(truth: np.ndarray, noise: np.ndarray) -> Measures:
    """Simulates the measures of the true order against rows with their noise.

    Args:
        truth: Mean scores of the architectures, (n,), noise included; drawn together until that is out of them.
        noise: Standard deviations of that noise, (n,).
    """
    share = 1 - np.mean(noise**2) / truth.var(ddof=1)
    if share <= 0:
        return expect_random(truth)  # nothing but noise
    without = truth.mean() + np.sqrt(share) * (truth - truth.mean())
    generator = np.random.default_rng(0)
    draws = [measure(without, without + noise * generator.standard_normal(len(truth))) for _ in range(NUM_SIMULATED)]
    return Measures(*np.mean([astuple(draw) for draw in draws], axis=0).tolist())


def bound_perfect(truth: np.ndarray, counts: np.ndarray, repeats: Repeats) -> Expected:
    """Simulates the measures of the true order with the estimated noise, and with both ends of its 95 % interval.

    The noise is taken as normal and the same for all architectures.

    Args:
        truth: Mean scores of the architectures, (n,), noise included.
        counts: Of each architecture's trainings, (n,).
        repeats: From which the noise is known; there are some.
    """
    ends = repeats.df / stats.chi2.ppf([LEVEL / 2, 1 - LEVEL / 2], repeats.df)
    found = [expect_perfect(truth, np.sqrt(repeats.noise * factor / counts)) for factor in (1, *ends)]
    values = np.array([astuple(measures) for measures in found])
    return Expected(found[0], Measures(*values.min(axis=0).tolist()), Measures(*values.max(axis=0).tolist()))


def _expect_best_of_first(given: np.ndarray, truth: np.ndarray) -> float:
    limit = np.sort(given)[-FIRST]
    sure, tied = truth[given > limit], truth[given == limit]
    floor = sure.max() if len(sure) else -np.inf
    return expect_best(np.maximum(tied, floor), FIRST - len(sure))
