"""A search's answer and how sure it is: what every method ends in, whatever it did before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genotype import BLOCK_NAMES, CANDIDATE_NAMES, NUM_GENOTYPES, Genotype, digits_of, number_of
from search.places import PLACE_NAMES, Place, say_what_is_sure
from utils.files import write_atomically

RANKING_NAME = "ranking.npz"


@dataclass(frozen=True)
class BlockAnswer:
    """What a search knows of one block.

    Attributes:
        candidate: The one that the found network has.
        is_decided: Whether it beats the others by more than chance would.
        reason: Why it is, or is not; one sentence without a full stop.
        values: What each candidate is worth, (4,), in the unit of ``Answer.value_name``.
        low: Lower ends of the values' intervals, (4,); none: the method has no intervals.
        high: Upper ends.
    """

    candidate: str
    is_decided: bool
    reason: str
    values: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Answer:
    """What a search has found.

    Attributes:
        method: ``gumbel``, ``uniform`` or ``design``.
        genotype: The found network.
        blocks: The six blocks in order.
        value_name: What the blocks' values are, such as "probability".
        scores: A score for each of the 4,096 genotypes, (4096,), by the number that their digits are in base 4.
        score_name: What the scores are, such as "predicted mAP on held-out cameras".
        not_worse: Genotypes, in digits, that are not significantly worse than the best; the found one is among them.
            Empty: the method cannot tell.
        costs: ``seconds``, ``image_passes`` (forward and backward), ``peak_memory_bytes`` (of the largest process).
        places: What IN is worth at each of the twelve places of ``search.places.PLACE_NAMES``, in the values' unit.
            Empty: the method cannot tell.
        caution: What the reader should know before trusting it; sentences.
        details: More that the method knows, in plain values.
        arrays: What ``ranking.npz`` keeps beside the scores.
    """

    method: str
    genotype: Genotype
    blocks: Sequence[BlockAnswer]
    value_name: str
    scores: np.ndarray
    score_name: str
    not_worse: Sequence[str]
    costs: Mapping[str, float]
    places: Sequence[Place] = ()
    caution: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def num_decided(self) -> int:
        """How many of the six blocks are decided."""
        return sum(block.is_decided for block in self.blocks)

    @property
    def verdict(self) -> str:
        """How sure the answer is, in a few sentences: of its blocks, of IN at each place, and of the whole network."""
        decided, total = self.num_decided, len(self.blocks)
        if decided == total:
            sentences = [f"All {total} blocks are decided."]
        elif decided == 0:
            sentences = [f"None of the {total} blocks is decided."]
        else:
            verb = "is" if decided == 1 else "are"
            sentences = [f"{decided} of {total} blocks {verb} decided; in the others the choice is open."]
        if self.places:
            sentences.append(say_what_is_sure(self.places))
        if len(self.not_worse) == NUM_GENOTYPES:
            sentences.append(f"None of the {NUM_GENOTYPES:,} networks is ruled out: any could be as good as the best.")
        elif self.not_worse:
            sentences.append(
                f"Of all {NUM_GENOTYPES:,} networks {len(self.not_worse):,} are not significantly worse than the best; "
                "the others are ruled out."
            )
        else:
            sentences.append(f"How many of the {NUM_GENOTYPES:,} networks are as good, this method cannot tell.")
        return " ".join(sentences)

    @property
    def rank(self) -> int:
        """The found genotype's rank among the 4,096 by their scores, from 1."""
        return 1 + int(np.count_nonzero(self.scores > self.scores[number_of(self.genotype.digits)]))

    def as_found(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what ``genotype.json`` keeps of how it was found; ``facts`` (data, versions, …) join it."""
        return {
            "method": self.method,
            "verdict": self.verdict,
            "value": self.value_name,
            "blocks": [
                {
                    "block": name,
                    "candidate": block.candidate,
                    "decided": block.is_decided,
                    "reason": block.reason,
                    **{
                        key: dict(zip(CANDIDATE_NAMES, map(float, row), strict=True))
                        for key, row in (("values", block.values), ("low", block.low), ("high", block.high))
                        if len(row)
                    },
                }
                for name, block in zip(BLOCK_NAMES, self.blocks, strict=True)
            ],
            "places": [
                {"place": name, "value": place.value, "low": place.low, "high": place.high, "decided": place.is_decided}
                for name, place in zip(PLACE_NAMES, self.places, strict=bool(self.places))
            ],
            "score": self.score_name,
            "score_of_found": float(self.scores[number_of(self.genotype.digits)]),
            "rank_of_found": self.rank,
            "not_significantly_worse": list(self.not_worse),
            "caution": list(self.caution),
            "costs": dict(self.costs),
            **self.details,
            **facts,
        }

    def format(self) -> str:
        """Sets the architecture in the paper's form, with what each block's candidates are worth and how sure it is."""
        lines = []
        for line, block in zip(str(self.genotype).splitlines(), self.blocks, strict=True):
            values = ", ".join(f"{n} {v:.3f}" for n, v in zip(CANDIDATE_NAMES, block.values, strict=True))
            verdict = "decided" if block.is_decided else "undetermined"
            lines.append(f"{line}  ({values}; {verdict}: {block.reason})")
        return "\n".join(lines)


def write_ranking(path: Path, scores: np.ndarray, **more: np.ndarray) -> None:
    """Writes a score for each of the 4,096 genotypes, ``scores`` (4096,), and other arrays, all or nothing."""
    arrays: dict[str, Any] = {"scores": scores, **more}
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def list_digits() -> list[str]:
    """Lists all 4,096 genotypes in digits, in the order of a ranking."""
    return [digits_of(i) for i in range(NUM_GENOTYPES)]
