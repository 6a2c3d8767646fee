"""What a table says of searches that ran: each a folder METHOD-seedN with its genotype.json and ranking.npz."""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genotype import BLOCK_NAMES, CANDIDATE_NAMES, NUM_INS
from search.agreement import combine_rankings
from search.answer import list_digits
from search.compare import Mean, estimate, estimate_difference, estimate_unpaired_difference
from search.confirm import PLAIN
from search.effects import BlockEffects
from search.judge import AnswerScore, Judge, Judgement, check_unseen, list_judges
from search.orders import Interval
from search.places import PLACE_NAMES, Place
from search.submission import read_submission
from search.table import UNSEEN, Table
from utils.checks import Fits, find_misfit, is_text, is_whole
from utils.errors import UserError

PAPER, DESIGN = "gumbel", "design"  # methods
FEWEST_NORMS = -np.array([sum(NUM_INS[int(k)] for k in digits) for digits in list_digits()], dtype=float)  # a ranking


def _is_cost(value: Any) -> bool:
    fits, _ = is_whole(1, 10**15)
    return isinstance(value, dict) and fits(value.get("image_passes"))


def _are_blocks(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(b, dict)
        and is_text(b.get("block"))
        and isinstance(b.get("decided"), bool)
        and b.get("candidate") in CANDIDATE_NAMES
        for b in value
    )


def _are_confirmed(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(c, dict) and type(c.get("trainings")) is int and c["trainings"] > 0 for c in value
    )


def _are_places(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(p, dict)
        and is_text(p.get("place"))
        and isinstance(p.get("decided"), bool)
        and isinstance(p.get("value"), float | int)
        for p in value
    )


_FOUND: dict[str, Fits] = {
    "method": (is_text, "text"),
    "seed": is_whole(0, 10**19),
    "epochs": is_whole(1, 10**9),
    "costs": (_is_cost, "image_passes, a whole number from 1 on"),
    "places": (_are_places, "of each place its name, decided or not, and its value"),
    "blocks": (_are_blocks, "of each block its name, candidate, and whether that is decided"),
    "trainings": is_whole(1, 10**9),
    "confirmed": (_are_confirmed, "of each network trained anew how often"),
}  # what a search's genotype.json says of how it was found
_MAY_LACK = {"places", "blocks", "trainings", "confirmed"}  # which are for those that decide or confirm something


class Answers(NamedTuple):
    """What networks that searches chose are worth.

    Attributes:
        image_passes: Images that passed forward and backward, in one search on the mean.
        predicted: Share of the table's other networks that they are better than, as these others' effects predict them;
            low and high are the means of the ends of single answers' intervals.
        trained: The same of those that the table has, by their trainings; NaN where it has none.
        num_trained: Of them.
    """

    image_passes: float
    predicted: Interval
    trained: float
    num_trained: int


class Together(NamedTuple):
    """What the mean ranks of a method's searches are worth.

    Attributes:
        image_passes: Of all these searches, without networks trained anew.
        tau: Their tau-b with the order by the unseen domains, with the bootstrap's interval over architectures.
        above_one: By how much that is above the searches' mean, the same architectures drawn for both.
        answer: The genotype that they have first, in digits; of several the first by their digits.
        predicted: Share of the table's other networks that it is better than, as these others' effects predict it.
    """

    image_passes: int
    tau: Interval
    above_one: Interval
    answer: str
    predicted: Interval


class Verdicts(NamedTuple):
    """What the table's fit says of what searches call decided.

    Attributes:
        right: It decides the same.
        wrong: It decides otherwise.
        open: It decides nothing there.
    """

    right: int
    wrong: int
    open: int


@dataclass(frozen=True)
class SearchStudy:
    """Searches by one method, each with a seed of its own; means over them with 95 % intervals.

    Attributes:
        method: Its name.
        tau: Kendall's tau-b with the order by the unseen domains.
        tau_over_networks: That of all searches together, with the bootstrap's interval over architectures.
        above_fewest: By how much that is above the order by the fewest norms, the same architectures drawn for both.
        above_fewest_over_seeds: The same over the seeds.
        above_paper: By how much it is above the paper's searches; None: there are none, or these are they.
        above_paper_over_seeds: The same over the seeds, paired where they are the same, by Welch's t otherwise; None as
            before, or with a single seed.
        top_tau: Tau-b within the best tenth of the architectures.
        regret: By how much the network that it ranks first among the trained ones is below the best of them.
        regret_of_ten: By how much the best of its first ten is.
        answers: What its answers are worth.
        first_round: What they would be before they were confirmed, of a design; None: none is confirmed.
        together: What all seeds' mean ranks are worth; None: there is but one.
        by_domain: Tau-b with the order by each unseen domain, mean over the searches; none where there is but one.
        places: Of the places that it calls decided.
        blocks: Of the blocks.
        agreeing: Pairs of searches that call the same block decided: how many name the same candidate, and how many
            there are.
    """

    method: str
    tau: Mean
    tau_over_networks: Interval
    above_fewest: Interval
    above_fewest_over_seeds: Mean
    above_paper: Interval | None
    above_paper_over_seeds: Mean | None
    top_tau: Mean
    regret: Mean
    regret_of_ten: Mean
    answers: Answers
    first_round: Answers | None
    together: Together | None
    by_domain: Mapping[str, float]
    places: Verdicts
    blocks: Verdicts
    agreeing: tuple[int, int]


