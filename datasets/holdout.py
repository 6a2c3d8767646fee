"""Held-out images: what judges an architecture while searching, split off the sources before anything is trained.

Two ways:

``cameras``
    Some cameras of each source are never trained on, and some people neither: those *and* these are what a decision
    looks at. Each camera is held out in exactly one of the folds, and each of those people too. Queries are the
    set-aside people's images under held-out cameras; the gallery has their images under held-out cameras only where
    there are at least two of those, else under all cameras, since a query is matched to another camera than its own.
    The same with the people who were trained on is scored beside it, for comparison.
``source``
    One of several sources, in turn, is never trained on. All its people and cameras are new.

Targets have no part in it: ``check_targets_unseen`` refuses what would let a decision see one.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from datasets.base import Sample, count_identities, hash_samples, merge_sources
from datasets.random_splits import shuffled
from utils.errors import UserError

NEW, SEEN = "heldout_new", "heldout_seen"  # names of the scores: people never trained on, and people trained on
PEOPLE_SHARE = 4  # with up to four folds a quarter of the people is set aside; with more, one share per fold
MIN_PEOPLE = 10  # set aside; scores of fewer say nothing
_SEED = 0


class HeldOutTest(NamedTuple):
    """Queries and the gallery that they are searched in."""

    query: list[Sample]
    gallery: list[Sample]


@dataclass(frozen=True)
class HeldOut:
    """The sources, divided.

    Attributes:
        train: What remains to train on, by source; identity numbers are the sources' own.
        tests: What judges an architecture: a decision uses ``NEW``; ``SEEN``, under ``cameras``, is for comparison.
        taught: Images of trained people under held-out cameras, by source: their labels are known to a classifier.
        facts: Mode, fold, cameras, numbers of people and images, and a hash of the whole split, as plain values.
    """

    train: dict[str, list[Sample]]
    tests: dict[str, HeldOutTest]
    taught: dict[str, list[Sample]]
    facts: dict[str, Any]


def count_folds(mode: str, num_folds: int, num_sources: int) -> int:
    """Counts the folds of a mode: those that cameras are dealt into, or the sources, each held out in turn."""
    return num_sources if mode == "source" else num_folds


def hold_out(sources: Mapping[str, Sequence[Sample]], mode: str, fold: int, num_folds: int) -> HeldOut:
    """Divides the sources' training images; the same for every order of the images and on every machine.

    Args:
        sources: Images by source.
        mode: ``cameras`` or ``source``.
        fold: Which part is held out, from 0.
        num_folds: Into how many parts cameras are dealt; under ``source`` there is one fold per source.

    Raises:
        UserError: too few cameras, people or sources; the message gives the numbers.
    """
    ordered = {name: sorted(samples, key=lambda s: (s.pid, s.camid, s.path)) for name, samples in sources.items()}
    return _hold_out_source(ordered, fold) if mode == "source" else _hold_out_cameras(ordered, fold, num_folds)


def check_targets_unseen(
    held_out: HeldOut, targets: Mapping[str, Iterable[Sample]], held_out_source: str | None
) -> None:
    """Checks that no image that is trained on or that a decision looks at is a target's, nor of a target's place.

    Args:
        held_out: The division.
        targets: Each target's query and gallery images.
        held_out_source: The source that is held out as a whole, if one is.

    Raises:
        UserError: a decision could see a target.
    """
    if held_out_source in targets:
        raise UserError(
            f"nas.held_out source holds out {held_out_source}, which is also a target: the decision would see it; take "
            "it from data.targets or choose another nas.fold"
        )
    looked_at = {s.path for test in held_out.tests.values() for part in test for s in part}
    looked_at |= {s.path for samples in held_out.train.values() for s in samples}
    for name, samples in targets.items():
        if shared := sum(s.path in looked_at for s in samples):
            raise UserError(
                f"{shared} of the sources' images are test images of the target {name}: with nas.held_out the decision "
                "would see them; set data.combineall False, or take it from data.targets"
            )


def _hold_out_cameras(sources: Mapping[str, list[Sample]], fold: int, num_folds: int) -> HeldOut:
    train, taught, cameras, people = {}, {}, {}, {}
    tests: dict[str, list[HeldOutTest]] = {NEW: [], SEEN: []}
    for name, samples in sources.items():
        held = cameras[name] = _deal_cameras(name, samples, fold, num_folds)
        aside = people[name] = _deal_people(name, samples, fold, num_folds)
        train[name] = [s for s in samples if s.camid not in held and s.pid not in aside]
        taught[name] = [s for s in samples if s.camid in held and s.pid not in aside]
        trained = {s.pid for s in train[name]}  # without those whom only held-out cameras have seen
        taught[name] = [s for s in taught[name] if s.pid in trained]
        for kind, shown in (
            (NEW, [s for s in samples if s.pid not in trained]),
            (SEEN, [s for s in samples if s.pid in trained]),
        ):
            query = [s for s in shown if s.camid in held]
            tests[kind].append(HeldOutTest(query, query if len(held) > 1 else shown))
        if (num_people := _count_answerable(tests[NEW][-1])) < MIN_PEOPLE:
            raise UserError(
                f"{name}: of the people never trained on, {num_people} are seen both under held-out camera(s) "
                f"{sorted(held)} and under another one of the gallery, at least {MIN_PEOPLE} are needed; choose "
                "another nas.num_folds or nas.fold"
            )
    facts = {
        "mode": "cameras",
        "fold": fold,
        "num_folds": num_folds,
        "cameras": {name: sorted(held) for name, held in cameras.items()},
        "people_set_aside": {name: len(aside) for name, aside in people.items()},
    }
    return _finish(train, {kind: _join(parts) for kind, parts in tests.items()}, taught, facts)


def _deal_cameras(name: str, samples: Sequence[Sample], fold: int, num_folds: int) -> set[int]:
    """Returns the cameras that a fold holds out: every ``num_folds``-th."""
    cameras = sorted({s.camid for s in samples})
    if len(cameras) < max(2, num_folds):
        advice = f"; set nas.num_folds {len(cameras)}" if len(cameras) > 1 else ""
        raise UserError(
            f"{name} has {len(cameras)} camera(s): nas.held_out cameras with nas.num_folds {num_folds} needs at least "
            f"{max(2, num_folds)}{advice}"
        )
    return set(cameras[fold::num_folds])


def _deal_people(name: str, samples: Sequence[Sample], fold: int, num_folds: int) -> set[int]:
    """Returns the people that a fold sets aside, of all in random order every fourth or ``num_folds``-th."""
    order = shuffled([str(pid) for pid in sorted({s.pid for s in samples})], random.Random(_SEED))
    share = max(num_folds, PEOPLE_SHARE)
    aside = {int(pid) for pid in order[fold::share]}
    if len(aside) < MIN_PEOPLE:
        raise UserError(
            f"{name} has {len(order)} people to train on, of whom {len(aside)} would be set aside to judge "
            f"architectures: nas.held_out cameras needs at least {MIN_PEOPLE}, so {MIN_PEOPLE * share} in all"
        )
    return aside


def _hold_out_source(sources: Mapping[str, list[Sample]], fold: int) -> HeldOut:
    if len(sources) < 2:
        raise UserError(
            f"nas.held_out source holds one of several sources out, and {', '.join(sources)} is the only one; name "
            "more in data.sources, or set nas.held_out cameras"
        )
    if fold >= len(sources):
        raise UserError(f"nas.fold {fold}: with {len(sources)} sources the folds are 0 to {len(sources) - 1}")
    held = list(sources)[fold]
    train = {name: samples for name, samples in sources.items() if name != held}
    firsts = {(s.pid, s.camid): s for s in reversed(sources[held])}
    test = HeldOutTest(sorted(firsts.values(), key=lambda s: (s.pid, s.camid)), sources[held])
    if (num_people := _count_answerable(test)) < MIN_PEOPLE:
        raise UserError(
            f"{held}: {num_people} people are seen under two cameras, at least {MIN_PEOPLE} are needed to judge; "
            "choose another nas.fold"
        )
    facts = {"mode": "source", "fold": fold, "source": held}
    return _finish(train, {NEW: _join([test])}, {}, facts)


def _count_answerable(test: HeldOutTest) -> int:
    """Counts the people who are seen under a query's camera and another one of the gallery."""
    cameras_of: dict[int, set[int]] = {}
    for s in test.gallery:
        cameras_of.setdefault(s.pid, set()).add(s.camid)
    return len({s.pid for s in test.query if cameras_of.get(s.pid, set()) - {s.camid}})


def _join(parts: Sequence[HeldOutTest]) -> HeldOutTest:
    """Joins the sources' tests into one; people and cameras of different sources stay different ones."""
    gallery = merge_sources([test.gallery for test in parts])
    renamed = {s.path: s for s in gallery}
    return HeldOutTest([renamed[s.path] for test in parts for s in test.query], gallery)


def _finish(
    train: dict[str, list[Sample]],
    tests: dict[str, HeldOutTest],
    taught: dict[str, list[Sample]],
    facts: dict[str, Any],
) -> HeldOut:
    """Adds the numbers and the hash of a division to its facts."""
    lists = [*train.values(), *(part for test in tests.values() for part in test), *taught.values()]
    numbers = {
        "train": {name: _count(samples) for name, samples in train.items()},
        "tests": {name: {"query": _count(t.query), "gallery": _count(t.gallery)} for name, t in tests.items()},
    }
    return HeldOut(train, tests, taught, {**facts, **numbers, "hash": hash_samples(lists)})


def _count(samples: Sequence[Sample]) -> dict[str, int]:
    cameras = len({s.camid for s in samples})
    return {"people": count_identities(samples), "images": len(samples), "cameras": cameras}
