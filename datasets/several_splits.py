"""A mean over several splits of a target: which splits, and their images together, each listed once."""

from collections.abc import Collection, Iterable, Sequence

from datasets.base import Sample, Splits
from utils.errors import UserError


def choose_split_ids(name: str, splits: Splits, split_id: int, num_splits: int, sources: Collection[str]) -> list[int]:
    """Chooses the splits that a target is scored on.

    Args:
        name: The target.
        splits: Its split ``split_id``.
        split_id: The first one.
        num_splits: How many of a target that has several; one that has a single split is scored on that.
        sources: What is trained on.

    Returns:
        Values of ``split_id``, ascending; ``num_splits`` of them, or one.

    Raises:
        UserError: there are not that many, or people whom other splits test on are trained on.
    """
    if num_splits == 1 or not splits.split_ids:
        return [split_id]
    left = [i for i in splits.split_ids if i >= split_id]
    if len(left) < num_splits:
        raise UserError(
            f"test.num_splits is {num_splits}, but from data.split_id {split_id} on {name} has {len(left)} "
            f"(split_id {', '.join(map(str, left))}): lower one of the two"
        )
    if name in sources:
        raise UserError(
            f"{name} is a source, so split {split_id}'s training people are in the tests of its other splits: set "
            "test.num_splits 1, or test on another data set"
        )
    return left[:num_splits]


def unite(lists: Iterable[Sequence[Sample]]) -> list[Sample]:
    """Joins the images of several splits, each once, in the order in which they first come."""
    return list(dict.fromkeys(sample for samples in lists for sample in samples))


def keep(samples: Iterable[Sample], known: Iterable[Sample]) -> list[Sample]:
    """Returns the images of ``samples`` that are in ``known`` too."""
    known = set(known)
    return [s for s in samples if s in known]
