"""Held-out images: who and what is never trained on, over all folds, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.base import Sample
from datasets.holdout import MIN_PEOPLE, NEW, SEEN, check_targets_unseen, hold_out
from utils.errors import UserError


def make(people, cameras, per_camera=2, name="a"):
    return [Sample(f"{name}/{p:04d}_c{c}_{n}.jpg", p, c) for p in range(people) for c in range(cameras)
            for n in range(per_camera)]  # fmt: skip


def paths(samples):
    return {s.path for s in samples}


@settings(max_examples=30)
@given(st.integers(40, 90), st.integers(2, 7), st.integers(2, 7), st.randoms())
def test_every_camera_and_person_is_held_out_once_and_nothing_is_in_two_parts(people, cameras, num_folds, random):
    num_folds = min(num_folds, cameras)
    people = max(people, MIN_PEOPLE * max(num_folds, 4))
    samples = make(people, cameras)
    held, aside = [], []
    for fold in range(num_folds):
        found = hold_out({"a": samples}, "cameras", fold, num_folds)
        assert found == hold_out({"a": random.sample(samples, len(samples))}, "cameras", fold, num_folds)
        train, new, seen, taught = found.train["a"], found.tests[NEW], found.tests[SEEN], found.taught["a"]
        cameras_held = set(found.facts["cameras"]["a"])
        assert not {s.camid for s in train} & cameras_held
        assert not paths(train) & paths(new.gallery)
        assert not paths(train) & paths(taught)
        assert {s.camid for s in taught} == cameras_held
        assert {s.pid for s in taught} <= {s.pid for s in train}
        new_people = {path.split("/")[1][:4] for path in paths(new.gallery)}
        assert not new_people & {path.split("/")[1][:4] for path in paths(train)}
        assert {int(s.path.split("_c")[1][0]) for s in (*new.query, *seen.query)} == cameras_held
        if len(cameras_held) > 1:
            assert new.gallery == new.query
        held += sorted(cameras_held)
        aside += sorted(new_people)
    assert sorted(held) == list(range(cameras))
    assert len(set(aside)) == len(aside)
    assert len(aside) == people if num_folds >= 4 else len(aside) < people


def test_one_held_out_camera_is_searched_in_all_the_others():
    found = hold_out({"a": make(40, 4)}, "cameras", 1, 4)
    assert {s.camid for s in found.tests[NEW].query} == {1}
    assert {s.camid for s in found.tests[NEW].gallery} == {0, 1, 2, 3}
    assert len(found.train["a"]) == 30 * 3 * 2


def test_person_whom_only_held_out_cameras_saw_is_new():
    samples = [s for s in make(44, 4) if s.pid != 5 or s.camid == 1]
    found = hold_out({"a": samples}, "cameras", 1, 4)
    person = "a/0005_c1_0.jpg"
    assert person in paths(found.tests[NEW].query)
    assert person not in paths(found.tests[SEEN].query) | paths(found.taught["a"])


def test_people_of_two_sources_stay_two():
    found = hold_out({"a": make(40, 4), "b": make(40, 4, name="b")}, "cameras", 0, 4)
    gallery = found.tests[NEW].gallery
    assert len({s.pid for s in gallery}) == 20
    by_person = {}
    for s in gallery:
        by_person.setdefault(s.pid, set()).add(s.path[0])
    assert all(len(sources) == 1 for sources in by_person.values())
    assert len({s.camid for s in gallery}) == 8


def test_source_in_turn():
    sources = {"a": make(12, 2), "b": make(15, 3, name="b")}
    first, second = (hold_out(sources, "source", fold, 2) for fold in (0, 1))
    assert list(first.train) == ["b"]
    assert list(second.train) == ["a"]
    assert paths(first.tests[NEW].gallery) == paths(sources["a"])
    assert len(first.tests[NEW].query) == 12 * 2
    assert first.facts["hash"] != second.facts["hash"]


def test_hash_stands_for_the_whole_split():
    samples = make(40, 4)
    hashes = {hold_out({"a": samples}, "cameras", fold, 4).facts["hash"] for fold in range(4)}
    hashes.add(hold_out({"a": samples[:-1]}, "cameras", 0, 4).facts["hash"])
    hashes.add(hold_out({"a": samples}, "cameras", 0, 2).facts["hash"])
    assert len(hashes) == 6


@pytest.mark.parametrize(
    ("sources", "mode", "fold", "folds", "told"),
    [
        ({"a": make(40, 1)}, "cameras", 0, 2, r"a has 1 camera\(s\): .*nas.num_folds 2 needs at least 2$"),
        ({"a": make(40, 3)}, "cameras", 0, 4, r"a has 3 camera.*folds 4 needs at least 4; set nas.num_folds 3$"),
        ({"a": make(39, 4)}, "cameras", 3, 4, "a has 39 people.*of whom 9 would be set aside.*so 40 in all"),
        ({"a": [s for s in make(40, 2) if (s.pid + s.camid) % 2]}, "cameras", 0, 2, "people never trained on, 0"),
        ({"a": make(40, 4)}, "source", 0, 2, "a is the only one"),
        ({"a": make(40, 4), "b": make(40, 4)}, "source", 2, 2, "nas.fold 2: with 2 sources the folds are 0 to 1"),
        ({"a": make(40, 1), "b": make(40, 4)}, "source", 0, 2, "a: 0 people are seen under two cameras"),
    ],
)  # fmt: skip
def test_too_little_is_one_line(sources, mode, fold, folds, told):
    with pytest.raises(UserError, match=told):
        hold_out(sources, mode, fold, folds)


def test_a_decision_never_sees_a_target():
    samples = make(40, 4)
    found = hold_out({"a": samples}, "cameras", 0, 4)
    check_targets_unseen(found, {"b": make(5, 2, name="b")}, None)
    for image in (found.train["a"][0], found.tests[NEW].query[0]):
        with pytest.raises(UserError, match="1 of the sources' images are test images of the target b"):
            check_targets_unseen(found, {"b": [Sample(image.path, 0, 0)]}, None)
    with pytest.raises(UserError, match="holds out a, which is also a target"):
        check_targets_unseen(found, {"a": []}, "a")