class _Search(NamedTuple):
    """A search beside a table, judged."""

    scores: np.ndarray  # (4096,)
    judgement: Judgement
    answer: AnswerScore
    image_passes: int
    places: Sequence[bool | None]  # of ``_compare_places``
    blocks: Sequence[bool | None]
    decided: Mapping[str, str]  # candidates of the blocks that it calls decided
    confirmed: float  # share of its image passes


def list_searches(folder: Path) -> dict[str, dict[int, Path]]:
    """Lists the folders METHOD-seedN below a folder, by method and seed; none where that does not exist.

    Raises:
        UserError: a folder, or a file that is named as a search, of another kind.
    """
    methods: dict[str, dict[int, Path]] = {}
    for path in _list_entries(folder):
        match = re.fullmatch(r"(.+)-seed(0|[1-9][0-9]{0,18})", path.name)
        if match is None or not path.is_dir():
            raise UserError(f"{path}: expected is a folder METHOD-seedN with a search's genotype.json and ranking.npz")
        methods.setdefault(match[1], {})[int(match[2])] = path
    return methods


def check_folders(folder: Path, tables: Collection[str]) -> None:
    """Checks that the folders of searches below a folder are named after tables, so that no slip hides one.

    Raises:
        UserError: a folder, or a file that is named as a search, which belongs to no table.
    """
    for path in _list_entries(folder):
        if path.name not in tables:
            raise UserError(f"{path}: expected is a folder with a table's name: {', '.join(sorted(tables)) or 'none'}")


def _list_entries(folder: Path) -> list[Path]:
    """Lists what a folder, which need not exist, holds beside notes: folders, links, files that are named as searches.

    What is hidden is left out.
    """
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []
    return [p for p in entries if p.is_dir() or p.is_symlink() or re.match(".+-seed[0-9]", p.name)]


def study_searches(table: Table, judge: Judge, methods: Mapping[str, Mapping[int, Path]]) -> list[SearchStudy]:
    """Judges searches, method by method.

    Args:
        table: At whose setting they ran.
        judge: By its largest budget and unseen domains.
        methods: Folders of searches, as ``list_searches``.

    Raises:
        UserError: what is in a folder is no search at the table's setting, or not by the method and seed of its name.
    """
    searches = {
        method: {seed: _read_search(table, judge, method, seed, path) for seed, path in paths.items()}
        for method, paths in methods.items()
    }
    paper, domains = searches.get(PAPER, {}), list_judges(table, table.at(), UNSEEN)
    return [_study_method(judge, domains, method, runs, paper) for method, runs in searches.items()]


def _read_search(table: Table, judge: Judge, method: str, seed: int, path: Path) -> _Search:
    submission = read_submission(path)
    found = submission.found
    if submission.scores is None:
        raise UserError(f"{path} has no ranking.npz")
    if missing := sorted(_FOUND.keys() - _MAY_LACK - found.keys()):
        raise UserError(f"{path}: genotype.json lacks {', '.join(missing)} in what it says of how it was found")
    if misfit := find_misfit(found, _FOUND):
        raise UserError(f"{path}: in genotype.json {misfit}")
    if not f"{method}_".startswith(f"{found['method']}_") or found["seed"] != seed:
        raise UserError(
            f"{path} is by the method {found['method']} and of seed {found['seed']}, not what its name says"
        )
    check_unseen(table, submission)
    length = table.at()[0].of_epochs
    if found["method"] == DESIGN:  # whose trainings are short, and would agree with themselves in the table
        if seed in {row.seed for row in table.rows}:
            raise UserError(f"{path}: seed {seed} is one of the table's own trainings; a design needs others")
    elif found["epochs"] != length:
        raise UserError(f"{path} searched for {found['epochs']} epochs, table {table.name} trained for {length}")
    judgement = judge.judge(submission.scores, submission.digits)
    if judgement.answer is None:
        raise UserError(f"{path} has no answer")
    confirmed = sum(c["trainings"] for c in found.get("confirmed", ())) / found.get("trainings", math.inf)
    if confirmed >= 1:
        raise UserError(f"{path}: in genotype.json no more trainings are counted than those that were made anew")
    return _Search(
        submission.scores,
        judgement,
        judgement.answer,
        found["costs"]["image_passes"],
        list(_compare_places(found.get("places", ()), judge.fit.places)),
        list(_compare_blocks(found.get("blocks", ()), judge.fit.blocks)),
        _list_decided(found.get("blocks", ())),
        confirmed,
    )


