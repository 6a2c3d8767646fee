"""The paper's decision: each block keeps its most probable candidate."""

from typing import Any

import numpy as np
from torch import Tensor

from genotype import CANDIDATE_NAMES, Genotype
from search.paths import GumbelSoftmax, compute_margins


def describe_alphas(alphas: Tensor, relaxation: GumbelSoftmax) -> dict[str, Any]:
    """Returns what a search knows at its end, as plain values: alphas, probabilities (6, 4), margins (6,)."""
    probabilities = relaxation.probabilities(alphas)
    return {
        "alphas": alphas.tolist(),
        "probabilities": probabilities.tolist(),
        "margins": compute_margins(probabilities).tolist(),
    }


def format_decision(genotype: Genotype) -> str:
    """Sets the found architecture in the paper's form, each block's probabilities and margin beside it."""
    found = genotype.found
    lines = []
    for line, row, margin in zip(str(genotype).splitlines(), found["probabilities"], found["margins"], strict=True):
        cells = ", ".join(f"{name} {p:.3f}" for name, p in zip(CANDIDATE_NAMES, row, strict=True))
        lines.append(f"{line}  ({cells}; margin {margin:.3f})")
    return "\n".join(lines)


def get_probabilities(genotype: Genotype) -> np.ndarray:
    """Returns the candidates' probabilities (6, 4) that a found genotype was decided by."""
    return np.array(genotype.found["probabilities"])
