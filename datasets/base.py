"""What every data set gives: samples in three splits, and how several sources become one training set."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError
from utils.label_names import LabelNames


class MissingDataError(UserError):
    """A folder or file of a data set that is not there; the message says where it was looked for."""


class Sample(NamedTuple):
    """One image of one person."""

    path: str
    pid: int  # identity: in a reader's splits as the data set numbers it, after merge_sources a label from 0
    camid: int  # camera, from 0; Splits.names has its own name
    dataset: int = 0  # which of the sources it came from, from 0


@dataclass(frozen=True)
class Splits:
    """A data set as its protocol divides it.

    An identity number means the same person in every list. Junk images are in none of them. All lists are sorted
    and independent of the machine.

    Attributes:
        train: Images to learn from.
        query: Images that are searched for.
        gallery: Images that are searched in; ``distractor_pids`` included.
        extra_train: Images that join ``train`` under ``combineall`` only, besides query and gallery (MSMT17's
            validation part).
        distractor_pids: Identity numbers that stand for "somebody else"; never trained on.
        split_ids: All values of ``split_id`` whose splits are of the same kind as this one, ascending, for a mean over
            them; where either of two cameras can be the query, those with the same one. Empty: there is one split.
        names: What the data set's files call its people and cameras.
    """

    train: Sequence[Sample]
    query: Sequence[Sample]
    gallery: Sequence[Sample]
    extra_train: Sequence[Sample] = ()
    distractor_pids: frozenset[int] = frozenset()
    split_ids: Sequence[int] = ()
    names: LabelNames = field(default_factory=LabelNames, compare=False)


@dataclass(frozen=True)
class ReadOptions:
    """Choices that some readers offer; a reader ignores those of other data sets.

    Attributes:
        split_id: Which of a data set's random or given splits, from 0.
        market1501_500k: Add Market-1501's 500,000 distractors to its gallery.
        cuhk03_labeled: CUHK03 with hand-drawn boxes instead of detected ones.
        cuhk03_classic_split: CUHK03's 20 classic splits instead of the new 767/700 protocol.
        synthetic: Size and seed of the drawn data, by key of the ``synthetic`` config group.
        check_contents: Compare drawn images with their checksums, not with their lengths alone.
    """

    split_id: int = 0
    market1501_500k: bool = False
    cuhk03_labeled: bool = False
    cuhk03_classic_split: bool = False
    synthetic: dict[str, int] = field(default_factory=dict)
    check_contents: bool = False


Reader = Callable[[Path, ReadOptions], Splits]
"""Reads one data set below the root that the user gave; raises UserError where files are missing or wrong."""


def training_samples(splits: Splits, combineall: bool) -> list[Sample]:
    """Lists the images to train on: ``train``, and under ``combineall`` all others that show a known person.

    An image that is both query and gallery (CUHK03's classic splits) is listed once; distractors never are.
    """
    samples = [*splits.train]
    if combineall:
        samples += [*splits.extra_train, *splits.query, *splits.gallery]
    return [s for s in dict.fromkeys(samples) if s.pid not in splits.distractor_pids]


def merge_sources(sources: Iterable[Sequence[Sample]]) -> list[Sample]:
    """Joins the training images of several data sets into one labelled set.

    Identities are relabelled from 0 in sorted order, source after source; cameras likewise, so that camera 0 of two
    sources stay two cameras; ``dataset`` becomes the source's position.
    """
    merged: list[Sample] = []
    first_label = first_camid = 0
    for position, samples in enumerate(sources):
        label_of = {pid: first_label + i for i, pid in enumerate(sorted({s.pid for s in samples}))}
        camid_of = {cam: first_camid + i for i, cam in enumerate(sorted({s.camid for s in samples}))}
        merged += [Sample(s.path, label_of[s.pid], camid_of[s.camid], position) for s in samples]
        first_label += len(label_of)
        first_camid += len(camid_of)
    return merged


def label_like(others: Mapping[str, Sequence[Sample]], sources: Mapping[str, Sequence[Sample]]) -> list[Sample]:
    """Labels further images of the sources' people as ``merge_sources`` labels the sources'; cameras keep their ids."""
    labelled: list[Sample] = []
    first_label = 0
    for position, (name, samples) in enumerate(sources.items()):
        label_of = {pid: first_label + i for i, pid in enumerate(sorted({s.pid for s in samples}))}
        labelled += [Sample(s.path, label_of[s.pid], s.camid, position) for s in others.get(name, ())]
        first_label += len(label_of)
    return labelled


def count_identities(samples: Iterable[Sample]) -> int:
    """Counts the different people in ``samples``."""
    return len({s.pid for s in samples})


def hash_samples(lists: Iterable[Sequence[Sample]]) -> str:
    """Computes what stands for lists of images with their labels; folders above an image's own do not count."""
    digest = hashlib.sha256()
    for samples in lists:
        for sample in samples:
            name = "/".join(sample.path.rsplit("/", 2)[-2:])
            digest.update(f"{name}\0{sample.pid}\0{sample.camid}\n".encode(errors="surrogateescape"))
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def require_folder(path: Path, expected: str) -> Path:
    """Returns ``path`` if it is a folder.

    Raises:
        MissingDataError: it is not; ``expected`` says what should be there.
        UserError: it cannot be looked for, as with a name that is too long.
    """
    try:
        is_there = path.is_dir()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if not is_there:
        raise MissingDataError(f"no folder {path}: expected {expected}")
    return path


def require_images(folder: Path, splits: Splits) -> Splits:
    """Returns ``splits`` if it has images to train on, query and gallery.

    Raises:
        MissingDataError: one of the three is empty.
    """
    for part, samples in (("training", splits.train), ("query", splits.query), ("gallery", splits.gallery)):
        if not samples:
            raise MissingDataError(f"{folder} has no {part} image: copy the data set again")
    return splits


def check_split_id(name: str, split_id: int, num_splits: int) -> None:
    """Checks that a data set has the split that was asked for.

    Raises:
        UserError: ``split_id`` is not in 0 … ``num_splits`` − 1.
    """
    if not 0 <= split_id < num_splits:
        raise UserError(
            f"data.split_id is {split_id}, but {name} has splits 0 to {num_splits - 1}: choose one of these"
        )


def check_training(name: str, train: Sequence[Sample]) -> None:
    """Checks that a source has something to learn from.

    Raises:
        UserError: no training image, as in a data set that is for testing only.
    """
    if not train:
        raise UserError(
            f"{name} has no training images: use it as a target only, or set data.combineall to train on all its images"
        )


def check_protocol(name: str, query: Sequence[Sample], gallery: Sequence[Sample]) -> None:
    """Checks that at least one query can be answered at all.

    Raises:
        UserError: an empty list, no common identity, or no query with an image of its identity under another camera.
    """
    if not query or not gallery:
        raise UserError(f"{name}: {len(query)} query and {len(gallery)} gallery images; the test needs both")
    common = {s.pid for s in query} & {s.pid for s in gallery}
    if not common:
        raise UserError(f"{name}: query and gallery share no identity; the test needs people who are in both")
    cameras_of: dict[int, set[int]] = {}
    for s in gallery:
        cameras_of.setdefault(s.pid, set()).add(s.camid)
    if any(cameras_of.get(s.pid, set()) - {s.camid} for s in query):
        return
    cameras = {s.camid for s in query} | {s.camid for s in gallery}
    raise UserError(
        f"{name}: no query has a gallery image of its identity under another camera ({len(cameras)} camera(s) in "
        "all); the protocol leaves out matches of the query's own camera, so it needs people seen by two cameras"
    )