def _study_method(
    judge: Judge,
    domains: Mapping[str, Judge],
    method: str,
    searches: Mapping[int, _Search],
    paper: Mapping[int, _Search],
) -> SearchStudy:
    runs, others = list(searches.values()), paper if method != PAPER else {}
    rankings, fewest = [run.scores for run in runs], judge.measure(FEWEST_NORMS).tau
    columns = {
        name: estimate([getattr(run.judgement.search, name) for run in runs])
        for name in ("tau", "top_tau", "regret", "regret_of_ten")
    }
    return SearchStudy(
        method,
        **columns,
        tau_over_networks=judge.estimate_mean_tau(rankings),
        above_fewest=judge.estimate_mean_tau_difference(rankings, [FEWEST_NORMS]),
        above_fewest_over_seeds=estimate([run.judgement.search.tau - fewest for run in runs]),
        above_paper=judge.estimate_mean_tau_difference(rankings, [run.scores for run in others.values()])
        if others
        else None,
        above_paper_over_seeds=_compare_taus(searches, others),
        answers=_study_answers([run.answer for run in runs], [run.image_passes for run in runs]),
        first_round=_study_first_round(judge, runs) if all(run.confirmed for run in runs) else None,
        together=_study_together(judge, runs) if len(runs) > 1 else None,
        by_domain={name: float(np.mean([j.measure(r).tau for r in rankings])) for name, j in domains.items()},
        places=_count([run.places for run in runs]),
        blocks=_count([run.blocks for run in runs]),
        agreeing=_count_agreeing([run.decided for run in runs]),
    )


def _study_answers(answers: Sequence[AnswerScore], image_passes: Sequence[float]) -> Answers:
    predicted = [answer.predicted for answer in answers]
    trained = [answer.percentile.value for answer in answers if answer.num_trainings]
    return Answers(
        float(np.mean(image_passes)),
        Interval(*(float(np.mean([getattr(p, end) for p in predicted])) for end in ("value", "low", "high"))),
        float(np.mean(trained)) if trained else math.nan,
        len(trained),
    )


def _study_first_round(judge: Judge, runs: Sequence[_Search]) -> Answers:
    """Studies what designs would answer if they did not confirm: what their orders have first."""
    firsts = [list_digits()[int(np.nanargmax(run.scores))] for run in runs]
    return _study_answers([judge.score_answer(first) for first in firsts], [_count_first_round(run) for run in runs])


def _count_first_round(run: _Search) -> float:
    """Counts a search's image passes without those of networks trained anew."""
    return run.image_passes * (1 - run.confirmed)


def _study_together(judge: Judge, runs: Sequence[_Search]) -> Together:
    rankings = [run.scores for run in runs]
    combined = combine_rankings(rankings)
    answer = list_digits()[int(np.argmax(combined))]
    return Together(
        round(sum(_count_first_round(run) for run in runs)),
        judge.estimate_mean_tau([combined]),
        judge.estimate_mean_tau_difference([combined], rankings),
        answer,
        judge.predict_share(answer),
    )


def _count(signs: Iterable[Iterable[bool | None]]) -> Verdicts:
    found = [sign for of_run in signs for sign in of_run]
    return Verdicts(found.count(True), found.count(False), found.count(None))


def _compare_taus(searches: Mapping[int, _Search], others: Mapping[int, _Search]) -> Mean | None:
    """Estimates over the seeds by how much the tau-b of searches is above that of others; None with too few."""
    taus, reference = ({seed: run.judgement.search.tau for seed, run in runs.items()} for runs in (searches, others))
    if searches.keys() == others.keys() and len(searches) > 1:
        return estimate_difference(taus, reference)
    return estimate_unpaired_difference(list(taus.values()), list(reference.values()))


def judge_fewest_norms(judge: Judge) -> Judgement:
    """Judges the simplest order of all: the fewer instance norms, the better, as trials before the table had it."""
    return judge.judge(FEWEST_NORMS, PLAIN)


def _compare_places(found: Iterable[Mapping[str, Any]], truth: Sequence[Place]) -> Iterator[bool | None]:
    """Yields for each place that the search calls decided whether the table agrees; None: there it is not decided."""
    decided = {place["place"]: place["value"] for place in found if place["decided"]}
    for name, place in zip(PLACE_NAMES, truth, strict=True):
        if name in decided:
            yield (decided[name] > 0) == (place.value > 0) if place.is_decided else None


def _compare_blocks(found: Iterable[Mapping[str, Any]], truth: Sequence[BlockEffects]) -> Iterator[bool | None]:
    """The same of blocks: whether the candidate that the search calls decided is the table's."""
    decided = _list_decided(found)
    for name, block in zip(BLOCK_NAMES, truth, strict=True):
        if name in decided:
            yield decided[name] == CANDIDATE_NAMES[block.best] if block.is_decided else None


def _list_decided(found: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Lists the candidates of the blocks that a search calls decided, by block."""
    return {block["block"]: block["candidate"] for block in found if block["decided"]}


def _count_agreeing(runs: Sequence[Mapping[str, str]]) -> tuple[int, int]:
    """Counts where two searches decide the same block: with the same candidate, and in all."""
    agree = [one[name] == other[name] for one, other in combinations(runs, 2) for name in one.keys() & other.keys()]
    return sum(agree), len(agree)
