"""Shows how far several searches agree: other seeds, other folds, other methods.

    python -m tools.agreement log/search_1 log/search_2 log/search_3 --output agreement.png --scores together.txt

Each is a search's folder (genotype.json and, if it ranks, ranking.npz) or a text file of scores, see
tools.judge_search. The table counts how many searches found each candidate in each block. Below: Fleiss' kappa, 1 for
full agreement and 0 for what chance gives, Kendall's tau-b between rankings, of each two over the genotypes that both
rank, and the first ten by their mean ranks; --scores writes all mean ranks as a text file of scores. The picture shows
the votes, and tau for each pair. Exit code 2 after a user error.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genotype import BLOCK_NAMES, CANDIDATE_NAMES, NUM_GENOTYPES
from search.agreement import Agreement, combine_rankings, compare_searches
from search.answer import list_digits
from search.format_values import format_interval
from search.submission import Submission, list_files, read_submission
from utils.drawing import Axes, Figure
from utils.errors import UserError
from utils.files import check_writable, write_atomically
from utils.log import format_table
from utils.plots import save_figure
from utils.printable import make_printable
from utils.tool import tool

NUM_SHOWN = 10  # of the genotypes that are first by the mean ranks


def format_agreement(agreement: Agreement) -> str:
    """Sets the table of votes and the lines below it."""
    rows = [(name, *votes) for name, votes in zip(BLOCK_NAMES, agreement.votes.tolist(), strict=True)]
    taus = agreement.pair_taus
    lines = [
        f"{agreement.share:.0%} of all pairs agree on a block's candidate (25 % by chance); "
        f"Fleiss' kappa {format_interval(agreement.kappa, '.2f')}",
        f"Kendall's tau-b between rankings: mean {taus.mean():.2f}, {taus.min():.2f} to {taus.max():.2f}"
        if len(taus)
        else "Kendall's tau-b between rankings: none, since no two of them put the same genotypes in an order",
    ]
    return "\n\n".join([format_table(("block", *CANDIDATE_NAMES), rows), "\n".join(lines)])


def list_mean_ranks(searches: Sequence[Submission]) -> dict[str, float]:
    """Lists genotypes, in digits, with the mean of their ranks, the highest and best first.

    Returns:
        Without genotypes that a ranking search leaves out; empty where fewer than two searches rank.
    """
    rankings = [search.scores for search in searches if search.scores is not None]
    if len(rankings) < 2:
        return {}
    ranks, digits = combine_rankings(rankings), list_digits()
    return {digits[i]: float(ranks[i]) for i in np.argsort(-ranks, kind="stable") if np.isfinite(ranks[i])}


def draw_agreement(agreement: Agreement, names: Sequence[str]) -> Figure:
    """Draws the votes, and the rank correlation of each pair of searches.

    Args:
        agreement: Of n searches.
        names: Of the searches, n.
    """
    number = len(names)
    figure = Figure(figsize=(9.5 + 0.45 * number, max(3.6, 1.8 + 0.45 * number)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(6, max(4, number)))
    _draw_grid(left, agreement.votes.T, (0, 2 * number), "Blues", "d")
    left.set_xticks(range(len(BLOCK_NAMES)), BLOCK_NAMES)
    left.set_yticks(range(len(CANDIDATE_NAMES)), CANDIDATE_NAMES)
    left.set_title(f"Searches that found it, of {number}", fontsize=11)
    _draw_grid(right, agreement.taus, (-2, 2), "PuOr", ".2f")
    right.set_xticks(range(number), [str(i + 1) for i in range(number)])
    right.set_yticks(
        range(number), [f"{i}  {make_printable(name)}" for i, name in enumerate(names, 1)], parse_math=False
    )
    right.set_title("Kendall's tau-b between rankings", fontsize=11)
    return figure


def _draw_grid(axes: Axes, values: np.ndarray, limits: tuple[float, float], colours: str, spec: str) -> None:
    axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")  # wide limits: text stays legible
    for (row, column), value in np.ndenumerate(values):
        text = f"{value:{spec}}" if np.isfinite(value) else "–"
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color="#222222")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


@tool("agreement")
def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0, or 2 after a user error."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.agreement",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("searches", type=Path, nargs="+", metavar="SEARCH")
    parser.add_argument("--output", type=Path, metavar="FILE", help="picture to write, .png or .svg")
    parser.add_argument("--scores", type=Path, metavar="FILE", help="text file to write, of the mean ranks")
    given = parser.parse_args(words)
    searches = [read_submission(path) for path in given.searches]
    agreement, ranks = compare_searches(searches), list_mean_ranks(searches)
    for path in filter(None, (given.output, given.scores)):
        check_writable(path, *(file for search in given.searches for file in list_files(search)))
    if given.scores:
        if given.output and os.path.realpath(given.output) == os.path.realpath(given.scores):
            raise UserError(f"--output and --scores are the same file, {given.scores}; choose two names")
        if not ranks:
            raise UserError("--scores needs two or more searches that rank, and genotypes that all of these rank")
    if given.output:
        save_figure(draw_agreement(agreement, [str(path) for path in given.searches]), given.output)
    if given.scores:
        write_atomically(given.scores, "".join(f"{digits} {rank}\n" for digits, rank in ranks.items()))
    print(format_table(("search", "found"), [(p, s.digits) for p, s in zip(given.searches, searches, strict=True)]))
    print(f"\n{format_agreement(agreement)}")
    num = sum(search.scores is not None for search in searches)
    if num > 1 and len(ranks) < NUM_GENOTYPES:
        there = f"{len(ranks):,} of the {NUM_GENOTYPES:,} genotypes are ranked by all {num} searches that rank"
        print(f"{there}; the others have no mean rank")
    if ranks:
        print(f"first by the mean ranks of the {num} that rank: {' '.join(list(ranks)[:NUM_SHOWN])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
