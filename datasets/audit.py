"""What may be wrong with a data set as a whole: leaks, duplicates, people whom only one camera saw."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from datasets.base import Sample, Splits

_NAMED = 3  # how many examples a finding names
_MOST_CAMERAS = 16  # in a row of a sheet; University-1652 has one camera per image


class Finding(NamedTuple):
    """Something worth reporting about a data set."""

    is_problem: bool  # otherwise only a note
    text: str


def hash_contents(paths: Iterable[str], workers: int) -> dict[str, bytes]:
    """Hashes each file's content (BLAKE2b, 16 bytes); files that cannot be read are left out."""
    unique = sorted(set(paths))

    def hash_file(path: str) -> bytes:
        try:
            return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest()
        except OSError:
            return b""

    with ThreadPoolExecutor(workers) as pool:
        return {path: digest for path, digest in zip(unique, pool.map(hash_file, unique), strict=True) if digest}


def find_duplicates(splits: Splits, digests: Mapping[str, bytes]) -> list[Finding]:
    """Finds images of the same content, in different files or in one file that is listed more than once.

    It is a problem where they are of different people, in training and in the test, or query and gallery under
    different cameras (a match for nothing). Other copies are a note; a file that is query and gallery under one camera
    (CUHK03's classic splits) is none.

    Args:
        splits: The data set.
        digests: Content hash by path; images without one are passed over.
    """
    parts = {"train": [*splits.train, *splits.extra_train], "query": splits.query, "gallery": splits.gallery}
    groups: dict[bytes, list[tuple[Sample, str]]] = {}
    for part, samples in parts.items():
        for s in samples:
            if s.path in digests:
                groups.setdefault(digests[s.path], []).append((s, part))
    problems: dict[str, list[str]] = {}
    notes: list[str] = []
    for listed in groups.values():
        paths = sorted({s.path for s, _ in listed})
        fault = _find_leak(listed)
        if fault:
            problems.setdefault(fault, []).append(" = ".join(paths))
        elif len(paths) > 1:
            notes.append(" = ".join(paths))
    findings = [Finding(True, f"same content {where}: {_name(texts)}") for where, texts in sorted(problems.items())]
    return findings + ([Finding(False, f"same content, same identity: {_name(notes)}")] if notes else [])


def find_shared_identities(splits: Splits) -> list[Finding]:
    """Finds identities that are in training and in the test."""
    train = {s.pid for s in [*splits.train, *splits.extra_train]}
    shared = train & {s.pid for s in [*splits.query, *splits.gallery]} - splits.distractor_pids
    names = map(splits.names.person, sorted(shared))
    return [Finding(True, f"identities in training and in the test: {_name(names)}")] if shared else []


def find_unmatched(splits: Splits) -> list[Finding]:
    """Finds identities that only one camera saw, and queries without a match under another camera."""
    findings = []
    cameras_of: dict[int, set[int]] = {}
    for s in _all_samples(splits):
        cameras_of.setdefault(s.pid, set()).add(s.camid)
    for part, samples in (("training", splits.train), ("query", splits.query), ("gallery", splits.gallery)):
        pids = {s.pid for s in samples} - splits.distractor_pids
        lonely = sorted(pid for pid in pids if len(cameras_of[pid]) == 1)
        if lonely:
            names = map(splits.names.person, lonely)
            findings.append(Finding(False, f"{part} identities seen by one camera only: {_name(names)}"))
    gallery_cameras: dict[int, set[int]] = {}
    for s in splits.gallery:
        gallery_cameras.setdefault(s.pid, set()).add(s.camid)
    unmatched = [s.path for s in splits.query if not gallery_cameras.get(s.pid, set()) - {s.camid}]
    if unmatched:
        findings.append(Finding(False, f"queries without a match under another camera: {_name(unmatched)}"))
    return findings


def choose_for_sheet(samples: Sequence[Sample], num_identities: int) -> list[list[Sample]]:
    """Chooses identities, evenly over those whom several cameras saw, and one image per camera, 16 at most."""
    by_camera: dict[int, dict[int, Sample]] = {}
    for s in samples:
        by_camera.setdefault(s.pid, {}).setdefault(s.camid, s)
    several = sorted(pid for pid, images in by_camera.items() if len(images) > 1) or sorted(by_camera)
    step = max(1, len(several) // max(1, num_identities))
    chosen = several[::step][:num_identities]
    return [[image for _, image in sorted(by_camera[pid].items())][:_MOST_CAMERAS] for pid in chosen]


def _find_leak(listed: Sequence[tuple[Sample, str]]) -> str:
    """Says where images of one content, each with its part, should not stand together; empty if they may."""
    parts = {part for _, part in listed}
    if "train" in parts and len(parts) > 1:
        return "in training and in the test"
    if len({s.pid for s, _ in listed}) > 1:
        return "under different identities"
    if len(parts) > 1 and len({s.camid for s, _ in listed}) > 1:
        return "in query and gallery under different cameras"
    return ""


def _all_samples(splits: Splits) -> list[Sample]:
    return [*splits.train, *splits.extra_train, *splits.query, *splits.gallery]


def _name(items: Iterable[str]) -> str:
    """Returns the number of items and the first few of them."""
    listed = list(items)
    more = f", and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return f"{len(listed)} ({', '.join(listed[:_NAMED])}{more})"
