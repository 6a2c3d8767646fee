"""What every search leaves in its folder and its log, from its answer."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.history import FILE_NAME, read_history
from genotype import BLOCK_NAMES, CANDIDATE_NAMES
from search.answer import RANKING_NAME, Answer, write_ranking
from search.decide_effects import METRIC
from search.places import format_places
from search.report import ReportData, Trajectories, write_report
from search.report.figures import draw_grid
from search.trials import TrialResult
from utils.plots import save_figure

logger = logging.getLogger(__name__)

SHOWN_TRIALS = 18  # lines of a figure that can be told apart


def conclude(folder: Path, answer: Answer, facts: Mapping[str, Any], shown: ReportData) -> None:
    """Saves, draws and prints a search's answer.

    Args:
        folder: The search's.
        answer: What was found.
        facts: Of data, settings and versions; kept with the genotype and shown in the report.
        shown: What the report shows beside them.
    """
    genotype = replace(answer.genotype, found=answer.as_found(facts))
    genotype.to_json(folder / "genotype.json")
    write_ranking(folder / RANKING_NAME, answer.scores, **answer.arrays)
    save_figure(draw_grid(answer), folder / "architecture.png")
    write_report(folder / "report.html", answer, facts, shown)
    logger.info("found architecture:\n%s", answer.format())
    if answer.places:
        logger.info("what IN is worth at each place, with 95 %% intervals:\n%s", format_places(answer.places))
    for sentence in (answer.verdict, *answer.caution):
        logger.info("%s", sentence)
    logger.info("all of it, with pictures: %s", folder / "report.html")
    logger.info("to train it: model.genotype %s, or paste into osnet_child.py:", folder / "genotype.json")
    logger.info("GENOTYPE = %r", genotype)


def collect_trajectories(folder: Path) -> list[Trajectories]:
    """Collects what a super-network's search shows over time: its loss, and each block's leading probability."""
    history = read_history(folder / FILE_NAME)
    if not history:
        return []
    found = [Trajectories("Training loss", "epoch", "loss", {"loss": [(h["epoch"], h["train/loss"]) for h in history]})]
    if "nas/entropy" in history[0]:
        leading = {
            block: [
                (h["epoch"], max(h[f"nas/probability/{block}/{name}"] for name in CANDIDATE_NAMES)) for h in history
            ]
            for block in BLOCK_NAMES
        }
        found.append(Trajectories("Probability of each block's leading candidate", "epoch", "probability", leading))
    return found


def collect_budgets(results: Sequence[TrialResult]) -> list[Trajectories]:
    """Collects the scores on held-out images that trainings had at several budgets, of the best and the worst."""
    if all(len(r.scores) == 1 for r in results):
        return []
    ordered = sorted(results, key=lambda r: -r.scores[max(r.scores)][METRIC])
    if len(ordered) > SHOWN_TRIALS:
        ordered = ordered[: SHOWN_TRIALS // 2] + ordered[-(SHOWN_TRIALS // 2) :]
    lines = {r.trial.name: [(epoch, s[METRIC]) for epoch, s in sorted(r.scores.items())] for r in ordered}
    return [Trajectories("Scores on held-out images by budget, best and worst trainings", "epochs", "mAP", lines)]


def list_trials(results: Sequence[TrialResult]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Lists trainings as a table: a header, and rows with the best first."""
    rows = []
    for r in sorted(results, key=lambda r: -r.scores[max(r.scores)][METRIC]):
        epoch = max(r.scores)
        cells = (r.trial.seed, r.trial.fold, epoch, f"{r.scores[epoch][METRIC]:.1%}", f"{r.losses[epoch]:.3f}")
        rows.append([r.trial.digits, *map(str, cells)])
    return ("genotype", "seed", "fold", "epochs", "held-out mAP", "training loss"), rows
