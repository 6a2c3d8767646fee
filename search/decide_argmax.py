"""The paper's decision: each block keeps its most probable candidate."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from genotype import CANDIDATE_NAMES, Genotype
from search.answer import Answer, BlockAnswer
from search.paths import GumbelSoftmax, compute_margins

DECIDED_ABOVE = 0.5  # a candidate that is more probable than all others together
NO_ERROR = (
    "One search has no error of its own: repeat it with other seeds and compare them (python -m tools.agreement)."
)
TAUGHT_BY = {
    "train": "The probabilities were learnt on the people and cameras that the weights were learnt on.",
    "held_out": "The probabilities were learnt on cameras that the weights never saw, but on the same people. Of pairs "
    "of trial searches that were sure of the same block, 9 of 19 were of the same candidate (docs/search.md).",
}


def decide_argmax(alphas: Tensor, genotype: Genotype, costs: Mapping[str, float], alpha_data: str) -> Answer:
    """Makes the answer of a search by its architecture parameters.

    A block is called decided where one candidate is more probable than all others together.

    Args:
        alphas: Architecture parameters, (6, 4).
        genotype: The most probable candidates.
        costs: See ``Answer``.
        alpha_data: What taught the alphas, the setting ``nas.alpha_data``.
    """
    probabilities = GumbelSoftmax().probabilities(alphas.double())
    margins = compute_margins(probabilities)
    blocks = []
    for row, margin, candidate in zip(probabilities.tolist(), margins.tolist(), genotype.blocks, strict=True):
        is_decided = row[CANDIDATE_NAMES.index(candidate)] > DECIDED_ABOVE
        reason = f"margin {margin:.3f}" if is_decided else f"margin {margin:.3f}, no candidate above {DECIDED_ABOVE:g}"
        blocks.append(BlockAnswer(candidate, is_decided, reason, row))
    return Answer(
        method="gumbel",
        genotype=genotype,
        blocks=blocks,
        value_name="probability",
        scores=score_all(probabilities),
        score_name="log probability of all six candidates together",
        not_worse=[],
        costs=costs,
        caution=[NO_ERROR, TAUGHT_BY[alpha_data]],
        details={
            "alphas": alphas.tolist(),
            "probabilities": probabilities.tolist(),
            "margins": margins.tolist(),
        },
    )


def score_all(probabilities: Tensor) -> np.ndarray:
    """Computes the log of the product of six probabilities for each of the 4,096 genotypes, (4096,) float64."""
    total = torch.zeros(1, dtype=torch.float64)
    for row in probabilities.double().log():
        total = (total[:, None] + row).flatten()
    return total.numpy()
