"""Judges a search by a table of really trained networks; no GPU and no images are needed.

    python -m tools.judge_search log/my_search --table synthetic_a_x0_25
    python -m tools.judge_search scores.txt --table synthetic_a_x0_25 --metric unseen/mAP --budget 20

A search is a folder with genotype.json and ranking.npz, as this program's searches leave, or a text file with a
genotype's six digits and its score on each line, higher is better:

    000000 0.412
    110110 0.538

The table shows how the search orders the trained networks: Kendall's tau-b with a 95 % interval (bootstrap over
architectures), the same within the best tenth, how far the best of its first and of its first ten networks is behind
the best of all, and what share of the networks its first is better than. Beside that stand a random order, its mean
and where 95 % of them lie, and, once architectures were trained several times, the true order, which noise of the
trainings keeps from agreeing with the rows: its expected value, and how far that moves over the noise's 95 % interval.
Below: the architecture that the search chose; where the table lacks it, its score is predicted from what its candidates
are worth. Exit code 2 after a user error.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from search.format_values import format_domains, format_expected, format_interval, format_measures
from search.judge import Judge, Judgement, check_unseen, list_judges
from search.measures import FIRST
from search.orders import MIN_REPEATED
from search.submission import read_submission
from search.table import Table
from utils.errors import UserError
from utils.log import format_table
from utils.printable import make_printable
from utils.tool import tool

POOLED = ", estimated from all residuals: they are no larger than the differences between repeated trainings"


def format_judgement(judgement: Judgement, metric: str, title: str, domains: Mapping[str, float]) -> str:
    """Sets the table and the lines below it; ``domains``: tau-b by each score that the metric is the mean of."""
    labels = (
        "Kendall's tau-b",
        "tau-b within the best tenth",
        f"its first trained network is behind the best, {metric}",
        f"best of its first {FIRST} trained ones is behind",
        "its first trained one is better than",
    )
    columns = [format_measures(judgement.search, judgement.tau)]
    columns += [format_expected(expected) for expected in (judgement.random, judgement.perfect) if expected]
    rows = list(zip(labels, *columns, strict=True))
    header = ["", "search", "random", "true order"][: len(rows[0])]
    lines = [title, format_table(header, rows), _format_answer(judgement, metric)]
    if domains:
        lines.append(f"by single domains, {len(domains)} of them: tau-b from {format_domains(domains)}")
    if math.isnan(judgement.noise):
        why = "too few architectures were" if judgement.num_repeated else "no architecture was"
        lines.append(f"noise of the trainings is unknown: {why} trained more than once")
    else:
        tau = judgement.tau_of_seeds
        lines.append(
            f"between trainings of one architecture ({judgement.num_repeated} trained more than once): tau-b "
            f"{format_interval(tau, '.2f') if tau else f'known from {MIN_REPEATED} architectures on'}, "
            f"standard deviation {judgement.noise:.1%}{POOLED if judgement.is_noise_pooled else ''}"
        )
    return "\n\n".join([lines[0], lines[1], "\n".join(lines[2:])])


def _format_answer(judgement: Judgement, metric: str) -> str:
    answer = judgement.answer
    if answer is None:
        return "no answer to score: several architectures share the search's highest score"
    share = format_interval(answer.percentile, ".0%")
    if not answer.num_trainings:
        return (
            f"answer {answer.digits} (not in the table, predicted): {metric} {format_interval(answer.score, '.1%')}, "
            f"{answer.behind:.1%} behind the best, better than {share} of the networks"
        )
    times = "once" if answer.num_trainings == 1 else f"{answer.num_trainings} times"
    predicted = format_interval(answer.predicted, ".0%")
    return (
        f"answer {answer.digits} (trained {times}): {metric} {format_interval(answer.score, '.1%')}, "
        f"{answer.behind:.1%} behind the best, better than {share} of the others; predicted by these: {predicted}"
    )


def run(arguments: argparse.Namespace) -> str:
    """Returns what the command line asks for."""
    submission = read_submission(arguments.search)
    if submission.scores is None:
        raise UserError(f"{arguments.search} has no ranking.npz; judged is how a search ranks all genotypes")
    table = Table.load(arguments.table)
    check_unseen(table, submission)
    rows = table.at(arguments.budget)
    judgement = Judge(table, rows, arguments.metric).judge(submission.scores, submission.digits)
    judges = list_judges(table, rows, arguments.metric)
    domains = {name: judge.measure(submission.scores).tau for name, judge in judges.items()}
    title = (
        f"{submission.name} by {judgement.num_trainings} trainings of {judgement.num_architectures} architectures, "
        f"{arguments.metric} of table {table.name} at {rows[0].epochs} epochs"
    )
    return format_judgement(judgement, arguments.metric, make_printable(title), domains)


@tool("judge_search")
def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0, or 2 after a user error."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.judge_search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("search", type=Path, metavar="SEARCH", help="a search's folder, or a text file of scores")
    parser.add_argument("--table", required=True, metavar="NAME", help="of the repository, or a file")
    parser.add_argument("--metric", default="unseen/mAP", metavar="NAME", help="default unseen/mAP")
    parser.add_argument("--budget", type=int, metavar="EPOCHS", help="default: the table's largest")
    text = run(parser.parse_args(words))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
