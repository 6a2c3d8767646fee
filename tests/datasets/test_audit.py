"""What is found in a data set as a whole: copies, leaks, people without a second camera."""

from pathlib import Path

import pytest

from datasets.audit import (
    choose_for_sheet,
    find_duplicates,
    find_shared_identities,
    find_unmatched,
    hash_contents,
)
from datasets.base import Sample, Splits

CLEAN = Splits(
    train=[Sample("t1", 1, 0), Sample("t2", 1, 1)],
    query=[Sample("q1", 2, 0)],
    gallery=[Sample("g1", 2, 1), Sample("g0", 0, 1)],
    extra_train=[Sample("v1", 1, 0)],
    distractor_pids=frozenset({0}),
)
ALL = ("t1", "t2", "v1", "q1", "g1", "g0")


def digests(*same: str) -> dict[str, bytes]:
    """Every image has its own content, but those in ``same`` have one together."""
    return {path: b"same" if path in same else path.encode() for path in ALL}


def problems(*same: str) -> list[tuple[bool, str]]:
    return [(finding.is_problem, finding.text) for finding in find_duplicates(CLEAN, digests(*same))]


def test_a_clean_set() -> None:
    assert find_duplicates(CLEAN, digests()) == []
    assert find_shared_identities(CLEAN) == []
    assert find_unmatched(CLEAN) == []


def test_copies() -> None:
    assert problems("t1", "q1") == [(True, "same content in training and in the test: 1 (q1 = t1)")]
    assert problems("v1", "g1") == [(True, "same content in training and in the test: 1 (g1 = v1)")]
    assert problems("g1", "g0") == [(True, "same content under different identities: 1 (g0 = g1)")]
    assert problems("q1", "g1") == [(True, "same content in query and gallery under different cameras: 1 (g1 = q1)")]
    assert problems("t1", "v1", "t2") == [(False, "same content, same identity: 1 (t1 = t2 = v1)")]


def test_an_image_in_two_lists_is_no_copy() -> None:
    """CUHK03's classic splits: query and gallery are the same images."""
    both = [Sample("x", 2, 0), Sample("y", 2, 1)]
    assert find_duplicates(Splits([], both, both), {"x": b"x", "y": b"y"}) == []


@pytest.mark.parametrize(
    ("train", "query", "gallery", "text"),
    [
        ([("x", 1, 0)], [("x", 2, 0)], [("g", 2, 1)], "in training and in the test: 1 (x)"),
        ([("x", 1, 0)], [("q", 2, 0)], [("x", 1, 0), ("g", 2, 1)], "in training and in the test: 1 (x)"),
        ([], [("x", 2, 0)], [("x", 2, 1)], "in query and gallery under different cameras: 1 (x)"),
        ([], [("x", 2, 0)], [("x", 2, 0), ("x", 2, 1)], "in query and gallery under different cameras: 1 (x)"),
        ([("x", 1, 0), ("x", 2, 0)], [], [], "under different identities: 1 (x)"),
        ([], [("x", 2, 0)], [("x", 3, 0), ("y", 2, 1)], "under different identities: 1 (x)"),
    ],
)
def test_one_file_in_two_places_is_a_leak_too(
    train: list[tuple[str, int, int]], query: list[tuple[str, int, int]], gallery: list[tuple[str, int, int]], text: str
) -> None:
    """A manifest may list one file more than once."""
    lists = [[Sample(*fields) for fields in part] for part in (train, query, gallery)]
    splits = Splits(lists[0], lists[1], lists[2])
    findings = find_duplicates(splits, {path: path.encode() for path in "xygq"})
    assert [tuple(f) for f in findings] == [(True, f"same content {text}")]


def test_a_copy_under_another_camera_where_all_ask() -> None:
    """CUHK03's classic splits with two files of one content."""
    both = [Sample("x", 2, 0), Sample("y", 2, 1)]
    findings = find_duplicates(Splits([], both, both), {"x": b"same", "y": b"same"})
    assert [tuple(f) for f in findings] == [
        (True, "same content in query and gallery under different cameras: 1 (x = y)")
    ]


def test_a_copy_under_the_same_camera_is_harmless() -> None:
    """The protocol leaves matches of the query's own camera out."""
    splits = Splits([], [Sample("q", 2, 0)], [Sample("g", 2, 0)])
    findings = find_duplicates(splits, {"q": b"same", "g": b"same"})
    assert [tuple(f) for f in findings] == [(False, "same content, same identity: 1 (g = q)")]


def test_images_without_a_hash_are_passed_over() -> None:
    assert find_duplicates(CLEAN, {"t1": b"same"}) == []


def test_identities_in_both() -> None:
    splits = Splits([Sample("t", 2, 0)], [Sample("q", 2, 0)], [Sample("g", 2, 1), Sample("h", 3, 1)])
    assert [tuple(f) for f in find_shared_identities(splits)] == [
        (True, "identities in training and in the test: 1 (2)")
    ]
    validation = Splits([], [Sample("q", 2, 0)], [], extra_train=[Sample("v", 2, 0)])
    assert len(find_shared_identities(validation)) == 1
    distractor = Splits([Sample("t", 0, 0)], [], [Sample("g", 0, 1)], distractor_pids=frozenset({0}))
    assert find_shared_identities(distractor) == []


def test_one_camera() -> None:
    splits = Splits(
        train=[Sample("t", 1, 0), Sample("u", 1, 0)],
        query=[Sample("q", 2, 0), Sample("r", 5, 1)],
        gallery=[Sample("g", 2, 0), Sample("h", 5, 0), Sample("d", 0, 3)],
        distractor_pids=frozenset({0}),
    )
    assert [finding.text for finding in find_unmatched(splits)] == [
        "training identities seen by one camera only: 1 (1)",
        "query identities seen by one camera only: 1 (2)",
        "gallery identities seen by one camera only: 1 (2)",
        "queries without a match under another camera: 1 (q)",
    ]


def test_hashes_tell_contents_apart(tmp_path: Path) -> None:
    contents = {"a": b"1", "b": b"1", "c": b"2", "d": b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [f"{tmp_path}/{name}" for name in [*contents, "gone"]]
    hashes = hash_contents(paths, workers=3)
    a, b, c, d = (hashes[f"{tmp_path}/{name}"] for name in contents)
    assert a == b
    assert len({a, c, d}) == 3
    assert f"{tmp_path}/gone" not in hashes
    assert hashes == hash_contents(paths[::-1], workers=1)


def test_choose_for_sheet_takes_people_of_several_cameras() -> None:
    samples = [Sample(f"{pid}{cam}{n}", pid, cam) for pid in range(10) for cam in range(1 + pid % 2) for n in (0, 1)]
    rows = choose_for_sheet(samples, 2)
    assert [[s.path for s in row] for row in rows] == [["100", "110"], ["500", "510"]]
    assert len(choose_for_sheet(samples, 99)) == 5
    assert [len(row) for row in choose_for_sheet([Sample("x", 4, 0)], 3)] == [1]
    assert [len(row) for row in choose_for_sheet([Sample(f"{c}", 1, c) for c in range(99)], 3)] == [16]
    assert choose_for_sheet([], 3) == []
