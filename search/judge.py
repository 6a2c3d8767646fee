"""How good a search is: its ranking of all 4,096 genotypes beside really trained networks.

A ranking is judged by the rows of a table at one budget, the parts of fold and seed taken out. Its measures stand
beside those of a random one, whose means are exact, and of a perfect one: noise of the trainings keeps even the true
order from agreeing with the rows, by as much as their repeats say.

Intervals are percentiles of a bootstrap over architectures; that of the noise is a chi-square one.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from genotype import number_of
from search.answer import list_digits
from search.effects import EffectsFit, fit_effects
from search.measures import Expected, Measures, bound_perfect, expect_random, measure, spread_random
from search.orders import Interval, compare_orders, compare_seeds, estimate_tau, estimate_tau_difference
from search.submission import Submission
from search.table import UNSEEN, Row, Table
from search.trainings import Observation, collect_trainings, group_scores
from utils.errors import UserError

MIN_ARCHITECTURES = 21  # so that three are the best tenth
_NUM_NAMED = 10  # architectures in a message


@dataclass(frozen=True)
class AnswerScore:
    """A search's answer, trained or not.

    Attributes:
        digits: The genotype.
        num_trainings: That the table has of it, whose noise is in its score; 0: it is predicted.
        score: Its score, fold and seed taken out.
        behind: By how much that is below the best of the table; negative: above.
        percentile: Share of the table's other architectures that it is better than, ties counted by half.
        predicted: The same as the others' effects predict it, also where it was trained.
    """

    digits: str
    num_trainings: int
    score: Interval
    behind: float
    percentile: Interval
    predicted: Interval


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
        is_noise_pooled: Whether it is estimated from all residuals, see ``search.trainings.Repeats``.
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
    is_noise_pooled: bool
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
            at = f" at {budgets[0]} epochs" if budgets else ""
            raise UserError(
                f"{count} architectures{at} are too few to judge a search by; {MIN_ARCHITECTURES} are needed"
            )
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
            UserError: architectures of the rows have no score, or all have the same.
        """
        given = self._choose(ranking)
        if given.min() == given.max():
            raise UserError(f"the search gives all {len(given)} trained architectures the same score: that is no order")
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
            is_noise_pooled=self._repeats.is_noise_pooled,
            answer=self.score_answer(answer) if answer else None,
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

    def score_answer(self, answer: str) -> AnswerScore:
        """Scores the answer by its rows, or by what the others' effects predict."""
        num_trainings = len(self._scores.get(answer, ()))
        nan = float("nan")
        score = Interval(float(np.mean(self._scores[answer])), nan, nan) if num_trainings else self._predict(answer)
        behind, share = float(self._truth.max()) - score.value, self._find_shares(answer, score)
        return AnswerScore(answer, num_trainings, score, behind, share, self.predict_share(answer))

    def predict_share(self, digits: str) -> Interval:
        """Predicts of what share of the table's other architectures one is better, by these others alone.

        So answers can be compared of which only some were trained: a trained score has noise, a prediction is nearer to
        the mean. The interval is for the score of one new training.
        """
        return self._find_shares(digits, self._predict(digits))

    def _predict(self, digits: str) -> Interval:
        """Predicts a score; of a trained architecture without its own trainings, where that can be done."""
        fit, number = self.fit, number_of(digits)
        value, low, high = (float(values[number]) for values in (fit.predictions, fit.low, fit.high))
        shift = fit.left_out[digits][1] - value if digits in fit.left_out else 0.0
        return Interval(value + shift, low + shift, high + shift)

    def _find_shares(self, digits: str, score: Interval) -> Interval:
        """Finds the shares of the other architectures that a score and its ends, where it has some, are better than."""
        others = self._truth[[d != digits for d in self._digits]]
        ends = (score.value, score.low, score.high)
        return Interval(*(_find_share(others, end) if np.isfinite(end) else end for end in ends))

    @cached_property
    def predicted_shares(self) -> tuple[float, float]:
        """Mean and largest of all 4,096 predicted shares: of a random answer, and of the best of all predictions."""
        shares = [self.predict_share(digits).value for digits in list_digits()]
        return float(np.mean(shares)), max(shares)


def list_judges(table: Table, rows: Sequence[Row], metric: str) -> dict[str, Judge]:
    """Lists judges by each of the scores that a group is the mean of, by the score's name.

    Args:
        table: Whose metric it is.
        rows: Of one budget.
        metric: The group's name.

    Returns:
        Without those that cannot judge, as where all architectures score the same; none of them where the metric is a
        single score, or the mean of one.
    """
    names = table.groups.get(metric, ())
    judges = {}
    for name in names if len(names) > 1 else ():
        with contextlib.suppress(UserError):
            judges[name] = Judge(table, rows, name)
    return judges


def _find_share(others: np.ndarray, score: float) -> float:
    """Finds the share of others, (n,), that a score is better than, ties counted by half."""
    return float(np.mean(others < score) + np.mean(others == score) / 2)
