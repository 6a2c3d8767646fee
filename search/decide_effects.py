"""The designed experiment's decision: what the trained networks say, and the answer that follows."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genotype import BLOCK_NAMES, CANDIDATE_NAMES, Genotype
from search.answer import Answer, BlockAnswer, list_digits
from search.effects import EffectsFit, fit_effects
from search.trainings import Observation
from search.trials import TrialResult
from utils.errors import UserError
from utils.log import format_table

logger = logging.getLogger(__name__)

METRIC = "heldout_new/mAP"  # people and cameras, or a source, that were never trained on
SCORE_NAME = "predicted mAP on held-out images"


def observe(results: Sequence[TrialResult]) -> list[Observation]:
    """Takes the last budget's score on held-out images from each training."""
    return [Observation(r.trial.digits, r.trial.fold, r.trial.seed, get_final_score(r)) for r in results]


def get_final_score(result: TrialResult) -> float:
    """Returns a training's score on held-out images at its largest budget."""
    return float(result.scores[max(result.scores)][METRIC])


def log_fit(fit: EffectsFit) -> None:
    """Writes what the first round says into the log."""
    rows = []
    for name, block in zip(BLOCK_NAMES, fit.blocks, strict=True):
        cells = [
            f"{v:+.1%} ± {(h - low) / 2:.1%}" for v, low, h in zip(block.values, block.low, block.high, strict=True)
        ]
        rows.append((name, *cells, "decided" if block.is_decided else "undetermined", f"{block.p_decision:.3f}"))
    logger.info("effect on held-out mAP, with 95 %% intervals:\n%s",
                format_table(("block", *CANDIDATE_NAMES, "", "p"), rows))  # fmt: skip
    logger.info(
        "left-out architectures are predicted with Kendall's tau %.2f, error %.1f%% mAP; scores scatter by %.1f%% "
        "around the candidates' means%s",
        fit.left_out_tau, 100 * fit.left_out_error, 100 * fit.residual_sd,
        "" if fit.lack_of_fit is None else f"; test for interactions p = {fit.lack_of_fit:.3f}",
    )  # fmt: skip


def log_leaders(results: Sequence[TrialResult]) -> None:
    """Writes each block's leading candidate, once there are enough trainings for that."""
    try:
        fit = fit_effects(observe(results))
    except UserError:
        return
    leaders = []
    for name, block in zip(BLOCK_NAMES, fit.blocks, strict=True):
        verdict = " (decided)" if block.is_decided else ""
        leaders.append(f"{name} {CANDIDATE_NAMES[block.best]} {block.values[block.best]:+.1%}{verdict}")
    logger.info("leading so far: %s", ", ".join(leaders))


def make_answer(
    fit: EffectsFit, digits: str, why: str, confirmed: Sequence[Mapping[str, Any]], results: Sequence[TrialResult]
) -> Answer:
    """Makes the answer of a designed experiment.

    Args:
        fit: Of the first round.
        digits: The found genotype.
        why: Why it is that one.
        confirmed: The second round's table; empty: there was none.
        results: All trainings.
    """
    genotype, names = Genotype.from_digits(digits), list_digits()
    blocks = []
    for index, block in zip(genotype.indices, fit.blocks, strict=True):
        is_decided = block.is_decided and block.best == index
        if is_decided:
            reason = f"ahead of the second, p = {block.p_decision:.3f}"
        elif block.is_decided:
            reason = f"{CANDIDATE_NAMES[block.best]} is ahead in the first round, but {why}"
        else:
            reason = f"no candidate is significantly ahead of all others, p = {block.p_decision:.3f}"
            if block.ruled_out:
                reason += f"; ruled out: {', '.join(CANDIDATE_NAMES[k] for k in block.ruled_out)}"
        blocks.append(
            BlockAnswer(
                CANDIDATE_NAMES[index], is_decided, reason, *(a.tolist() for a in (block.values, block.low, block.high))
            )
        )
    not_worse = [names[int(i)] for i in fit.not_worse[np.argsort(-fit.predictions[fit.not_worse], kind="stable")]]
    seconds = sum(r.metrics["time_sec"] for r in results)
    passes = sum(r.metrics["image_passes"] for r in results)
    memory = max(value for r in results for key, value in r.metrics.items() if key.startswith("peak_"))
    return Answer(
        method="design",
        genotype=genotype,
        blocks=blocks,
        places=fit.places,
        value_name="effect on held-out mAP",
        scores=fit.predictions,
        score_name=SCORE_NAME,
        not_worse=not_worse if digits in not_worse else [digits, *not_worse],
        costs={"seconds": seconds, "image_passes": passes, "peak_memory_bytes": memory},
        caution=[
            f"Chosen because {why}.",
            f"The fit orders architectures that it has not seen at Kendall's tau {fit.left_out_tau:.2f}, with an error "
            f"of {fit.left_out_error:.1%} mAP ({fit.num_runs} trainings).",
        ],
        details={
            "left_out_tau": fit.left_out_tau,
            "left_out_error": fit.left_out_error,
            "lack_of_fit_p": fit.lack_of_fit,
            "p_values": [block.p_values.tolist() for block in fit.blocks],
            "confirmed": list(confirmed),
            "trainings": len(results),
        },
    )
